"""The chat form (`mio.core.chat`) as a template for transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping

_TURNS = """\
{%- macro written(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}{%- for part in content -%}{{ part if part is string else part['text'] }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if not messages or messages[0]['role'] != 'system' -%}{{- SYSTEM -}}{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + written(message['content']) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def chat_template(system: Mapping[str, str]) -> str:
    """Jinja template of a conversation. `system` are the recipe's system prompts: the one under `default` is put before
    a conversation that brings none. Media are written as their token strings."""
    prompt = system.get("default", "")
    turn = f"<|im_start|>system\n{prompt}<|im_end|>\n" if prompt else ""
    return _TURNS.replace("SYSTEM", json.dumps(turn))  # a JSON string is one of Jinja too

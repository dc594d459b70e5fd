"""The chat form (`mio.core.tokens.chat`) as a template for transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mio.core.contract.values import Modality
from mio.core.tokens.chat import GIVEN

_TURNS = """\
{%- set systems = SYSTEMS -%}
{%- set spans = SPANS -%}
{%- set controls = CONTROLS -%}
{%- set roles = {'system': 'system', 'developer': 'system', 'user': 'user', 'human': 'user', 'assistant': 'assistant', \
'gpt': 'assistant', 'chatgpt': 'assistant', 'bot': 'assistant', 'model': 'assistant', 'ai': 'assistant'} -%}
{%- macro control(name) -%}
{%- if name not in controls -%}
{{- raise_exception('no control token `' ~ name ~ '`: there are ' ~ controls | join(', ')) -}}
{%- endif -%}
{{- controls[name] -}}
{%- endmacro -%}
{%- macro piece(part) -%}
{%- if part is string -%}{{ part }}
{%- elif part is mapping and part.get('type', 'text') == 'text' and 'text' in part -%}
{%- if part['text'] is string or part['text'] is number -%}{{ part['text'] }}
{%- elif part['text'] is not none -%}{{ raise_exception('the text of a part must be a string') }}
{%- endif -%}
{%- elif part is mapping and part.get('type') == 'control' and controls -%}{{ control(part.get('name')) }}
{%- elif part is mapping -%}
{{- raise_exception('a part of type `' ~ part.get('type') ~ '` cannot be written by this template: \
tokenise the media and write them as their token strings inside the text') -}}
{%- else -%}{{ raise_exception('a part must be a string or a mapping of type `text`') }}
{%- endif -%}
{%- endmacro -%}
{%- macro written(content) -%}
{%- if content is string or content is mapping -%}{{ piece(content) }}
{%- elif content is iterable -%}{%- for part in content -%}{{ piece(part) }}{%- endfor -%}
{%- elif content is not none -%}{{ raise_exception('the content of a message must be a string or a list of parts') }}
{%- endif -%}
{%- endmacro -%}
{%- macro role_of(message) -%}
{%- set role = message['role'] | trim | lower -%}
{%- if role not in roles -%}
{{- raise_exception('a message has the role system, user or assistant, not `' ~ role ~ '`') -}}
{%- endif -%}
{{- roles[role] -}}
{%- endmacro -%}
{%- macro answered() -%}
{%- set found = namespace(names=[], text='') -%}
{%- for message in messages -%}
{%- if role_of(message) == 'assistant' -%}
{%- set found.text = found.text ~ written(message.get('content')) -%}
{%- endif -%}
{%- endfor -%}
{%- for name, begin, end in spans -%}
{%- if begin in found.text -%}
{%- set found.names = found.names + [name] -%}
{%- set rest = namespace(text='') -%}
{%- for part in found.text.split(begin) -%}
{%- set rest.text = rest.text ~ (part if loop.first else part.split(end, 1)[1:] | join) -%}
{%- endfor -%}
{%- set found.text = rest.text -%}
{%- endif -%}
{%- endfor -%}
{%- for string in controls.values() -%}{%- set found.text = found.text.replace(string, '') -%}{%- endfor -%}
{%- if found.text | trim -%}{%- set found.names = found.names + ['text'] -%}{%- endif -%}
{{- found.names[0] if found.names | length == 1 -}}
{%- endmacro -%}
{%- macro given() -%}
{%- set found = namespace(text='', prompt='') -%}
{%- for message in messages -%}
{%- if role_of(message) != 'assistant' -%}
{%- set found.text = found.text ~ written(message.get('content')) -%}
{%- endif -%}
{%- endfor -%}
{%- for begin, prompt in GIVEN -%}
{%- if not found.prompt and begin in found.text -%}{%- set found.prompt = prompt -%}{%- endif -%}
{%- endfor -%}
{{- found.prompt -}}
{%- endmacro -%}
{{- bos_token -}}
{%- if not messages or role_of(messages[0]) != 'system' -%}
{%- set prompt = systems.get(output if output is defined else answered()) or given() or systems.get('default') -%}
{%- if prompt -%}{{- '<|im_start|>system\\n' ~ prompt ~ '<|im_end|>\\n' -}}{%- endif -%}
{%- endif -%}
{%- for message in messages -%}
{%- set role = role_of(message) -%}
{{- '<|im_start|>' ~ role ~ '\\n' -}}
{%- set learnt = namespace(yes=role == 'assistant' and message.get('weight') != 0) -%}
{%- for switch in ('train', 'training', 'trainable', 'loss') -%}
{%- if message.get(switch) is not none and not message.get(switch) -%}{%- set learnt.yes = false -%}{%- endif -%}
{%- endfor -%}
{%- set begun = control(message['control']) if role == 'assistant' and controls and message.get('control') else '' -%}
{%- set said = begun ~ written(message.get('content')) -%}
{%- set closed = message.get('end_tag') is none or message.get('end_tag') -%}
{%- if learnt.yes and closed -%}{%- generation -%}{{- said ~ '<|im_end|>' -}}{%- endgeneration -%}
{%- elif learnt.yes -%}{%- generation -%}{{- said -}}{%- endgeneration -%}{{- '<|im_end|>' -}}
{%- else -%}{{- said ~ '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def chat_template(
    system: Mapping[str, str], modalities: Sequence[Modality], controls: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Jinja template that renders a conversation as training renders a record of `messages`.

    `system` holds the recipe's system prompts, see `mio.core.tokens.chat.chat_document`. A conversation without one
    gets that of the variable `output`, of the one modality that all its answers consist of, of a modality that is given
    in it, or `default`. Media are written as their token strings; parts that are files are an error. Control tokens,
    whose strings `controls` has by name, are written where a message names them: rules that label answers are functions
    of plugins, which no template can hold. What is learnt is marked for
    `apply_chat_template(..., return_assistant_tokens_mask=True)`.
    """
    begins = {f"{GIVEN}{each.name}": each.begin for each in modalities}
    given = [[begins[key], prompt] for key, prompt in system.items() if begins.get(key) and prompt]
    spans = [[each.name, each.begin, each.end] for each in modalities if each.begin and each.end]
    literals = {"SYSTEMS": dict(system), "SPANS": spans, "GIVEN": given, "CONTROLS": dict(controls)}
    return re.sub("|".join(literals), lambda name: _literal(literals[name[0]]), _TURNS)


def _literal(value: object) -> str:
    """A Jinja expression. Characters beyond ASCII stay as they are: Jinja does not read JSON's surrogate pairs."""
    return json.dumps(value, ensure_ascii=False)

"""Prompts from a file, one a line. A line that holds none is told by its number, and costs no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mio.api.loaded import Loaded
from mio.api.parts import PartReader
from mio.core.data.readers.json_values import a_json_type, parse_json
from mio.core.errors import UserError, nearest
from mio.core.files import regular_file
from mio.core.generation.generate import Question
from mio.core.generation.prompt import Content, parse_prompt

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
"""Endings of files whose lines are JSON. Lines of others are prompts as they are typed."""
_KEYS = ("prompt", "messages", "output", "seed", "decoding")


@dataclass(frozen=True)
class PromptLine:
    """A line of a file of prompts that is not empty."""

    number: int
    """From 1."""
    question: Question | None
    problem: str = ""
    """Why there is no question."""


def typed_prompt(run: Loaded, prompt: str) -> Content:
    """Content of a prompt as a person types it, with media as `{MODALITY:FILE}`. Raises as `parse_prompt`."""
    return _typed(prompt, run.parts)


def read_prompts(run: Loaded, path: Path, question: Question, options: Mapping[str, Any]) -> list[PromptLine]:
    """The prompts of a file. Relative paths in it begin in its folder.

        Draw what you hear. {speech:seven.wav}

    or, in a file that ends with `.jsonl`, a string like that, or an object with `prompt` (a string like that, or a list
    of typed parts) or `messages`, and if need be `output`, `seed` and `decoding`:

        {"prompt": ["What is it? ", {"type": "image", "path": "a.png"}], "output": "speech", "seed": 3}

    Args:
        question: what lines do not say. To its seed, a line adds its number, counted from 0.
        options: of decoding, which those of a line come before.

    Raises:
        UserError: there is no such file.
    """
    regular_file(path)
    reader = PartReader(run.model, path.parent)
    lines = []
    for number, content in enumerate(path.read_bytes().split(b"\n"), 1):
        if not content.strip():
            continue
        own = replace(question, seed=question.seed + number - 1)
        try:
            if path.suffix.lower() in JSON_SUFFIXES:
                own, changed = _of_json(parse_json(content, "line"), own, reader)
            else:
                own, changed = replace(own, content=_typed(_text(content), reader)), {}
            decoding = run.decoding(own.output, {**options, **changed})
            lines.append(PromptLine(number, replace(own, decoding=decoding)))
        except UserError as error:
            lines.append(PromptLine(number, None, str(error).removeprefix("line: ")))
    return lines


def _of_json(value: Any, question: Question, reader: PartReader) -> tuple[Question, dict[str, Any]]:
    """A question, and options of its decoding."""
    if isinstance(value, str | list):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise UserError(f"a prompt is a string, a list of parts or an object, this is {a_json_type(value)}")
    if unknown := [key for key in value if key not in _KEYS]:
        raise UserError(f"unknown key `{unknown[0]:.40}`{nearest(unknown[0], _KEYS)}; there are {', '.join(_KEYS)}")
    if ("prompt" in value) == ("messages" in value):
        raise UserError("must have one of `prompt` and `messages`")
    output, options = value.get("output", question.output), value.get("decoding", {})
    if not isinstance(output, str):
        raise UserError(f"`output` must be the name of a modality, this is {a_json_type(output)}")
    if not isinstance(options, dict):
        raise UserError(f"`decoding` must be an object, this is {a_json_type(options)}")
    content: Content
    if "messages" in value:
        if not isinstance(value["messages"], list):
            raise UserError(f"`messages` must be a list, this is {a_json_type(value['messages'])}")
        content = reader.messages(value["messages"])
    else:
        prompt = value["prompt"]
        content = _typed(prompt, reader) if isinstance(prompt, str) else reader.parts(prompt, "prompt")
    own = replace(question, content=content, output=output, seed=value.get("seed", question.seed))
    return own, options


def _typed(prompt: str, reader: PartReader) -> Content:
    return parse_prompt(prompt, reader.modalities, reader.folder)


def _text(line: bytes) -> str:
    try:
        return line.decode().removesuffix("\r").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UserError("is not valid UTF-8") from None

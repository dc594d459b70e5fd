"""One answer to a prompt that a person typed, its media written as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.core.chat import chat_document
from mio.core.documents import Document, plain_document
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import need_of
from mio.core.generation.prompt import parse_prompt
from mio.core.modality import TEXT, Answer, Decoding, Value
from mio.core.parsing import parse_tokens
from mio.core.run import Run
from mio.core.templates import CHAT


@dataclass(frozen=True)
class Generated:
    """An answer and where its media went."""

    answer: Answer
    files: tuple[Path, ...]
    """One per media part, in order."""

    def to_json(self) -> dict[str, Any]:
        """`parts`, in order: `{"type": "text", "text": ...}` or `{"type": MODALITY, "path": ...}`."""
        paths = iter(self.files)
        return {
            "parts": [
                {"type": name, "text": content} if name == TEXT else {"type": name, "path": str(next(paths))}
                for name, content in self.answer.parts
            ]
        }


def generate(
    run: Run,
    prompt: str,
    output: str = "",
    out: Path | None = None,
    decoding: Decoding | None = None,
    seed: int = 0,
) -> Generated:
    """Answers `prompt` (see `parse_prompt`) and writes the answer's media into `out`, by default the current folder.

    With `output` the answer holds that modality and no media of another. Raises `UserError` for a prompt that names
    unknown modalities or missing or damaged files.
    """
    values = parse_prompt(prompt, run.codecs.modalities)
    need = need_of(output, run.codecs.modalities, only=True)
    tokens = run.renderer.prompt(prompt_document(run, values, output))
    [made] = generate_tokens(run.transformer, run.grammar, [tokens], decoding or Decoding(), need, seed)
    answer = decode_answer(run.codecs, parse_tokens(made, run.vocabulary, run.codecs.text).parts, output)
    folder = out or Path()
    files = []
    for index, (name, content) in enumerate(answer.parts):
        if name != TEXT:
            folder.mkdir(parents=True, exist_ok=True)
            files.append(run.codecs.detokenizer(name).save(content, folder / f"{name}-{index}"))
    return Generated(answer, tuple(files))


def prompt_document(run: Run, values: list[Value], output: str) -> Document:
    """The prompt in the form that the run was trained with."""
    if run.recipe.data.form == CHAT:
        turns: list[dict[str, Any]] = [{"role": "user", "content": values}, {"role": "assistant", "content": []}]
        return chat_document(turns, run.recipe.data.system, output)
    return plain_document(values, [])

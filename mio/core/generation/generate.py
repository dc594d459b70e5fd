"""One answer to a prompt that a person typed, its media written as files."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.core.contract.controls import CONTROL
from mio.core.contract.heads import Head
from mio.core.contract.sessions import Synthesiser
from mio.core.contract.values import TEXT, Answer, Decoding, Detokenizer, Value
from mio.core.errors import DataError, PluginError, UserError
from mio.core.files import naming
from mio.core.generation.answer import read_answer, written_part
from mio.core.generation.engine import answer_room
from mio.core.generation.model import Model
from mio.core.generation.prompt import parse_prompt
from mio.core.generation.sampling import check_decoding
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import Document, plain_document
from mio.core.tokens.templates import CHAT


@dataclass(frozen=True)
class Generated:
    """An answer and where its media went."""

    answer: Answer
    files: tuple[Path, ...]
    """One per media part, in order."""
    notice: str = ""
    """What a person should know about the answer, such as that the context cut it off."""

    def to_json(self) -> dict[str, Any]:
        """`parts`, in order: `{"type": "text", "text": ...}`, `{"type": "control", "name": ...}` or
        `{"type": MODALITY, "path": ...}`; and `silent` if it is."""
        paths = iter(self.files)
        parts = [written_part(name, content) or {"type": name, "path": str(next(paths))} for name, content in
                 self.answer.parts]  # fmt: skip
        return {"parts": parts} | ({"silent": True} if self.answer.silent else {})


def generate(
    model: Model,
    prompt: str,
    output: str = "",
    out: Path | None = None,
    decoding: Decoding | None = None,
    seed: int = 0,
    beyond_context: bool = False,
) -> Generated:
    """Answers `prompt` (see `parse_prompt`) and writes the answer's media into `out`, by default the current folder.
    Files that are there stay.

    With `output` the answer holds that modality and no media of another: one item, or up to `decoding.most`.
    Prompt and answer keep to the positions that the model was trained on, unless they may go `beyond_context`.

    Raises:
        UserError: the prompt names unknown modalities or missing or damaged files, or does not fit the context; options
            of `decoding` are invalid; `out` is not a folder; the model's scores are not finite.
    """
    decoding = decoding or Decoding()
    check_decoding(decoding, seed)
    folder = out or Path()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, media go into a folder")
    values = parse_prompt(prompt, model.codecs.modalities)
    need = model.need(output, only=True, decoding=decoding)
    asked = model.renderer.prompt(prompt_document(model, values, output))
    context = 0 if beyond_context else model.recipe.data.packing.context
    room = decoding.max_tokens
    if context:
        try:
            room = answer_room(len(asked.tokens), context, model.grammar.least(need))
        except DataError as error:
            raise DataError(
                f"{error}, or give --beyond-context: answers get worse there, and take much memory"
            ) from None
    [generated] = model.answers([asked], decoding, need, [seed], beyond_context)
    notice = ""
    if room < decoding.max_tokens and len(generated.tokens) + 1 >= room:
        notice = (
            f"the answer ends after {len(generated.tokens)} tokens, with the {context} positions that the model was "
            "trained on; --beyond-context lets it go on"
        )
    answer = read_answer(generated, model.vocabulary, model.codecs, output)
    files = []
    for index, (name, content) in enumerate(answer.parts):
        if name not in (TEXT, CONTROL):
            files.append(save_beside(model.codecs.saver(name), content, folder, name, index))
    return Generated(answer, tuple(files), notice)


def save_beside(saver: Detokenizer | Head | Synthesiser, content: Any, folder: Path, name: str, number: int) -> Path:
    """Writes media to `NAME-NUMBER` plus the format's suffix. The number is the next one without a file, or with a file
    of the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryDirectory(prefix=".mio-", dir=folder) as scratch:
        saved = saver.save(content, Path(scratch) / name)
        if not saved.is_file():
            raise PluginError(
                f"what writes `{name}` to files says that it saved {saved.name}, but there is no such file"
            )
        while True:
            path = folder / f"{name}-{number}{saved.name.removeprefix(name)}"
            try:
                target = path.open("xb")
            except FileExistsError:
                if path.is_file() and filecmp.cmp(saved, path, shallow=False):
                    return path
                number += 1
                continue
            try:
                with target, saved.open("rb") as source:
                    shutil.copyfileobj(source, target)
            except BaseException:
                path.unlink()
                raise
            return path


def prompt_document(model: Model, values: list[Value], output: str) -> Document:
    """The prompt in the form that the model was trained with."""
    if model.recipe.data.form == CHAT:
        turns: list[dict[str, Any]] = [{"role": "user", "content": values}, {"role": "assistant", "content": []}]
        return chat_document(turns, model.recipe.data.system, output)
    return plain_document(values, [])

"""Conversations as files: messages in the form that data sets have them in, beside their media."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.chat.conversation import Conversation, Exchange, Said, Shown
from mio.chat.media import MediaFile
from mio.core.contract.controls import CONTROL
from mio.core.contract.values import TEXT
from mio.core.errors import UserError

MESSAGES, PROMPTS, MEDIA = "conversation.jsonl", "prompts.jsonl", "media"


def export(conversation: Conversation, folder: Path) -> None:
    """Writes a conversation into a folder that does not exist.

    `conversation.jsonl` has one line, `{"messages": [...]}`, as training data have conversations: roles, and parts with
    `type` and `text`, or `path` of a file in `media/`. `prompts.jsonl` has a line for each answer, with the messages
    that it was given after and how it was decoded: `mio generate RUN --prompts prompts.jsonl` gives them again.

    Raises:
        UserError: nothing was answered yet.
    """
    answered = [one for one in conversation.exchanges if one.reply is not None]
    if not answered:
        raise UserError("there is nothing to export: no question was answered yet")
    folder.mkdir(parents=True)
    names: dict[Path, str] = {}
    messages: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    for number, one in enumerate(answered, 1):
        question = {"role": "user", "content": _parts(one.asked, folder, f"{number}-", names)}
        prompts.append(_prompt([*([] if one.settings.alone else messages), question], one))
        answer = _parts(one.answer, folder, f"{number}-answer-", names)
        if answer:  # what says nothing is left out, as it is where the conversation goes on
            messages += [question, {"role": "assistant", "content": answer}]
    _write(folder / MESSAGES, [{"messages": messages}])
    _write(folder / PROMPTS, prompts)


def export_zip(conversation: Conversation) -> Path:
    """The same as a file to download, in the conversation's folder. Raises `UserError` as `export`."""
    name = f"{conversation.host.name}-{len(conversation.exchanges)}"
    path = conversation.folder / f"{name}.zip"
    with tempfile.TemporaryDirectory(prefix="mio-", dir=conversation.folder) as scratch:
        folder = Path(scratch) / name
        export(conversation, folder)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder.parent))
    return path


def _prompt(messages: Sequence[dict[str, Any]], one: Exchange) -> dict[str, Any]:
    settings = one.settings
    line: dict[str, Any] = {"messages": list(messages), "seed": settings.seed, "decoding": asdict(settings.decoding)}
    return {**line, "output": settings.output} if settings.output else line


def _parts(parts: Sequence[Shown], folder: Path, prefix: str, names: dict[Path, str]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            told.append({"type": TEXT, "text": part})
        elif isinstance(part, Said):
            told.append({"type": CONTROL, "name": part.name})
        elif isinstance(part, MediaFile):
            told.append({"type": part.modality, "path": _copied(part.path, folder, prefix, names)})
    return told


def _copied(path: Path, folder: Path, prefix: str, names: dict[Path, str]) -> str:
    """The name of a file, which is copied when it is first named."""
    if path not in names:
        name = f"{prefix}{path.name}"
        taken = set(names.values())
        number = 2
        while f"{MEDIA}/{name}" in taken:
            name = f"{prefix}{number}-{path.name}"
            number += 1
        (folder / MEDIA).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / MEDIA / name)
        names[path] = f"{MEDIA}/{name}"
    return names[path]


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

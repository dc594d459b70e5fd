"""Media of answers as files, beside what is there."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mio.core.contract.heads import Head
from mio.core.contract.sessions import Synthesiser
from mio.core.contract.values import Detokenizer
from mio.core.errors import PluginError, UserError
from mio.core.files import naming

_STEM = "media"


def save_beside(saver: Detokenizer | Head | Synthesiser, content: Any, folder: Path, name: str, number: int) -> Path:
    """Writes media to `NAME-NUMBER` plus the format's suffix. The number is the next one without a file, or with a file
    of the same bytes. Raises `UserError` where the folder is none."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, media go into a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryDirectory(prefix=".mio-", dir=folder) as scratch:
        saved = saver.save(content, Path(scratch) / _STEM)
        if not saved.is_file():
            raise PluginError(
                f"what writes `{name}` to files says that it saved {saved.name}, but there is no such file"
            )
        while True:
            path = folder / f"{name}-{number}{saved.name.removeprefix(_STEM)}"
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

"""Pieces of content as files and JSON, for people to look at and listen to: prompts, answers, what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.values import TEXT, Codes, Media
from mio.core.errors import PluginError
from mio.core.generation.model import Model
from mio.core.tokens.tokenised import CodedMedia
from mio.core.tokens.visitor import Visitor

GIVEN = "given"
"""Folder beside what the model made: media of prompts and of records' own answers."""

Part = dict[str, Any]
"""As in the files of samples: `{"type": "text", "text": ...}`, `{"type": MODALITY, "path": ...}`, `{"type": "control",
"name": ...}`, and `{"type": MODALITY, "key": ...}` of media of which there is no file."""


@dataclass
class PartFiles(Visitor[Part]):
    """Writes media into a folder, `STEM-0`, `STEM-1` and so on, with the suffixes that their detokenizers or heads
    give; paths are relative to the folder above it where it is called `given`.

    Media that are only read, of which no plugin writes files, become `.npz` files of the arrays that they consist of,
    named `0`, `1` and so on; their parts say of what `media_type` they are.

    What cannot be written is named by its key, and `problems` says why.
    """

    model: Model
    folder: Path
    stem: str
    problems: list[str] = field(default_factory=list)
    _count: int = field(default=0, init=False)

    def parts(self, contents: Iterable[object]) -> list[Part]:
        """Those of some values, in order."""
        return [self.visit(content) for content in contents]

    def written(self, modality: str, content: Any, key: str = "") -> Part:
        """Media in the form that detokenizers give."""
        name = f"{self.stem}-{self._count}"
        self._count += 1
        try:
            saver = self.model.codecs.saver(modality)
        except PluginError:
            return self._arrays(modality, content, name, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        return {"type": modality, "path": self._path(saver.save(content, self.folder / name))}

    def _path(self, path: Path) -> str:
        return f"{GIVEN}/{path.name}" if self.folder.name == GIVEN else path.name

    def text(self, text: str) -> Part:
        return {"type": TEXT, "text": str(text)}

    def control(self, control: Control) -> Part:
        return {"type": CONTROL, "name": control.name}

    def media(self, media: Media) -> Part:
        return self._tried(media.modality, lambda: self.model.codecs.opened(media).data, media.key)

    def tokenised_media(self, media: Media) -> Part:
        return self._tried(media.modality, lambda: self.model.codecs.round_trip([media])[0], media.key)

    def coded_media(self, media: CodedMedia) -> Part:
        return self._tried(media.modality, lambda: self.model.codecs.opened(media).data, media.key)

    def codes(self, codes: Codes) -> Part:
        return self._tried(codes.modality, lambda: self.model.codecs.round_trip([codes])[0], "")

    def _tried(self, modality: str, content: Any, key: str) -> Part:
        try:
            return self.written(modality, content(), key)
        except MemoryError:
            raise
        except Exception as error:  # of a plugin, or of the disk: what is shown is worth no training's end
            self.problems.append(f"{modality} {key}: {error}")
            return {"type": modality, "key": key}

    def _arrays(self, modality: str, content: Any, name: str, key: str) -> Part:
        pieces: Sequence[Any] = content if isinstance(content, list | tuple) else [content]
        arrays = [np.asarray(piece) for piece in pieces]
        media_type = self.model.plugins.datamodule(modality).media_type
        if not media_type or any(array.dtype.kind not in "biuf" for array in arrays):
            return {"type": modality, "key": key}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.npz"
        with path.open("wb") as file:
            np.savez_compressed(file, **{str(place): array for place, array in enumerate(arrays)})  # type: ignore[arg-type]
        return {"type": modality, "media_type": media_type, "path": self._path(path)}

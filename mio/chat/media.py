"""Media of conversations as files: what the model is given, and what browsers show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.api import forms
from mio.core.contract.values import Media, MemoryFile
from mio.core.errors import DataError, PluginError
from mio.core.generation.saving import save_beside
from mio.core.tokens.codecs import Codecs

PICTURES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".avif")
SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".weba")
VIDEOS = (".mp4", ".m4v", ".webm", ".mov", ".ogv")
MODELS = (".glb", ".obj")
"""Endings of files that browsers show as they are, the last ones by `models.js`."""
_SHOWN = {
    forms.IMAGE: PICTURES,
    forms.AUDIO: (*SOUNDS, ".webm"),
    forms.VIDEO: (*VIDEOS, ".gif", ".apng"),
    forms.MODEL: MODELS,
}
_MADE: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    forms.IMAGE: (".png", forms.to_png),
    forms.AUDIO: (".wav", forms.to_wav),
    forms.VIDEO: (".apng", forms.to_apng),
}
"""What they show of all others: ending and content. Of media types that are not here, what their plugin writes."""


@dataclass(frozen=True)
class MediaFile:
    """An item of a conversation."""

    modality: str
    path: Path
    """What the model is given, and what is exported."""
    shown: Path
    """What a browser shows: the same file, or one that is made of it."""
    media_type: str
    """Empty for a modality without one: its files are offered to be saved."""


class MediaFolder:
    """Files of one conversation.

    Args:
        media_types: by modality, of those that have one.
    """

    def __init__(self, folder: Path, codecs: Codecs, media_types: dict[str, str]) -> None:
        self.folder, self._codecs, self._types = folder, codecs, media_types
        self._number = 0

    def given(self, modality: str, path: Path) -> MediaFile:
        """A file that somebody gave. Raises `DataError` where it cannot be read."""
        media_type = self._types.get(modality, "")
        if path.suffix.lower() in _SHOWN.get(media_type, (path.suffix.lower(),)):
            return MediaFile(modality, path, path, media_type)
        opened = self._codecs.opened(Media(modality, path, str(path)))
        return MediaFile(modality, path, self._show(modality, opened.data, media_type, path), media_type)

    def saved(self, modality: str, content: Any) -> MediaFile:
        """Media that are there as an object: decoded, or as a record has them."""
        media_type = self._types.get(modality, "")
        path = self._file_of(modality, content, media_type)
        if path.suffix.lower() in _SHOWN.get(media_type, (path.suffix.lower(),)):
            return MediaFile(modality, path, path, media_type)
        if isinstance(content, Path | MemoryFile):
            content = self._codecs.opened(Media(modality, content, str(path))).data
        return MediaFile(modality, path, self._show(modality, content, media_type, path), media_type)

    def _file_of(self, modality: str, content: Any, media_type: str) -> Path:
        if isinstance(content, Path):
            return content
        self._number += 1
        if isinstance(content, MemoryFile):
            return self._written(f"{modality}-{self._number}{content.suffix}", content.content)
        try:
            saver = self._codecs.saver(modality)
        except PluginError:  # a modality that is read alone
            if media_type not in _MADE:
                raise
            return self._made(f"{modality}-{self._number}", content, media_type)
        return save_beside(saver, content, self.folder, modality, self._number)

    def _show(self, modality: str, content: Any, media_type: str, path: Path) -> Path:
        self._number += 1
        if media_type not in _MADE:
            try:
                saver = self._codecs.saver(modality)
            except PluginError:  # a modality that is read alone
                return path
            return save_beside(saver, content, self.folder, f"{modality}-shown", self._number)
        return self._made(f"{modality}-{self._number}-shown", content, media_type)

    def _made(self, stem: str, content: Any, media_type: str) -> Path:
        suffix, make = _MADE[media_type]
        return self._written(f"{stem}{suffix}", make(content))

    def _written(self, name: str, content: bytes) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_bytes(content)
        return path


def modality_of(path: Path, suffixes: dict[str, tuple[str, ...]], wanted: str = "") -> str:
    """The modality that a file is read as: the wanted one, or the first that reads files of this ending.

    Args:
        suffixes: of the modalities that the run reads.

    Raises:
        DataError: there is none.
    """
    if wanted and wanted not in suffixes:
        raise DataError(f"{path.name}: this run does not read `{wanted}`; it reads {_listed([*suffixes])}")
    found = [wanted] if wanted else [name for name, endings in suffixes.items() if path.name.lower().endswith(endings)]
    if not found:
        known = sorted({suffix for endings in suffixes.values() for suffix in endings})
        raise DataError(f"{path.name}: this run reads no such files; it reads {_listed(known[:24])}")
    return found[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "text alone"

"""Reading media files of any origin: what plugins for sound and video share, third parties' as well.

    from mio import media

    rules = media.SoundRules(name="hum", frame_rate=50, max_seconds=15.0, truncate=False, filter_name="hum_max_seconds")
    samples, rate = rules.read(path)
    with media.container(path, ("matroska", "mov")) as container: ...      # PyAV's, of these formats alone

A file's kind follows from its content, and what its header says is compared with what it holds. Anything wrong is a
`DataError` that begins with the file's path. Imports decoders when first used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mio.core.contract.values import Codes, Media
from mio.core.files import regular_file

if TYPE_CHECKING:
    from mio.media.containers import container, opened
    from mio.media.sample_streams import SampleDecoder, SampleStream
    from mio.media.samples import SoundRules
    from mio.media.sound import Sound, SoundLength, read_sound, sound_length, sound_seconds

__all__ = [
    "SOUND_SUFFIXES",
    "SampleDecoder",
    "SampleStream",
    "Sound",
    "SoundLength",
    "SoundRules",
    "container",
    "contents",
    "opened",
    "read_sound",
    "regular_file",
    "sound_length",
    "sound_seconds",
]

SOUND_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus", ".oga", ".aac", ".wma", ".aiff", ".aif", ".aifc", ".au"),
    *(".snd", ".caf", ".w64", ".rf64", ".amr", ".mka", ".weba", ".mp2", ".ac3", ".wv", ".tta", ".sph"),
)
"""Endings of files that hold sound and nothing else; `read_sound` reads the sound of videos too."""

_PLACES = {
    "container": "containers",
    "opened": "containers",
    "SampleDecoder": "sample_streams",
    "SampleStream": "sample_streams",
    "Sound": "sound",
    "SoundLength": "sound",
    "SoundRules": "samples",
    "read_sound": "sound",
    "sound_length": "sound",
    "sound_seconds": "sound",
}


def contents(value: Any) -> Iterator[Media | Codes]:
    """Media and codes inside a record or one of its fields, in order."""
    if isinstance(value, Media | Codes):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from contents(inner)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

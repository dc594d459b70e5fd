"""Reading files that others wrote: what plugins of sound and of moving pictures share, a third party's as well.

    from mio import media

    rules = media.SoundRules(name="hum", frame_rate=50, max_seconds=15.0, truncate=False, filter_name="hum_max_seconds")
    samples, rate = rules.read(path)
    with media.container(path, ("matroska", "mov")) as container: ...      # PyAV's, of these formats alone

What a file says of itself is compared with what it holds, and what kind of file it is is told by its content. Whatever
is wrong with one is a `DataError` that begins with its path. Loads NumPy and decoders when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mio.core.files import regular_file

if TYPE_CHECKING:
    from mio.media.containers import container, opened
    from mio.media.samples import SoundRules
    from mio.media.sound import Sound, read_sound, sound_seconds

__all__ = [
    "SOUND_SUFFIXES",
    "Sound",
    "SoundRules",
    "container",
    "opened",
    "read_sound",
    "regular_file",
    "sound_seconds",
]

SOUND_SUFFIXES = (
    *(
        ".wav",
        ".flac",
        ".ogg",
        ".mp3",
        ".m4a",
        ".opus",
        ".oga",
        ".aac",
        ".wma",
        ".aiff",
        ".aif",
        ".aifc",
        ".au",
        ".snd",
    ),
    *(".caf", ".w64", ".rf64", ".amr", ".mka", ".weba", ".mp2", ".ac3", ".wv", ".tta", ".sph"),
)
"""Endings of files that hold sound and nothing else; `read_sound` reads the sound of videos too."""

_PLACES = {
    "container": "containers",
    "opened": "containers",
    "Sound": "sound",
    "SoundRules": "samples",
    "read_sound": "sound",
    "sound_seconds": "sound",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

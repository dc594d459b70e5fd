"""Music for mio: the modality `score`, melodies as notes, and `hum`, somebody humming them.

    mio fit mio-music/demo         # added to the trained demo of mio

`tunes.py` has the codes, `corpus.py` the real tunes, `hum_codec.py` the codes of sound, `records.py` what is learnt,
`tasks.py` what is measured, `files.py` what is written and read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mio
from mio_music.tunes import CODES, automaton


@dataclass(frozen=True)
class Options:
    hum_codes: int = mio.number(128, 16, 4096)
    """Spectra in the codebook of hums."""
    beside: bool = False
    """Whether a tune that is written comes as sound (`.wav`) and as a picture (`.png`) too, beside its MIDI file."""


@mio.hookimpl
def mio_modalities(options):
    chosen = mio.read_options(Options, options, "plugins.score")
    return [
        mio.Modality(
            name="score",
            codebooks=(CODES,),
            begin="<score>",
            end="</score>",
            code_token="<score{}>",
            frames=mio.Frames(minimum=4, maximum=192),
            automaton=automaton(),
        ),
        mio.Modality(
            name="hum",
            codebooks=(chosen.hum_codes,),
            begin="<hum>",
            end="</hum>",
            code_token="<hum{}>",
            frames=mio.Frames(minimum=1, maximum=160),
        ),
    ]


class ScoreCodec:
    """Tokenizer and detokenizer of `score`: tunes are their own codes `[1, F]`."""

    fingerprint = "score-1"

    def __init__(self, beside=False):
        self.beside = beside

    def encode(self, media):
        import numpy as np

        from mio_music.tunes import to_codes

        return [np.asarray([to_codes(self._checked(tune))], np.int64) for tune in media]

    def frames(self, media):
        return 1 + 2 * len(self._checked(media).notes) + len(media.bars)

    def decode(self, codes):
        from mio_music.tunes import from_codes

        try:
            return from_codes(codes[0].tolist())
        except ValueError as error:
            raise mio.DataError(f"not a tune: {error}") from error

    def save(self, media, stem):
        from mio_music.files import save

        return save(media, stem, self.beside)

    def _checked(self, tune):
        if problem := tune.problem:
            raise mio.DataError(f"not a tune of `score`: {problem}")
        return tune


@mio.hookimpl
def mio_tokenizer(modality, options):
    if modality == "score":
        return ScoreCodec()
    if modality == "hum":
        from mio_music.hum_codec import HumTokenizer

        return HumTokenizer(mio.read_options(Options, options, "plugins.score").hum_codes)
    return None


@mio.hookimpl
def mio_detokenizer(modality, options):
    if modality == "score":
        return ScoreCodec(mio.read_options(Options, options, "plugins.score").beside)
    return None


@mio.hookimpl
def mio_datamodule(modality):
    if modality == "score":
        from mio_music import files
        from mio_music.tasks import TEMPLATES

        return mio.DataModule(
            read=files.read, suffixes=files.SUFFIXES, templates={name: (one,) for name, one in TEMPLATES.items()}
        )
    if modality == "hum":
        from mio_music.hum_codec import RULES

        return mio.DataModule(
            read=RULES.read,
            probe=RULES.probe,
            in_memory=True,
            suffixes=mio.media.SOUND_SUFFIXES,
            media_type="audio",
            filters={"hum_max_seconds": RULES.filter},
        )
    return None


@mio.hookimpl
def mio_sources():
    from mio_music.records import SOURCES, Records

    return {name: lambda split, _options, make=make: Records(make, split) for name, make in SOURCES.items()}


@mio.hookimpl
def mio_tasks():
    from mio_music.tasks import tasks

    return tasks()


@mio.hookimpl
def mio_recipes():
    return {"mio-music/demo": str(Path(__file__).parent / "recipes" / "demo.yaml")}

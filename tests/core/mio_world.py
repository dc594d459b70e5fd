"""Declarations of MIO and its neighbours, and a text tokenizer without a file, for tests of the core."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mio import Codes, Frames, Media, Modality

TEXT = Modality(name="text", text=True)
IMAGE = Modality(
    name="image",
    codebooks=(8192,),
    begin="<image>",
    end="</image>",
    specials=("[IMG]",),
    code_token="<img{}>",
    frames=Frames(minimum=32, maximum=32),
)
SPEECH = Modality(
    name="speech",
    codebooks=(1024,) * 4,
    begin="<spch>",
    end="</spch>",
    specials=("[SPCH]",),
    code_token="<spch{}>",
    layout="codebook_major",
    views={"understand": (0,)},
    frames=Frames(minimum=1, maximum=750),
)
VIDEO = Modality(name="video", parts="image", frames=Frames(minimum=2, maximum=8))
MUSIC = Modality(
    name="music",
    codebooks=(2048,) * 4,
    begin="<somu>",
    end="<eomu>",
    code_token="<🎶{}>",
    layout="frame_major",
    frames=Frames(minimum=1, maximum=250),
)

DECLARED = [("text", TEXT), ("speech", SPEECH), ("image", IMAGE), ("video", VIDEO)]


class FakeText:
    """As many tokens as asked for: bytes from id 100 on, and the special ids of Yi."""

    def __init__(self, size: int = 64000, fingerprint: str = "yi") -> None:
        self.size = size
        self.specials = {"pad": 0, "bos": 1, "eos": 2, "im_start": 6, "im_end": 7}
        self.fingerprint = fingerprint
        self.encoded: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.encoded.append(text)
        return [100 + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(index - 100 for index in ids if index >= 100).decode(errors="replace")

    def token(self, index: int) -> str:
        return f"t{index}"


class FakeCodecs:
    """Media whose data are their codes; media of parts whose data are a list of them."""

    def __init__(self, text: FakeText | None = None) -> None:
        self.text = text or FakeText()
        self.readers: dict[str, object] = {}
        self.makers: dict[str, object] = {}
        self.kept: tuple[str, ...] = ()

    def by_network(self, modality: str, view: str) -> bool:  # noqa: ARG002
        return False

    def codes(self, media: Media | Codes) -> np.ndarray:
        codes = np.asarray(media.codes if isinstance(media, Codes) else media.data)
        return codes.astype(np.int64) if codes.dtype.kind in "iu" else codes

    def frames(self, media: Media) -> int:
        return int(np.asarray(media.data).shape[1])

    def split(self, media: Media) -> list[Media]:
        return list(media.data)


def image_codes(start: int = 0) -> np.ndarray:
    return (np.arange(32)[None] + start) % 8192


def speech_codes(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (4, frames))

"""Toy modalities of codes in all four layouts, with an encoder of one of them, items of parts, and control tokens of
all actions. A plugin for tests: what is decoded is checked, not made.
"""

import numpy as np

import mio

FRAMES = mio.Frames(minimum=2, maximum=6)
DECLARED = (
    mio.Modality(name="flat", codebooks=(9,), begin="<flat>", end="</flat>", code_token="<flat{}>", frames=FRAMES),
    mio.Modality(name="major", codebooks=(5, 5, 5), begin="<major>", end="</major>", code_token="<major{}>",
                 layout="codebook_major", views={"generate": (0, 2)}, frames=FRAMES),
    mio.Modality(name="frames", codebooks=(4, 3), begin="<frames>", end="</frames>", code_token="<frames{}>",
                 layout="frame_major", frames=FRAMES),
    mio.Modality(name="delayed", codebooks=(4, 4, 4), begin="<delayed>", end="</delayed>", code_token="<delayed{}>",
                 layout="delayed", frames=FRAMES),
    mio.Modality(name="square", codebooks=(30,), begin="<square>", end="</square>", code_token="<square{}>",
                 frames=mio.Frames(minimum=4, maximum=4)),
    mio.Modality(name="series", parts="delayed", frames=mio.Frames(minimum=2, maximum=3)),
)  # fmt: skip
TOKENS = (
    mio.ControlToken(name="noise", token="<2>", plain_text=True, action="silence"),
    mio.ControlToken(name="query", token="<1>", plain_text=True, action="interrupt"),
    mio.ControlToken(name="think", token="<think>", anywhere=True, action="insert", insert="So: "),
    mio.ControlToken(name="over", token="<over>", anywhere=True, action="stop"),
    mio.ControlToken(name="aside", token="<aside>"),
)


class Coder:
    """Media are their codes."""

    fingerprint = "signals"

    def __init__(self, declared):
        self._declared = declared

    def encode(self, media):
        return list(media)

    def frames(self, media):
        return media.shape[1]

    def decode(self, codes):
        sizes = [self._declared.codebooks[one] for one in self._declared.view("generate")]
        least, most = self._declared.frames.minimum, self._declared.frames.maximum
        if codes.dtype != np.int64 or len(codes) != len(sizes) or not least <= codes.shape[1] <= most:
            raise mio.DataError(f"no codes of `{self._declared.name}`: {codes.dtype} {codes.shape}")
        if (codes < 0).any() or (codes >= np.array(sizes)[:, None]).any():
            raise mio.DataError(f"codes of `{self._declared.name}` are out of their range")
        return codes

    def save(self, media, stem):
        path = stem.with_suffix(".npy")
        np.save(path, media)
        return path


class Series:
    def split(self, media):
        return [mio.Media("delayed", one, f"{media.key}/{index}") for index, one in enumerate(media.data)]

    def decode(self, parts):
        if not 2 <= len(parts) <= 3:
            raise mio.DataError(f"a series of {len(parts)}")
        return parts

    def save(self, media, stem):
        path = stem.with_suffix(".npz")
        np.savez(path, *media)
        return path


class SquareEncoder:
    """What is read of a square: an embedding of its codes."""

    fingerprint = "square-encoder"

    def positions(self, media):  # noqa: ARG002
        return 1

    def prepare(self, media):
        return {"codes": media[:, :4].astype(np.int64)}

    def dummy(self):
        return {"codes": np.zeros((1, 4), np.int64)}

    def module(self, width):
        from torch import nn

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.codes = nn.Embedding(30, width)

            def forward(self, items):
                return self.codes(items.arrays["codes"]).sum(1)

        return Network()


@mio.hookimpl
def mio_modalities():
    return list(DECLARED)


@mio.hookimpl
def mio_tokenizer(modality):
    known = {one.name: one for one in DECLARED}
    return Series() if modality == "series" else Coder(known[modality]) if modality in known else None


@mio.hookimpl
def mio_detokenizer(modality):
    known = {one.name: one for one in DECLARED}
    return Series() if modality == "series" else Coder(known[modality]) if modality in known else None


@mio.hookimpl
def mio_encoder(modality):
    return SquareEncoder() if modality == "square" else None


@mio.hookimpl
def mio_control_tokens():
    return mio.ControlTokens(tokens=TOKENS)

"""A toy modality whose media come while they are written: chimes of three codebooks, in a layout of the recipe's
choice; and peals, each a sequence of chimes. A plugin for tests.
"""

import numpy as np

import mio

BOOKS = (5, 4, 3)
LONGEST = 9
RATE = 100
PER_FRAME = 4


class ChimeStream:
    """Each frame's samples depend on the next frame, too, and on all before: samples are one frame behind."""

    def __init__(self):
        self.before, self.level, self.pushed = None, 0.0, 0

    def push(self, codes):
        assert codes.dtype == np.int64
        assert codes.shape[1]
        self.pushed += codes.shape[1]
        pieces = [self._frame(frame) for frame in codes.T]
        samples = np.concatenate(pieces)
        return (samples, RATE) if len(samples) else None

    def finish(self):
        return self._frame(self.before), RATE

    def _frame(self, frame):
        before, self.before = self.before, frame
        if before is None:
            return np.zeros(0, np.float32)
        self.level += float(before.sum())
        return np.linspace(self.level / 1000, float(frame.sum()), PER_FRAME).astype(np.float32)


class Chimes:
    """The detokenizer. What it has decoded as a whole is counted, and how many frames streams have decoded."""

    def __init__(self):
        self.decoded, self.streams = 0, []

    def decode(self, codes):
        self.decoded += 1
        stream = ChimeStream()
        pieces = [stream.push(codes), stream.finish()]
        return np.concatenate([samples for samples, _ in filter(None, pieces)]), RATE

    def stream(self):
        self.streams.append(ChimeStream())
        return self.streams[-1]

    def save(self, media, stem):
        path = stem.with_suffix(".txt")
        path.write_text(str(media))
        return path


class Peals:
    """Has no stream: decoded when all chimes are there."""

    def decode(self, chimes):
        return np.concatenate([samples for samples, _ in chimes]), RATE

    def save(self, media, stem):
        return Chimes.save(self, media, stem)


@mio.hookimpl
def mio_modalities(options):
    books = BOOKS[:1] if options.get("layout") == "flat" else BOOKS
    return [
        mio.Modality(
            name="chime", codebooks=books, begin="<chime>", end="</chime>", code_token="<chime{}>",
            layout=options.get("layout", "delayed"), frames=mio.Frames(minimum=1, maximum=LONGEST),
        ),
        mio.Modality(name="peal", parts="chime", frames=mio.Frames(minimum=1, maximum=12)),
    ]  # fmt: skip


@mio.hookimpl
def mio_detokenizer(modality):
    return {"chime": Chimes, "peal": Peals}.get(modality, lambda: None)()

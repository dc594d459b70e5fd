"""A modality that a network inside the model reads: gestures of a pen, whose strokes it names, and scribbles, on which
it stays silent.

Everything that mio asks of such a modality is here: declaration, encoder with its module, control token, data and task.
"""

import mio

STROKES = {"up": (0, 1), "down": (0, -1), "left": (-1, 0), "right": (1, 0)}
POINTS = 8
"""Movements of the pen in one stroke, and behind one position of the model."""
TEMPLATES = (mio.Template(direction="read", prompt="{gesture} The strokes are:", response="{strokes?}"),)


class PenEncoder:
    """Movements of the pen, float32 `[T, 2]`, to one position for every eight of them."""

    fingerprint = "pen-1"

    def positions(self, media):
        return -(-len(media) // POINTS)

    def prepare(self, media):
        import numpy as np

        pieces = np.zeros((self.positions(media), 2 * POINTS), np.float32)
        pieces.ravel()[: media.size] = media.ravel()
        return {"pieces": pieces}

    def dummy(self):
        import numpy as np

        return {"pieces": np.zeros((1, 2 * POINTS), np.float32)}

    def module(self, width):
        from torch import nn

        class Pen(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(2 * POINTS, width), nn.Linear(width, width)])

            def forward(self, items):
                first, second = self.layers
                return second(nn.functional.gelu(first(items.arrays["pieces"])))  # [S, 2 * POINTS] -> [S, width]

        return Pen()


class Gestures:
    """Drawn anew for every record: one to three strokes, and every fourth a scribble."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 2000 if self.split == "train" else 200

    def __getitem__(self, index):
        import numpy as np

        if not 0 <= index < len(self):
            raise IndexError(index)
        draw = np.random.default_rng([index, self.split == "test"])
        names = draw.choice(list(STROKES), draw.integers(1, 4))
        pen = np.repeat([STROKES[name] for name in names], POINTS, axis=0)
        if scribble := index % 4 == 3:
            pen = draw.choice(list(STROKES.values()), len(pen))
        pen = (pen + draw.normal(0, 0.3, pen.shape)).astype(np.float32)
        media = mio.Media("gesture", pen, key=f"gesture-{self.split}-{index}")
        return {"gesture": media, "strokes": "" if scribble else " " + " ".join(names)}


def label(turn):
    return "" if turn.record.get("strokes", True) else "scribble"


def judge(answers, records):
    return [
        answer.text == record["strokes"] and answer.silent == (not record["strokes"])
        for answer, record in zip(answers, records, strict=True)
    ]


def read(path):
    import numpy as np

    return np.loadtxt(path, dtype=np.float32, ndmin=2)


@mio.hookimpl
def mio_modalities():
    return [mio.Modality(name="gesture", begin="<pen>", end="</pen>")]


@mio.hookimpl
def mio_encoder(modality):
    return PenEncoder() if modality == "gesture" else None


@mio.hookimpl
def mio_control_tokens():
    scribble = mio.ControlToken(name="scribble", token="<scribble>", action="silence")
    return mio.ControlTokens(tokens=[scribble], label=label)


@mio.hookimpl
def mio_datamodule(modality):
    if modality == "gesture":
        return mio.DataModule(read=read, suffixes=(".pen",), templates={"gesture": TEMPLATES})
    return None


@mio.hookimpl
def mio_sources():
    return {"gesture/strokes": lambda split, _options: Gestures(split)}


@mio.hookimpl
def mio_tasks():
    gestures = Gestures("test")
    return [
        mio.Task(
            name="strokes",
            template=TEMPLATES[0],
            records=lambda count: [gestures[i] for i in range(min(count, len(gestures)))],
            output="text",
            judge=judge,
            decoding=mio.Decoding(max_tokens=32),
        )
    ]

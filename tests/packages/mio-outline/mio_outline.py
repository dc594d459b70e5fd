"""Flat meshes on a grid of four by four points: an item is a span of vertices and a span of faces.

Vertices are two codes each, x and y, in ascending order; faces are triples of numbers of vertices, in ascending order
themselves. Both are said by automata. That a face names a vertex which is there only the detokenizer sees, which is
given both.
"""

import itertools

import mio

SIDE = 4
POINTS = SIDE * SIDE
MOST = 4
"""Vertices of a mesh, at most."""


def vertices():
    """A vertex comes behind the one before it: the state has its number, x * SIDE + y."""
    arcs = {}
    for last in range(-1, POINTS - 1):
        first = (last + 1) // SIDE
        arcs["x", last] = tuple(mio.Arc((x,), ("y", last, x)) for x in range(first, SIDE))
        for x in range(first, SIDE):
            least = max(last + 1 - x * SIDE, 0)
            arcs["y", last, x] = tuple(mio.Arc((y,), ("x", x * SIDE + y)) for y in range(least, SIDE))
    final = [("x", last) for last in range(POINTS)]
    return mio.Automaton(start=("x", -1), arcs=arcs, final=final)


def faces():
    """Three numbers of vertices, ascending."""
    arcs = {"a": tuple(mio.Arc((one,), ("b", one)) for one in range(MOST - 2))}
    for one in range(MOST - 2):
        arcs["b", one] = tuple(mio.Arc((two,), ("c", two)) for two in range(one + 1, MOST - 1))
    for two in range(1, MOST - 1):
        arcs["c", two] = (mio.Arc(range(two + 1, MOST), "a"),)
    return mio.Automaton(start="a", arcs=arcs, final=("a",))


@mio.hookimpl
def mio_modalities():
    codes = {"layout": "flat"}
    return [
        mio.Modality(
            name="outline_vertices", codebooks=(SIDE,), begin="<vertices>", end="</vertices>", code_token="<at{}>",
            frames=mio.Frames(minimum=6, maximum=2 * MOST, step=2), automaton=vertices(), **codes,
        ),
        mio.Modality(
            name="outline_faces", codebooks=(MOST,), begin="<faces>", end="</faces>", code_token="<vertex{}>",
            frames=mio.Frames(minimum=3, maximum=6, step=3), automaton=faces(), **codes,
        ),
        mio.Modality(name="outline", parts=("outline_vertices", "outline_faces")),
    ]  # fmt: skip


class Rows:
    """Rows of numbers, `width` each, as codes `[1, F]` and back."""

    def __init__(self, width):
        self.width, self.fingerprint = width, f"rows-{width}"

    def encode(self, media):
        import numpy as np

        return [np.asarray(rows, np.int64).reshape(1, -1) for rows in media]

    def frames(self, media):
        return self.width * len(media)

    def decode(self, codes):
        return tuple(tuple(row) for row in codes.reshape(-1, self.width).tolist())

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.txt")
        path.write_text("\n".join(" ".join(map(str, row)) for row in media), encoding="utf-8")
        return path


class Outline:
    """A mesh is `(vertices, faces)`."""

    fingerprint = "outline-1"

    def split(self, media):
        names = ("outline_vertices", "outline_faces")
        return [mio.Media(name, part, f"{media.key}/{name}") for name, part in zip(names, media.data, strict=True)]

    def decode(self, parts):
        points, triangles = parts
        missing = max(map(max, triangles))
        if missing >= len(points):
            raise mio.DataError(f"a face names vertex {missing} of {len(points)}")
        return points, triangles

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.obj")
        points, triangles = media
        lines = [f"v {x} {y} 0" for x, y in points]
        lines += ["f " + " ".join(str(number + 1) for number in face) for face in triangles]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path


@mio.hookimpl
def mio_tokenizer(modality):
    widths = {"outline_vertices": 2, "outline_faces": 3}
    return Outline() if modality == "outline" else Rows(widths[modality]) if modality in widths else None


@mio.hookimpl
def mio_detokenizer(modality):
    return mio_tokenizer(modality)


TEMPLATES = (
    mio.Template(direction="name", prompt="{outline} It begins at", response=" {corner}"),
    mio.Template(direction="draw", prompt="Draw from {corner}:", response="{outline}"),
)


@mio.hookimpl
def mio_datamodule(modality):
    return mio.DataModule(templates={"outline": TEMPLATES}) if modality == "outline" else None


class Triangles:
    """All triangles of three points of the grid's border. With `broken`, some list their vertices backwards."""

    def __init__(self, split, broken=0):
        points = [point for point in itertools.product(range(SIDE), repeat=2) if 0 in point or SIDE - 1 in point]
        found = list(itertools.combinations(points, 3))
        self.found = [one for place, one in enumerate(found) if (place % 5 == 0) == (split == "test")]
        self.broken = broken

    def __len__(self):
        return len(self.found)

    def __getitem__(self, index):
        points = self.found[index]
        if index < self.broken:
            points = points[::-1]
        media = mio.Media("outline", (points, ((0, 1, 2),)), key=repr(points))
        return {"outline": media, "corner": "{} {}".format(*points[0])}


@mio.hookimpl
def mio_sources():
    return {"outline/triangles": lambda split, options: Triangles(split, options.get("broken", 0))}


def judge(answers, records):
    """Whether the mesh begins where it was asked to."""
    verdicts = []
    for answer, record in zip(answers, records, strict=True):
        [*meshes] = answer.media("outline")
        verdicts.append(bool(meshes) and "{} {}".format(*meshes[0][0][0]) == record["corner"])
    return verdicts


@mio.hookimpl
def mio_tasks():
    test = Triangles("test")
    return [
        mio.Task(
            name="outlines",
            template=TEMPLATES[1],
            records=lambda count: [test[index] for index in range(min(count, len(test)))],
            output="outline",
            judge=judge,
            decoding=mio.Decoding(media_temperature=0.0, max_tokens=24),
        )
    ]

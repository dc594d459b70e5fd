"""Closed surfaces as numbers that can say nothing else.

A mesh is written corner by corner. The open border of what is there is a path of edges from the first corner to the
second. A new corner stands on some neighbouring edges of it, with a triangle on each, and hides the corners between
them. Where the path has two edges left, a triangle on both and on the edge of the first two corners closes the surface.

So every edge has two triangles. And every triangulated sphere has such an order, its canonical ordering (de Fraysseix,
Pach and Pollack, "How to draw a planar graph on a grid", Combinatorica 10, 1990), which is found from its end.
"""

from itertools import pairwise

import mio

GRID, PATH, CORNERS = 16, 20, 40
"""Largest coordinate; most edges of the path; most corners of a mesh."""
CODEBOOKS = (PATH, PATH, GRID + 1, GRID + 1, GRID + 1)
"""Of a corner: how many corners of the path it hides, the place of the one before these, x, y, z."""


def automaton():
    """What a corner may be depends on the length of the path, and on nothing else: states are `(codebook, length)`."""
    arcs = {}
    for length in range(-1, PATH + 1):  # 1 is the edge of the first two corners, and 0 is the first one alone
        hidden = range(max(0, length + 1 - PATH), max(1, length))
        arcs["hidden", length] = [mio.Arc((number,), ("place", length + 1 - number)) for number in hidden]
    for length in range(PATH + 1):  # with the new corner
        arcs["place", length] = [mio.Arc(range(max(1, length - 1)), ("x", length))]
        for axis, following in pairwise(("x", "y", "z", "hidden")):
            arcs[axis, length] = [mio.Arc(range(GRID + 1), (following, length))]
    return mio.Automaton(start=("hidden", -1), arcs=arcs, final=[("hidden", 2)])


def encode(mesh):
    """Rows of codes, one for each corner, of corners `(x, y, z)` on the grid and triangles, as numbers of corners
    counterclockwise from outside. Raises `mio.DataError` for anything but a triangulated sphere."""
    import trimesh

    corners, triangles = mesh
    surface = trimesh.Trimesh(corners, triangles, process=False)
    if not (surface.is_volume and surface.euler_number == 2 and surface.body_count == 1 and len(corners) <= CORNERS):
        raise mio.DataError(f"a mesh is not one closed surface, without holes through it, of at most {CORNERS} corners")
    around = [{} for _ in corners]  # of each corner: who follows whom around it
    for a, b, c in triangles:
        around[a][b], around[b][c], around[c][a] = c, a, b
    height = [(y, z, x) for x, y, z in corners]
    first = min(range(len(corners)), key=height.__getitem__)
    second = min(around[first], key=height.__getitem__)
    path, rows = [first, around[second][first], second], []
    while len(path) > 2:
        # corners that can have come last: no edge leads from them to the path but its own two
        free = [i for i in range(1, len(path) - 1) if len(around[path[i]].keys() & set(path)) == 2]
        place = max(free, key=lambda i: height[path[i]])
        fan = [path[place - 1]]
        while fan[-1] != path[place + 1]:
            fan.append(around[path[place]][fan[-1]])
        rows.append((len(fan) - 2, place - 1, *corners[path[place]]))
        path[place - 1 : place + 2] = fan
    return [(0, 0, *corners[first]), (0, 0, *corners[second]), *reversed(rows)]


def decode(rows):
    """The mesh of rows that `automaton` accepts."""
    path, triangles = [0, 1], []
    for corner, (hidden, place, *_) in enumerate(rows[2:], 2):
        fan = path[place : place + hidden + 2]
        triangles += [(corner, a, b) for a, b in pairwise(fan)]
        path[place + 1 : place + hidden + 1] = [corner]
    return tuple(tuple(row[2:]) for row in rows), (*triangles, tuple(path))

"""Closed surfaces as numbers that can say nothing else.

A mesh is written corner by corner. The open border of what is there is a path of edges from the first corner to the
second. A new corner covers some neighbouring edges of it with triangles, and replaces the corners between them. Where
the path has two edges left, a triangle on both and on the edge of the first two corners closes the surface.

Every triangulated sphere has such an order, its canonical ordering (de Fraysseix, Pach and Pollack, "How to draw a
planar graph on a grid", Combinatorica 10, 1990), which is found from its end. And all that is written so is a
triangulated sphere: edges of a new corner are new, so that every edge has two triangles, and no two triangles coincide.
"""

import itertools

import mio

GRID, PATH, CORNERS = 16, 20, 40
"""Largest coordinate; most edges of the path; most corners of a mesh."""
CODEBOOKS = (PATH + 1, PATH, GRID + 1, GRID + 1, GRID + 1)
"""Of a corner: how many edges of the path it covers, the place of the first of them, x, y, z."""


def automaton():
    """What a corner may be depends on the length of the path, and on nothing else: states are `(codebook, length)`."""
    # of each length, or what there is before: by number of edges that are covered, the length behind
    covers = {"empty": {0: "corner"}, "corner": {0: 1}, 1: {1: "triangle"}, "triangle": {1: 3, 2: 2}}
    covers |= {n: {n + 2 - left: left for left in range(2, min(n + 1, PATH) + 1)} for n in range(2, PATH + 1)}
    arcs = {}
    for length, behind in covers.items():
        arcs["edges", length] = [mio.Arc((edges,), ("place", left)) for edges, left in behind.items()]
        for left in behind.values():
            places = left - 1 if left in range(2, PATH + 1) else 1
            arcs["place", left] = [mio.Arc(range(places), ("x", left))]
            for axis, following in (("x", "y"), ("y", "z"), ("z", "edges")):
                arcs[axis, left] = [mio.Arc(range(GRID + 1), (following, left))]
    return mio.Automaton(start=("edges", "empty"), arcs=arcs, final=[("edges", 2)])


def mesh(corners, triangles):
    """A mesh of arrays `[V, 3]` and `[T, 3]`: corners `(x, y, z)`, and triangles as numbers of corners,
    counterclockwise from outside."""
    return tuple(map(tuple, corners.astype(int).tolist())), tuple(map(tuple, triangles.tolist()))


def encode(mesh):
    """Rows of codes, one for each corner, low ones first. Raises `mio.DataError` for anything but a triangulated sphere
    on the grid."""
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
        rows.append((len(fan) - 1, place - 1, *corners[path[place]]))
        path[place - 1 : place + 2] = fan
    return [(0, 0, *corners[first]), (0, 0, *corners[second]), *reversed(rows)]


def decode(rows):
    """The mesh of rows that `automaton` accepts."""
    path, triangles = [0, 1], []
    for corner, (edges, place, *_) in enumerate(rows[2:], 2):
        fan = path[place : place + edges + 1]
        triangles += [(corner, a, b) for a, b in itertools.pairwise(fan)]
        path[place : place + edges + 1] = [fan[0], corner, fan[-1]]
    return tuple(tuple(row[2:]) for row in rows), (*triangles, tuple(path))

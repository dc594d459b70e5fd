"""Shapes: the objects of `shapes.obj`, each in every size along each axis; records of them."""

from functools import cache
from itertools import product
from math import gcd
from pathlib import Path
from random import Random

import mio
from mio_mesh import surface
from mio_mesh.views import view


@cache
def kinds():
    """The meshes of all kinds by name, as large as the grid."""
    import trimesh

    path = Path(__file__).with_name("shapes.obj")
    drawn = trimesh.load_scene(path, split_objects=True, group_material=False, process=False).geometry
    meshes = {kind: surface.mesh(drawn[kind].vertices, drawn[kind].faces) for kind in sorted(drawn)}
    return {kind: surface.decode(surface.encode(mesh)) for kind, mesh in meshes.items()}  # in one order of corners


def shape(kind, size):
    """The mesh of a kind in a size: whole numbers along x, y and z."""
    corners, triangles = kinds()[kind]
    half, grid = surface.GRID // 2, surface.GRID
    return tuple(tuple((n * s + half) // grid for n, s in zip(c, size, strict=True)) for c in corners), triangles


class Shapes:
    """Held out is a tenth of all proportions, of all kinds: views fill their pictures, so that multiples look alike."""

    def __init__(self, split):
        sizes = list(product(range(6, surface.GRID + 1), repeat=3))  # in smaller ones, corners meet
        draws = [Random(repr([length // gcd(*size) for length in size])).random() for size in sizes]
        kept = [size for size, draw in zip(sizes, draws, strict=True) if (draw < 0.1) == (split == "test")]
        self.shapes = list(product(kinds(), kept))
        Random(0).shuffle(self.shapes)

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        kind, size = self.shapes[index]
        mesh, text = shape(kind, size), f"{kind}, {' by '.join(map(str, size))}"
        return {
            "kind": kind,
            "size": size,
            "text": text,
            "facts": f"{text}, {len(mesh[1])} faces",
            "mesh": mio.Media("mesh", mesh, key=text),
            "view": mio.Media("image", view(mesh), key=f"mesh/{text}"),
        }

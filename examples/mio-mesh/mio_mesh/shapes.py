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


def held_out(size):
    """A tenth of all proportions, of all kinds: views are as large as they fit, so that a multiple looks the same."""
    return Random(repr([length // gcd(*size) for length in size])).random() < 0.1


class Shapes:
    fingerprint = "shapes-1"

    def __init__(self, split):
        sizes = product(range(6, surface.GRID + 1), repeat=3)  # in smaller ones, corners meet
        self.shapes = list(product(kinds(), [size for size in sizes if held_out(size) == (split == "test")]))
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

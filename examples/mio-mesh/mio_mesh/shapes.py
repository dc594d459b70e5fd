"""Shapes: the objects of `shapes.obj`, each in every size along each axis; their views, and records of them."""

from functools import cache
from itertools import product
from math import gcd
from pathlib import Path
from random import Random

import numpy as np

import mio
from mio_mesh.surface import GRID, decode, encode

PIXELS, FINER = 8, 4
"""Of a view along each side, and of the finer picture that each pixel is the mean of."""
TURN, TILT = 0.5, 0.45
"""Where it is seen from, in radians: from the front, turned to the right, and raised."""
RIGHT = np.array([np.cos(TURN), 0, -np.sin(TURN)])
AWAY = -np.array([np.sin(TURN) * np.cos(TILT), np.sin(TILT), np.cos(TURN) * np.cos(TILT)])
LIGHT, AMBIENT = (0.2, 0.84, 0.5), 0.2
"""Where light comes from, and the part of it that comes from everywhere."""


@cache
def kinds():
    """The meshes of all kinds by name, as large as the grid."""
    import trimesh

    path = Path(__file__).with_name("shapes.obj")
    drawn = trimesh.load_scene(path, split_objects=True, group_material=False, process=False).geometry
    return {kind: decode(encode((drawn[kind].vertices, drawn[kind].faces))) for kind in sorted(drawn)}


def shape(kind, size):
    """The mesh of a kind in a size: whole numbers along x, y and z."""
    corners, triangles = kinds()[kind]
    scaled = (np.array(corners, int) * size + GRID // 2) // GRID
    return tuple(map(tuple, scaled.tolist())), triangles


@cache
def view(mesh):
    """A mesh as large as it fits in parallel projection, uint8 `[PIXELS, PIXELS]`, light on black."""
    axes = np.stack([RIGHT, np.cross(AWAY, RIGHT), AWAY], axis=1)  # to the right, down, away
    corners = np.array(mesh[0]) @ axes
    corners = (corners - (corners.max(0) + corners.min(0)) / 2) / np.ptp(corners, axis=0)[:2].max()  # from -0.5 to 0.5
    faces = corners[np.array(mesh[1])]  # [T, corner, axis]
    normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    seen = normals[:, 2] < -1e-9
    faces, normals = faces[seen], normals[seen] / np.linalg.norm(normals[seen], axis=1, keepdims=True)
    shades = AMBIENT + (1 - AMBIENT) * (normals @ (LIGHT @ axes)).clip(0, 1)
    across = (np.arange(PIXELS * FINER) + 0.5) / (PIXELS * FINER) - 0.5
    points = np.stack([*np.meshgrid(across, across), np.ones((len(across),) * 2)], axis=-1).reshape(-1, 3)
    shares = points @ np.linalg.inv(faces * (1, 1, 0) + (0, 0, 1))  # [T, point, corner], negative beside the triangle
    depth = np.where(shares.min(-1) > -1e-9, (shares @ faces[..., 2:])[..., 0], np.inf)
    picture = np.where(np.isfinite(depth.min(0)), shades[depth.argmin(0)], 0)
    return (255 * picture.reshape(PIXELS, FINER, PIXELS, FINER).mean((1, 3))).round().astype(np.uint8)


class Shapes:
    """Held out is a tenth of all proportions, of all kinds: views fill their pictures, so that multiples look alike."""

    def __init__(self, split):
        sizes = product(range(6, GRID + 1), repeat=3)  # in smaller ones, corners meet
        draws = {size: Random(repr([length // gcd(*size) for length in size])).random() for size in sizes}
        kept = [size for size, draw in draws.items() if (draw < 0.1) == (split == "test")]
        self.shapes = list(product(kinds(), kept))
        Random(0).shuffle(self.shapes)

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        kind, size = self.shapes[index]
        mesh, text = shape(kind, size), f"{kind}, {' by '.join(map(str, size))}"
        media = {"mesh": mio.Media("mesh", mesh, text), "view": mio.Media("image", view(mesh), f"mesh/{text}")}
        return {"kind": kind, "size": size, "text": text, **media}

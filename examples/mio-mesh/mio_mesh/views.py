"""Meshes as pictures: parallel projection, hidden surfaces by depth (a z-buffer)."""

import numpy as np

PIXELS, FINER = 8, 4
"""Of a view along each side, and of the finer picture that each pixel is the mean of."""
TURN, TILT = 0.5, 0.45
"""Where it is seen from, in radians: from the front, turned to the right, and raised."""
RIGHT = np.array([np.cos(TURN), 0, -np.sin(TURN)])
AWAY = -np.array([np.sin(TURN) * np.cos(TILT), np.sin(TILT), np.cos(TURN) * np.cos(TILT)])
LIGHT, AMBIENT = (0.2, 0.84, 0.5), 0.2
"""Where light comes from, and the part of it that comes from everywhere."""


def view(mesh):
    """A mesh as large as it fits, uint8 `[PIXELS, PIXELS]`, light on black."""
    corners, triangles = np.array(mesh[0], float), np.array(mesh[1])
    a, b, c = np.moveaxis(corners[triangles], 1, 0)  # [T, 3] each
    normals = np.cross(b - a, c - a)
    front = normals @ AWAY < -1e-9
    normals = normals[front] / np.linalg.norm(normals[front], axis=1, keepdims=True)
    shades = AMBIENT + (1 - AMBIENT) * (normals @ LIGHT).clip(0, 1)
    seen = corners @ np.stack([RIGHT, np.cross(AWAY, RIGHT), AWAY], axis=1)  # to the right, down, away
    seen = (seen - (seen.max(0) + seen.min(0)) / 2) / np.ptp(seen, axis=0)[:2].max()  # from -0.5 to 0.5
    a, b, c = np.moveaxis(seen[triangles[front]], 1, 0)
    across = (np.arange(PIXELS * FINER) + 0.5) / (PIXELS * FINER) - 0.5
    x, y = np.meshgrid(across, across)
    parts = np.stack([_area(p, q, x[..., None], y[..., None]) for p, q in ((b, c), (c, a), (a, b))])  # [3, P, P, T]
    depth = np.einsum("khwt,kt->hwt", parts, np.stack([a, b, c])[..., 2]) / _area(a, b, *c.T[:2])
    depth[(parts > 1e-9).any(0)] = np.inf
    picture = np.where(np.isfinite(depth.min(-1)), shades[depth.argmin(-1)], 0)
    return (255 * picture.reshape(PIXELS, FINER, PIXELS, FINER).mean((1, 3))).round().astype(np.uint8)


def _area(p, q, x, y):
    """Twice the areas of triangles on the screen, negative where they are seen from the front."""
    return (q[:, 0] - p[:, 0]) * (y - p[:, 1]) - (q[:, 1] - p[:, 1]) * (x - p[:, 0])

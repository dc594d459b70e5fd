"""The plugin `mesh`: closed triangle meshes on a grid, from words and pictures, and to words, pictures, GLB and OBJ."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mio
from mio_mesh import surface
from mio_mesh.shapes import Shapes
from mio_mesh.tasks import TASKS


@dataclass(frozen=True)
class Codec:
    """Meshes, pairs of corners and triangles, to codes `[5, V]`, a frame for each corner, and back."""

    format: str = mio.one_of("glb", "glb", "obj")
    """Of files that are written."""
    fingerprint = f"mesh-2-{surface.CODEBOOKS}"

    def encode(self, media):
        return [np.array(surface.encode(mesh)).T for mesh in media]

    def frames(self, media):
        return len(media[0])

    def decode(self, codes):
        return surface.decode(codes.T.tolist())

    def save(self, media, stem):
        import trimesh

        path = stem.with_name(f"{stem.name}.{self.format}")
        trimesh.Trimesh(*media, process=False).export(path)
        return path


def read(file):
    """A file's mesh at the origin of the grid; one that is larger, or between its points, is scaled to fill it."""
    import trimesh

    with file.open("rb") as content:  # from a stream, nothing is opened that the file refers to
        mesh = trimesh.load_mesh(content, file_type=file.suffix.lower()[1:], process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)  # a file's triangles may have corners of their own
    corners = mesh.vertices - mesh.vertices.min(0)
    if corners.max() > surface.GRID or (corners % 1).any():
        corners = (corners * (surface.GRID / corners.max())).round()
    return surface.decode(surface.encode((corners.astype(int).tolist(), mesh.faces)))


@mio.hookimpl
def mio_modalities():
    return [
        mio.Modality(
            name="mesh",
            codebooks=surface.CODEBOOKS,
            begin="<mesh>",
            end="</mesh>",
            code_token="<mesh{}>",
            layout="frame_major",
            frames=mio.Frames(minimum=4, maximum=surface.CORNERS),
            automaton=surface.automaton(),
        )
    ]


@mio.hookimpl
def mio_tokenizer(modality, options):
    return mio.read_options(Codec, options, "plugins.mesh") if modality == "mesh" else None


mio_detokenizer = mio_tokenizer


@mio.hookimpl
def mio_datamodule(modality):
    if modality != "mesh":
        return None
    suffixes, templates = (".glb", ".obj", ".stl", ".ply", ".off"), {"mesh": tuple(task.template for task in TASKS)}
    return mio.DataModule(read=read, in_memory=True, suffixes=suffixes, media_type="model", templates=templates)


@mio.hookimpl
def mio_sources():
    return {"mesh/shapes": lambda split, _options: Shapes(split)}


@mio.hookimpl
def mio_tasks():
    return TASKS


@mio.hookimpl
def mio_recipes():
    return {"mesh": str(Path(__file__).with_name("mesh.yaml"))}

"""The plugin `mesh`: closed triangle meshes on a grid, from words and pictures, and to words, pictures, GLB and OBJ."""

from dataclasses import dataclass

import numpy as np

import mio
from mio_mesh import surface, tasks
from mio_mesh.shapes import Shapes


@dataclass(frozen=True)
class Codec:
    """Meshes, pairs of corners and triangles, to codes `[5, V]`, a frame for each corner, and back."""

    format: str = mio.one_of("glb", "glb", "obj")
    """Of files that are written."""
    fingerprint = f"mesh-1-{surface.CODEBOOKS}"

    def encode(self, media):
        return [np.array(surface.encode(mesh)).T for mesh in media]

    def frames(self, media):
        return len(media[0])

    def decode(self, codes):
        return surface.decode(codes.T.tolist())

    def save(self, media, stem):
        import trimesh

        path = stem.with_suffix(f".{self.format}")
        trimesh.Trimesh(*media, process=False).export(path)
        return path


def read(file):
    """A file's mesh at the origin of the grid; one that is larger, or between its points, is scaled to fill it."""
    import trimesh

    with file.open("rb") as content:  # from a stream, nothing is opened that the file refers to
        mesh = trimesh.load_mesh(content, file_type=file.suffix.lower()[1:], process=False)
    if not mesh.is_watertight:  # files may give triangles corners of their own, for colours and normals
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
    corners = mesh.vertices - mesh.vertices.min(0)
    if corners.max() > surface.GRID or (corners % 1).any():
        corners = (corners * (surface.GRID / corners.max())).round()
    return surface.mesh(corners, mesh.faces)


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
    kinds, templates = (".glb", ".obj", ".stl", ".ply", ".off"), {"mesh": tasks.TEMPLATES}
    return mio.DataModule(read=read, in_memory=True, suffixes=kinds, media_type="model", templates=templates)


@mio.hookimpl
def mio_sources():
    return {"mesh/shapes": lambda split, _options: Shapes(split)}


@mio.hookimpl
def mio_tasks():
    return list(map(tasks.task, tasks.TEMPLATES))


@mio.hookimpl
def mio_recipes():
    from importlib.resources import files

    return {"mesh": str(files("mio_mesh") / "mesh.yaml")}

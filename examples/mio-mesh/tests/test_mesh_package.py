"""The package beside independent truth: trimesh's topology, convex hulls of scipy, Pillow's polygons."""

from math import gcd
from random import Random

import numpy as np
import pytest
import trimesh
from mio_mesh import Codec, mio_datamodule, shapes, surface
from mio_mesh.shapes import Shapes, kinds, shape
from mio_mesh.tasks import TASKS
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

import mio
import mio.testing

SIZES = [(6, 6, 6), (7, 13, 9), (16, 8, 11), (15, 15, 14), (10, 6, 16)]
SOLIDS = ("box", "cone", "cuboctahedron", "cylinder", "garnet", "house", "wedge")


def faces(mesh):
    """Triangles by place, whatever their order and that of their corners."""
    placed = [tuple(tuple(mesh[0][corner]) for corner in triangle) for triangle in mesh[1]]
    return sorted(min((a, b, c), (b, c, a), (c, a, b)) for a, b, c in placed)


def accepts(automaton, rows):
    """Whether an automaton takes all codes of the rows, one after the other, and may end."""
    state = automaton.start
    for code in (code for row in rows for code in row):
        [state] = [arc.to for arc in automaton.arcs[state] if code in arc.codes] or [None]
        if state is None:
            return False
    return state in automaton.final


def walk(automaton, draw):
    """Rows of codes on random arcs, from four corners to about thirty."""
    state, codes, least = automaton.start, [], 5 * draw.randrange(4, 30)
    while state not in automaton.final or len(codes) < least:
        arc = draw.choice(automaton.arcs[state])
        codes.append(draw.choice(arc.codes))
        state = arc.to
    return np.reshape(codes, (-1, 5)).tolist()


def sphere(draw, corners):
    """The convex hull of random points, on no grid, and its triangles, counterclockwise from outside."""
    points = draw.normal(size=(corners, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    hull = ConvexHull(points)
    a, b, c = points[hull.simplices].swapaxes(0, 1)
    turned = np.einsum("ij,ij->i", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    return points, np.where(turned[:, None], hull.simplices[:, ::-1], hull.simplices)


def test_the_plugin_keeps_mios_contract():
    image = {"tokenizer": "patch_vq", "size": shapes.PIXELS, "patch": 2, "codebook_size": 64}
    mio.testing.check_plugin("mesh", {}, beside={"text": {"tokenizer": "bytes"}, "image": image})


@pytest.mark.parametrize("kind", kinds())
def test_shapes_are_closed_and_written_in_one_way(kind):
    automaton, orders = surface.automaton(), set()
    for size in SIZES:
        mesh = shape(kind, size)
        assert tuple(np.max(mesh[0], axis=0)) == size
        assert trimesh.Trimesh(*mesh).is_volume
        rows = surface.encode(mesh)
        assert surface.decode(rows) == mesh
        assert accepts(automaton, rows)
        orders.add(tuple(row[:2] for row in rows))
    assert len(orders) == 1


def test_every_triangulated_sphere_can_be_written():
    """Hulls of random points have no structure that shapes share. Corners stand for themselves: on a grid they would
    meet."""
    draw = np.random.default_rng(0)
    for _ in range(100):
        points, triangles = sphere(draw, int(draw.integers(4, surface.CORNERS + 1)))
        mesh = ((points - points.min(0)) * 8).tolist(), triangles.tolist()
        rows = surface.encode(mesh)
        assert faces(surface.decode(rows)) == faces(mesh)
        assert len(rows) == len(mesh[0])


def test_all_that_is_accepted_is_a_closed_surface():
    automaton, draw = surface.automaton(), Random(0)
    for _ in range(500):
        rows = walk(automaton, draw)
        made = trimesh.Trimesh(*surface.decode(rows), process=False)
        assert made.is_watertight
        assert made.is_winding_consistent
        assert made.euler_number == 2
        assert made.body_count == 1
        assert len({frozenset(face) for face in made.faces.tolist()}) == len(made.faces)


def test_what_breaks_a_row_is_not_accepted():
    automaton = surface.automaton()
    rows = surface.encode(shape("table", (9, 9, 9)))
    assert accepts(automaton, rows)
    for changed in (rows[:-1], [*rows[:-1], (rows[-1][0] - 1, *rows[-1][1:])], rows[1:], [*rows, rows[-1]]):
        assert not accepts(automaton, changed)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (trimesh.creation.torus(5, 2, major_sections=5, minor_sections=4), "one closed surface"),
        (trimesh.creation.box((4, 4, 4)).submesh([range(11)], append=True), "one closed surface"),
        (trimesh.util.concatenate([trimesh.creation.box((2, 2, 2)), trimesh.creation.box((6, 6, 6))]), "one closed"),
        (trimesh.creation.icosphere(subdivisions=1, radius=5), "at most 40 corners"),
    ],
    ids=["torus", "open", "two", "large"],
)
def test_other_surfaces_are_refused_in_one_line(made, reason):
    with pytest.raises(mio.DataError, match=reason):
        surface.encode((made.vertices - made.bounds[0], made.faces))


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".stl", ".ply"])
def test_files_are_read_as_they_were_written(tmp_path, suffix):
    read = mio_datamodule("mesh").read
    mesh = shape("chair", (7, 12, 9))
    trimesh.Trimesh(*mesh, process=False).export(path := tmp_path / f"chair{suffix}")
    assert faces(read(path)) == faces(mesh)
    assert faces(read(mio.MemoryFile(path.read_bytes(), suffix))) == faces(mesh)
    if suffix in (".glb", ".obj"):
        assert Codec(suffix[1:]).save(mesh, tmp_path / "saved").suffix == suffix
        assert read(tmp_path / f"saved{suffix}") == mesh


def test_a_large_model_is_brought_onto_the_grid(tmp_path):
    trimesh.creation.icosphere(subdivisions=0, radius=123.4).export(tmp_path / "ball.glb")
    corners, triangles = mio_datamodule("mesh").read(tmp_path / "ball.glb")
    assert (np.max(corners, 0).max(), np.min(corners, 0).tolist()) == (surface.GRID, [0, 0, 0])
    assert len(surface.encode((corners, triangles))) == 12


@pytest.mark.parametrize("kind", SOLIDS)
def test_views_of_convex_bodies_are_their_front_faces_drawn_one_by_one(kind):
    mesh = shape(kind, (9, 14, 12))
    side, body = 8 * 64, trimesh.Trimesh(*mesh)
    seen = np.array(mesh[0]) @ np.stack([shapes.RIGHT, np.cross(shapes.AWAY, shapes.RIGHT)], 1)
    seen = ((seen - (seen.max(0) + seen.min(0)) / 2) / np.ptp(seen, axis=0).max() + 0.5) * side
    picture = Image.new("F", (side, side))
    for face, normal in zip(body.faces, body.face_normals, strict=True):
        if normal @ shapes.AWAY < 0:
            light = shapes.AMBIENT + (1 - shapes.AMBIENT) * max(0, normal @ shapes.LIGHT)
            ImageDraw.Draw(picture).polygon([tuple(seen[corner]) for corner in face], fill=255 * light)
    expected = np.asarray(picture).reshape(8, 64, 8, 64).mean((1, 3))
    assert np.abs(shapes.view(mesh) - expected).mean() < 6
    assert np.abs(shapes.view(mesh) - expected).max() < 40


def test_nearer_faces_hide_others():
    """A chair's back seen from the front: were faces drawn in another order, its legs would show through."""
    whole, legs = shapes.view(shape("chair", (16, 16, 16))), shapes.view(shape("box", (16, 16, 16)))
    assert whole.shape == legs.shape == (8, 8)
    assert (whole[:2, 5:] == 0).all()  # nothing above the seat
    assert (whole > 0).sum() < (legs > 0).sum()


def test_kinds_are_told_apart_by_views_of_neighbouring_sizes():
    """So that a drawing is not judged by one wrong pixel."""
    draw, [*_, drawn], right = Random(0), TASKS, 0
    for kind in kinds():
        sizes = [tuple(draw.randrange(7, 16) for _ in range(3)) for _ in range(20)]
        near = [
            mio.Answer((("image", shapes.view(shape(kind, [n + draw.choice((-1, 1)) for n in size]))),))
            for size in sizes
        ]
        right += sum(drawn.judge(near, [{"kind": kind, "size": size} for size in sizes]))
    assert right >= 0.95 * 20 * len(kinds())


def test_what_is_held_out_is_so_for_all_kinds_and_multiples():
    def proportions(split):
        return {tuple(length // gcd(*size) for length in size) for _, size in Shapes(split).shapes}

    assert not proportions("train") & proportions("test")
    assert 0.08 < len(Shapes("test")) / (len(Shapes("test")) + len(Shapes("train"))) < 0.12
    assert {kind for kind, _ in Shapes("test").shapes} == set(kinds())


def answers(name, records):
    """What would be right, and the answers of the record before."""
    output = {"mesh": "mesh", "view": "image", "text": "text"}[name.rpartition("_")[2]]
    text = "text" if name == "mesh_to_text" else "kind"
    said = [{"mesh": r["mesh"].data, "image": r["view"].data, "text": r[text]}[output] for r in records]
    right = [mio.Answer(parts=((output, one),)) for one in said]
    return right, [*right[1:], right[0]]


@pytest.mark.parametrize("made", TASKS, ids=lambda task: task.name)
def test_tasks_tell_right_answers_from_others(made):
    records = made.records(12)
    assert [record["text"] for record in records] == [record["text"] for record in made.records(12)]
    for wrong, given in enumerate(answers(made.name, records)):
        for verdict in made.judge(given, records):
            said = verdict if isinstance(verdict, dict) else {made.measure.name: verdict}
            assert set(said) == {measure.name for measure in made.measures}
            assert said.pop("closed", True)
            assert (said.pop("distance", wrong) > 0) == wrong
            if not wrong:
                assert all(said.values())
    assert any(
        not (verdict if isinstance(verdict, bool) else verdict["kind"]) for verdict in made.judge(given, records)
    )


def test_corners_that_meet_leave_no_closed_surface_for_trimesh():
    """The grammar promises the triangles' topology; the judge is stricter."""
    corners, triangles = shape("chair", (9, 9, 9))
    pinched = (corners[0], corners[0], *corners[2:])
    assert trimesh.Trimesh(pinched, triangles, process=False).is_watertight
    [record] = TASKS[0].records(1)
    [verdict] = TASKS[0].judge([mio.Answer(parts=(("mesh", (pinched, triangles)),))], [record])
    assert not verdict["closed"]
    assert not verdict["exact"]

"""What is learnt of shapes, in all directions, and how it is measured."""

from itertools import islice

import mio
from mio_mesh.shapes import Shapes, kinds, shape, view
from mio_mesh.surface import CORNERS, GRID


def judge_mesh(answer, record):
    """The distance is Chamfer's: from each corner to the other's nearest, in units of the grid, both ways averaged."""
    from scipy.spatial.distance import cdist
    from trimesh import Trimesh

    mesh, right = answer.first("mesh"), record["mesh"].data
    apart = cdist(mesh[0], right[0])
    return {
        "exact": mesh == right,
        "kind": mesh == shape(record["kind"], tuple(map(max, *mesh[0]))),  # in its own size
        "closed": Trimesh(*mesh).is_watertight,  # corners in one place are one to it
        "distance": (apart.min(0).mean() + apart.min(1).mean()) / 2,
    }


def judge_view(answer, record):
    """Whether a drawing is nearer to the view of its shape than to those of all other kinds in this size."""
    drawn = answer.first("image").astype(float)
    errors = {kind: abs(view(shape(kind, record["size"])) - drawn).sum() for kind in kinds()}
    return min(errors, key=errors.get) == record["kind"]


def task(name, prompt, response, judge, *measures):
    return mio.Task(
        name=name,
        template=mio.Template(direction=name, prompt=prompt, response=response),
        records=lambda count: list(islice(Shapes("test"), count)),
        output=name.rpartition("_")[2].replace("view", "image"),
        judge=lambda answers, records: list(map(judge, answers, records)),
        measures=measures,
        decoding=mio.Decoding(media_temperature=0, max_tokens=5 * CORNERS + 2, most=1),
        needs=("mesh", "image") if "view" in name else ("mesh",),
    )


EXACT, KIND, CLOSED = (mio.Measure(name=name) for name in ("exact", "kind", "closed"))
DISTANCE = mio.Measure(name="distance", better="lower", most=GRID * 3**0.5)
TASKS = [
    task("text_to_mesh", "Build this: {text}.", "{mesh}", judge_mesh, EXACT, KIND, CLOSED, DISTANCE),
    task("view_to_mesh", "Build what you see. {view}", "{mesh}", judge_mesh, KIND, EXACT, CLOSED, DISTANCE),
    task("mesh_to_text", "What is this? {mesh}", "{text}", lambda said, record: said.text == record["text"], EXACT),
    task("view_to_text", "What is this? {view}", "{kind}", lambda said, record: said.text == record["kind"], KIND),
    task("mesh_to_view", "Draw this. {mesh}", "{view}", judge_view, KIND),
    task("text_to_view", "Draw this: {text}.", "{view}", judge_view, KIND),
]

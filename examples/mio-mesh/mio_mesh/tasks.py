"""What is learnt of shapes, in all directions, and how it is measured."""

from itertools import islice

import mio
from mio_mesh.shapes import Shapes, kinds, shape
from mio_mesh.surface import CORNERS, GRID
from mio_mesh.views import view


def first(answer, modality):
    if not answer.media(modality):
        raise mio.DataError(f"an answer has no {modality}")  # it counts as the worst
    return answer.media(modality)[0]


def judge_mesh(answer, record):
    """The distance is Chamfer's: from each corner to the other's nearest, in units of the grid, both ways averaged."""
    from scipy.spatial.distance import cdist
    from trimesh import Trimesh

    mesh, right = first(answer, "mesh"), record["mesh"].data
    apart = cdist(mesh[0], right[0])
    return {
        "exact": mesh == right,
        "kind": mesh == shape(record["kind"], tuple(map(max, *mesh[0]))),  # in its own size
        "closed": Trimesh(*mesh).is_watertight,  # corners in one place are one to it
        "distance": (apart.min(0).mean() + apart.min(1).mean()) / 2,
    }


def judge_text(answer, record):
    return {"exact": answer.text == record["facts"], "kind": answer.text.split(",")[0] == record["kind"]}


def judge_view(answer, record):
    """Whether a drawing is nearer to the view of its shape than to those of all other kinds in this size."""
    drawn = first(answer, "image").astype(float)
    errors = {kind: abs(view(shape(kind, record["size"])) - drawn).sum() for kind in kinds()}
    return min(errors, key=errors.get) == record["kind"]


EXACT, KIND, CLOSED = (mio.Measure(name=name) for name in ("exact", "kind", "closed"))
REST = (CLOSED, mio.Measure(name="distance", better="lower", most=GRID * 3**0.5))
DIRECTIONS = {  # prompt and response; what is answered, who judges it, and with which figures
    "text_to_mesh": ("Build this: {text}.", "{mesh}", "mesh", judge_mesh, (EXACT, KIND, *REST)),
    "view_to_mesh": ("Build what you see. {view}", "{mesh}", "mesh", judge_mesh, (KIND, EXACT, *REST)),
    "mesh_to_text": ("What is this? {mesh}", "{facts}", "text", judge_text, (EXACT, KIND)),
    "view_to_text": ("What is this? {view}", "{kind}", "text", lambda a, record: a.text == record["kind"], (KIND,)),
    "mesh_to_view": ("Draw this. {mesh}", "{view}", "image", judge_view, (KIND,)),
    "text_to_view": ("Draw this: {text}.", "{view}", "image", judge_view, (KIND,)),
}
TEMPLATES = tuple(mio.Template(direction=name, prompt=row[0], response=row[1]) for name, row in DIRECTIONS.items())


def task(template):
    *_, output, judge, measures = DIRECTIONS[template.direction]
    return mio.Task(
        name=template.direction,
        template=template,
        records=lambda count: list(islice(Shapes("test"), count)),
        output=output,
        judge=lambda answers, records: list(map(judge, answers, records)),
        measures=measures,
        decoding=mio.Decoding(media_temperature=0, max_tokens=5 * CORNERS + 2, most=1),
        needs=("mesh", "image") if "view" in template.direction else ("mesh",),
    )

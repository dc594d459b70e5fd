"""Media that heads learn to make, from records to batches: beside a reading of the files, damaged, cut and left out."""

import io

import numpy as np
import pytest
import tiles
from rich.console import Console

from mio import Media
from mio.core.contract.plugins import PluginManager
from mio.core.data.batch import Slot, assemble
from mio.core.stages.tokenize import tokenize
from mio.core.tokens.documents import RESPONSE, Document, Segment, interleaved_document

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.usefixtures("tiles_world"),
]
OWN = "plugins.tiles={own: true}"


def key(batch):
    """All of a batch that heads learn from, comparable."""
    made = {
        name: (
            {array: values.tolist() for array, values in one.input.arrays.items()},
            one.input.positions,
            one.input.dropped.tolist(),
            *(tensor.tolist() for tensor in (one.places, one.context, one.weights, *one.maps.values())),
            list(one.openings),
        )
        for name, one in batch.made.items()
    }
    return batch.tokens.tolist(), batch.positions.tolist(), batch.weight, batch.digests, made


@pytest.mark.parametrize("own", [False, True])
def test_what_is_learnt_is_what_the_records_say(own):
    """Read again from the files: item by item, in the order of their places, each after the token that opens it."""
    data, _ = tiles.opened(f"plugins.tiles={{own: {own}}}")
    data.preflight()
    begin = data.streams[0].renderer.vocabulary.begin("tile")
    seen = 0
    for batch in data.train_dataloader():
        one, flat = batch.made["tile"], batch.tokens.flatten()
        records = [
            data.streams[stream].content_of(data.streams[stream].order(n))
            for row in batch.documents
            for stream, n in row
        ]
        expected = [part.data for record in records for part in record["parts"] if isinstance(part, Media)]
        assert one.dummy == (not expected)
        if one.dummy:
            assert (list(one.openings), one.weights.tolist()) == ([], [0.0])
            continue
        seen += len(expected)
        files = [[int(digit) for digit in path.read_text()] for path in expected]
        assert (one.input.arrays["tile"] * 10).round().int().tolist() == files
        assert set(flat[list(one.openings)].tolist()) == {begin}
        # own positions, or those by which the tile is read; 2 in the recipe
        assert one.weights.tolist() == [2.0 * (tiles.SIZE if own else 2)] * len(expected)
        assert batch.weight == pytest.approx(float(batch.weights.double().sum()) + float(one.weights.double().sum()))
        newest = one.maps["tile"][:, 0].tolist()
        numbers = iter(range(len(expected)))
        for record in records:
            before = -1
            for part in record["parts"]:
                if isinstance(part, Media):
                    number = next(numbers)
                    assert newest[number] == before
                    before = number
        if not own:
            assert one.context[:, 0].tolist() == list(one.openings)
            continue
        length = batch.tokens.shape[1]
        positions = batch.positions.flatten()
        for number, opening in enumerate(one.openings):
            places = one.places.view(-1, tiles.SIZE)[number].tolist()
            assert places == list(range(opening + 1, opening + 1 + tiles.SIZE))
            assert places[-1] // length == opening // length
            assert positions[places[-1] + 1] == positions[opening] + 1  # own positions take no place
    assert seen > 5


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_neither_noise_nor_what_is_dropped(workers):
    alone, shared = tiles.opened(OWN)[0], tiles.opened(OWN, f"runtime.workers={workers}")[0]
    found = [key(batch) for batch in alone.train_dataloader()]
    assert [key(batch) for batch in shared.train_dataloader()] == found
    dropped = [flag for *_, made in found for flag in made["tile"][2]]
    assert 0 < sum(dropped) < len(dropped)


def test_a_cursor_goes_on_with_the_same_noise():
    data, _ = tiles.opened()
    whole = []
    for batch in data.train_dataloader():
        whole.append(key(batch))
        if batch.step < 3:
            data.commit(batch)
    later, _ = tiles.opened()
    later.load_state_dict(data.state_dict())
    assert [key(batch) for batch in later.train_dataloader()] == whole[6:]


def test_damaged_media_become_padding_of_which_no_head_learns(tiles_world):
    data, _ = tiles.opened(OWN)
    data.preflight()
    before = list(data.train_dataloader())
    for turn in range(3):
        (tiles_world / f"7-{turn}.tile").write_text("no tile")  # after its length was learnt
    lost = 0
    for batch, whole in zip(data.train_dataloader(), before, strict=True):
        data.commit(batch)
        lost += len(batch.lost)
        assert batch.lengths == whole.lengths
        gone = 3 * len(batch.lost)
        assert batch.made["tile"].weights.sum() == whole.made["tile"].weights.sum() - gone * 2.0 * tiles.SIZE
        assert batch.weight == pytest.approx(batch.summed_weight())
        assert (batch.weight < whole.weight) == bool(batch.lost)
    assert lost
    data.state_dict()  # adds up what the ranks found
    assert "7-0.tile" in data.report()["unreadable"]["examples"][0]


def rendered(data, *parts):
    renderer = data.streams[0].renderer
    document = interleaved_document(parts)
    made = renderer.render(document)
    assert renderer.measure(document) == len(made)
    return made


def tile(number=1):
    return Media("tile", np.full(tiles.SIZE, number, np.uint8), f"tile-{number}")


@pytest.mark.parametrize("own", [False, True])
def test_a_document_that_is_lost_in_the_training_process_takes_the_weight_of_its_items_along(own):
    """As where codes of another modality are made there: of two documents in a row the second is lost."""
    data, _ = tiles.opened(f"plugins.tiles={{own: {own}}}")
    documents = [rendered(data, "a", tile(1)), rendered(data, "b", tile(2), tile(3))]
    batch = assemble([[(0, one) for one in documents]], 64, data.pad, codecs=data.codecs, digests=[1])
    kept = assemble([[(0, documents[0])]], 64, data.pad, codecs=data.codecs, digests=[1])
    [first, second] = batch.lengths[0]
    Slot((0, 1), 0, first, second, 1, tile(9), "generate").blank(batch, data.pad)
    assert batch.made["tile"].weights.tolist() == [*kept.made["tile"].weights.tolist(), 0.0, 0.0]
    assert batch.summed_weight() == pytest.approx(kept.weight)


@pytest.mark.parametrize("size", range(2, 40))
def test_a_document_is_cut_between_items(size):
    data, _ = tiles.opened(OWN)
    whole = rendered(data, "ab", tile(1), "c", tile(2), tile(3))
    cut = whole.truncate(size)
    assert len(cut) <= size
    batch = assemble([[(0, cut), (0, whole)]], 64, data.pad, codecs=data.codecs, digests=[1])
    one, fits = batch.made["tile"], [item for item in whole.made if item.end < len(cut)]
    assert len(one.openings) == len(fits) + 3
    assert sorted(one.places.tolist()) == one.places.tolist()
    assert len(set(one.places.tolist())) == tiles.SIZE * (len(fits) + 3)


def test_items_whose_last_position_is_no_input_are_left_out():
    """A document that ends with positions of a head's own: what would be its last position is another document's."""
    data, _ = tiles.opened(OWN)
    renderer = data.streams[0].renderer
    ends = renderer.render(Document((Segment("ab", RESPONSE, True), Segment(tile(), RESPONSE, True, "generate")), 0))
    cut = ends.truncate(ends.made[0].end) if ends.made[0].end < len(ends) else ends
    assert len(ends) > ends.made[0].end  # it is read after it was made, so that it ends otherwise
    assert cut.made == ()


def test_a_weight_of_0_leaves_the_head_out():
    with_head, _ = tiles.opened(OWN)
    without, _ = tiles.opened(OWN, "train.loss.heads.tile=0")
    learnt = rendered(with_head, "a", tile())
    plain = rendered(without, "a", tile())
    assert len(learnt) - len(plain) == tiles.SIZE
    assert (len(learnt.made), plain.made) == (1, ())
    assert learnt.weights.sum() == plain.weights.sum()
    for batch in without.train_dataloader():
        assert batch.made["tile"].dummy
        assert batch.weight == pytest.approx(float(batch.weights.double().sum()))


def test_targets_that_are_not_finite_are_told_with_record_file_and_plugin():
    data, _ = tiles.opened("data.max_skipped=0.9")
    head = data.codecs.makers["tile"].head
    target = head.target
    head.target = lambda media: {"tile": np.where(media[None] == media.max(), np.nan, target(media)["tile"])}
    [report] = data.preflight().values()
    assert report["broken"] == 12  # of 24 records, those of which media are encoded for the check and which have any
    [line] = report["problems"][:1]
    assert line.startswith("tiles.jsonl:2: 1-0.tile")
    assert (
        ": the head of `tile`, which plugin `tiles` supplies, cannot learn it: `tile` of its target holds NaN "
        "or infinities"
    ) in line


def test_shards_give_the_batches_of_the_files():
    plain = [key(batch) for batch in tiles.opened(OWN)[0].train_dataloader()]
    console = Console(file=io.StringIO(), width=200)
    tokenize(["tiles.yaml"], [OWN], PluginManager.discover(), shard_records=10, console=console)
    shards, _ = tiles.opened(OWN, tokenised=True)
    assert shards.tokenised == ["tiles/lines"]
    assert [key(batch) for batch in shards.train_dataloader()] == plain

import re
from types import SimpleNamespace

import beads
import numpy as np
import pytest
import torch

from mio import DataError, Media, PluginError, Template
from mio.core.data.batch import assemble
from mio.core.data.loader import as_raised
from mio.core.evaluation.answering import _prompts
from mio.core.model.network_check import check_networks_run
from mio.core.tokens.chat import chat_document
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import Document, Segment

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
ONLY_BEADS = ("mixture.ratios.strings=0", "mixture.ratios.melody=0")


def key(batch):
    """All that a batch holds, comparable."""
    tensors = [batch.tokens, batch.targets, batch.weights, batch.positions, batch.stream]
    items = {
        name: (
            one.places.tolist(),
            one.dummy,
            {k: v.tolist() for k, v in one.input.arrays.items()},
            one.input.lengths,
            one.input.positions,
        )
        for name, one in batch.items.items()
    }
    return [tensor.tolist() for tensor in tensors], items, batch.lengths, batch.step, batch.changes


@pytest.mark.usefixtures("beads_world")
def test_items_lie_where_their_records_say():
    """Read again from the files: the beads of each item stand, two a position, where their pads are."""
    data, _ = beads.opened()
    data.preflight()
    pad = data.pad
    counts = {"beads": 0, "melody": 0}
    for batch in data.train_dataloader():
        held = {}
        for name, one in batch.items.items():
            assert not one.dummy or not len(one.places)
            assert one.places.dtype == torch.int64
            at = 0
            for positions, length in zip(one.input.positions, one.input.lengths["pairs"], strict=True):
                pairs = one.input.arrays["pairs"][at : at + length]
                assert one.dummy or length == positions
                for place, pair in zip(one.places[at : at + positions].tolist(), pairs.tolist(), strict=False):
                    held[place] = (name, tuple(pair))
                at += length
            counts[name] += 0 if one.dummy else len(one.input.positions)
        flat = batch.tokens.flatten().tolist()
        weights = batch.weights.flatten().tolist()
        assert all(flat[place] == pad for place in held)
        context = batch.tokens.shape[1]
        place = 0
        for row, (documents, lengths) in enumerate(zip(batch.documents, batch.lengths, strict=True)):
            place = row * context
            for (stream, n), length in zip(documents, lengths, strict=True):
                found = [held[at][1] for at in range(place, place + length) if at in held]
                record = data.streams[stream].content_of(data.streams[stream].order(n))
                assert found == expected(record, data.streams[stream].name)
                assert not any(weights[at - 1] for at in range(place + 1, place + length) if at in held)
                place += length
    assert min(counts.values()) > 5


def expected(record, stream):
    """Pairs of beads of a record's items, in the order of its template."""
    if stream == "melody/tunes/generate":
        return []
    if stream == "melody/tunes/understand":
        rows = [record["melody"].data]
    else:
        rows = [
            line for name in ("string", "beads") if name in record for line in record[name].data.read_text().split()
        ]
    pairs = []
    for row in rows:
        digits = [int(digit) for digit in row]
        digits += [0] * (len(digits) % 2)
        pairs += list(zip(digits[::2], digits[1::2], strict=True))
    return pairs


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.usefixtures("beads_world")
def test_worker_processes_change_nothing(workers):
    alone, _ = beads.opened()
    shared, _ = beads.opened(f"runtime.workers={workers}")
    assert [key(b) for b in shared.train_dataloader()] == [key(b) for b in alone.train_dataloader()]


@pytest.mark.usefixtures("beads_world")
def test_a_cursor_goes_on_with_the_same_items():
    data, _ = beads.opened()
    whole = []
    for batch in data.train_dataloader():
        whole.append(key(batch))
        if batch.step < 3:
            data.commit(batch)
    later, _ = beads.opened("runtime.workers=2")
    later.load_state_dict(data.state_dict())
    assert [key(batch) for batch in later.train_dataloader()] == whole[6:]


def test_damaged_media_become_padding_and_are_counted(beads_world):
    data, _ = beads.opened("runtime.workers=1", "data.max_skipped=0.5")
    data.preflight()
    before = list(data.train_dataloader())
    for index in range(0, 24, 3):
        (beads_world / f"{index}.beads").write_text("no beads")  # after its length was learnt
    lost = 0
    for batch, whole in zip(data.train_dataloader(), before, strict=True):
        assert torch.equal(batch.positions, whole.positions)
        data.commit(batch)
        lost += len(batch.lost)
        assert len(batch.items["beads"].input.positions) <= max(1, len(whole.items["beads"].input.positions))
    assert lost
    data.state_dict()  # adds up what the ranks found
    assert sum(data.report()["unreadable"]["documents"].values()) == lost
    [words] = data.report()["unreadable"]["examples"][:1]
    assert "is no row of digits" in words


def test_damage_that_lengths_do_not_show_is_told_with_its_reason(beads_world, monkeypatch):
    monkeypatch.setattr(Codecs, "positions", lambda self, media: 2)  # noqa: ARG005
    (beads_world / "0.beads").write_text("no beads")
    data, _ = beads.opened("data.max_skipped=0.9")
    problems = [problem for source in data.preflight().values() for problem in source["problems"]]
    assert problems
    assert all("0.beads" in problem and "is no row of digits" in problem for problem in problems)


def check(data, width):
    data.preflight()
    check_networks_run(data.codecs, width)


@pytest.mark.usefixtures("beads_world")
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("lacks: 1", r"gives \[\d+, 32\] embeddings, of which `positions` had said \[\d+, 32\]; correct `positions`"),
        ("lacks: 1, looks: true", r"gives \[\d+, 32\] embeddings, of which `positions` had said"),
        ("dummy: none", "has no `dummy`: NotImplementedError"),
        ("dtype: float32", r"prepares `pairs` float32 \[n, 2\], `size` int64 \[n\] of .* `dummy` has `pairs` uint8"),
        ("name: couples", r"prepares `couples` uint8 \[n, 2\], .* its `dummy` has `pairs`"),
        ("positions: 0", "takes 0 positions; it must be a whole number above 0"),
        ("positions: 1.5", "takes 1.5 positions; it must be a whole number above 0"),
        ("positions: true", "takes True positions"),
    ],
)
def test_a_mistake_of_an_encoder_is_one_line_before_training(mistake, words):
    data, width = beads.opened(f"plugins.beads={{{mistake}}}", *ONLY_BEADS)
    with pytest.raises(PluginError, match=words) as raised:
        check(data, width)
    message = str(raised.value)
    assert "the encoder of `beads`, which plugin `beads` supplies," in message
    assert "dummy" in mistake or "beads/lines" in message
    assert "\n" not in message


@pytest.mark.usefixtures("beads_world")
def test_networks_are_checked_without_computing(monkeypatch):
    data, width = beads.opened()
    data.preflight()
    shapes = [len(reader.seen) for reader in data.codecs.readers.values()]
    assert all(1 < seen <= 12 for seen in shapes)
    devices = []
    plugin = type(data.codecs.readers["beads"].encoder)  # of the file as a plugin, which is loaded once more
    made = plugin.module

    def module(self, width):
        network = made(self, width)
        network.register_forward_pre_hook(lambda _, inputs: devices.append(str(inputs[0].arrays["size"].device)))
        return network

    monkeypatch.setattr(plugin, "module", module)
    state = torch.get_rng_state()
    check_networks_run(data.codecs, width)
    assert set(devices) == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)


def test_what_encoders_read_cannot_be_written(beads_world):
    recipe = beads_world / "beads.yaml"
    recipe.write_text(recipe.read_text().replace('response: " {last}"', 'response: " {last} {beads}"'))
    data, _ = beads.opened(*ONLY_BEADS)
    with pytest.raises(DataError, match="`beads` is only read, by an encoder: it cannot be part of an answer"):
        data.preflight()


@pytest.mark.usefixtures("beads_world")
def test_codes_are_no_media_to_an_encoder():
    from mio import Codes

    data, _ = beads.opened()
    stream = next(stream for stream in data.streams if stream.name == "melody/tunes/understand")
    document = stream.to_document({"melody": Codes("melody", np.zeros((1, 2), int)), "notes": "do"}, 0)
    with pytest.raises(DataError, match="`melody` is read by an encoder, which needs the media: it is given as codes"):
        data.streams[0].renderer.measure(document)


@pytest.mark.usefixtures("beads_world")
def test_errors_of_data_workers_name_plugin_and_record():
    data, _ = beads.opened("runtime.workers=1", "plugins.beads={dtype: float32}")
    with pytest.raises(PluginError) as raised:
        list(data.train_dataloader())
    assert re.match(r"(beads|strings|melody)/\w+/read?\w*: .*: the encoder of", str(as_raised(raised.value)))


def test_damage_in_a_prompt_costs_its_item_alone(beads_world):
    data, _ = beads.opened()
    model = SimpleNamespace(recipe=data._recipe, codecs=data.codecs, renderer=data.streams[0].renderer)
    task = SimpleNamespace(name="last", template=Template(direction="read", prompt="{beads}", response="{last}"))
    records = {index: data.streams[0].content_of(index) for index in range(3)}
    data.codecs.positions(records[1]["beads"])
    (beads_world / "1.beads").write_text("no beads")
    failed = {}
    prompts = _prompts(model, task, records, 1, failed)
    assert (sorted(prompts), list(failed)) == ([0, 2], [1])
    assert "is no row of digits" in failed[1]
    [item] = prompts[2].items
    assert item.arrays["size"].tolist() == [len((beads_world / "2.beads").read_text())]


@pytest.mark.usefixtures("beads_world")
def test_items_of_several_modalities_in_a_conversation():
    """In the turns of a user: an item of parts, media of two modalities, codes of one of these in the answer."""
    data, _ = beads.opened()
    renderer, vocabulary = data.streams[0].renderer, data.streams[0].renderer.vocabulary
    row, string = np.arange(5, dtype=np.uint8), [np.arange(1, dtype=np.uint8), np.arange(3, dtype=np.uint8)]
    user = [Media("beads", row, "row"), "x", Media("string", string, "s"), Media("melody", (1, 2, 3), "tune")]
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": [Media("melody", (4,), "note")]}] * 2
    rendered = renderer.render(chat_document(turns, {}))
    assert len(rendered) == renderer.measure(chat_document(turns, {}))
    assert [(item.modality, item.positions) for item in rendered.items] == [
        ("beads", 3), ("beads", 1), ("beads", 2), ("melody", 2)
    ] * 2  # fmt: skip
    begin, melody, end = vocabulary.begin("beads"), vocabulary.begin("melody"), vocabulary.end("melody")
    tokens, pad = rendered.tokens.tolist(), vocabulary.specials.pad
    for item in rendered.items:
        assert tokens[item.first - 1] == (begin if item.modality == "beads" else melody)
        assert tokens[item.first : item.end] == [pad] * item.positions
        assert (tokens[item.end] == end) == (item.modality == "melody")  # beads have no token that closes them
        assert not rendered.weights[item.first : item.end].any()
    code = vocabulary.code_ids("melody", 0)[4]
    assert [tokens[at - 1 : at + 2] for at, token in enumerate(tokens) if token == code] == [[melody, code, end]] * 2
    assert [len(renderer.render(chat_document(turns[:2], {})).items), len(rendered.spans)] == [4, 10]
    for size in range(1, len(tokens)):
        cut = rendered.truncate(size)
        assert [item for item in rendered.items if item.end <= len(cut)] == list(cut.items)
        assert not any(item.first < len(cut) < item.end for item in rendered.items)


@pytest.mark.usefixtures("beads_world")
def test_a_document_that_ends_with_an_item_has_nothing_to_predict_behind_it():
    """Its last position is no input, so that the item is left out; the row is as long as planned."""
    data, _ = beads.opened()
    renderer = data.streams[0].renderer
    row = Media("beads", np.arange(6, dtype=np.uint8), "row")
    document = renderer.render(Document((Segment("ab", "response", True), Segment(row, "prompt", False)), 0))
    followed = renderer.render(Document((Segment(row, "prompt", False), Segment("ab", "response", True)), 1))
    batch = assemble([[(0, document), (0, followed)]], 16, data.pad, codecs=data.codecs)
    assert batch.lengths == [[5, 5]]
    assert batch.items["beads"].places.tolist() == [6, 7, 8]
    assert batch.weights[0].tolist() == [1.0] + [0.0] * 7 + [1.0, 1.0] + [0.0] * 6

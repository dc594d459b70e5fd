"""What a validation looks at: held-out documents, always the same ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recipe import Characters, Plugins, made_recipe

from mio.core.data.hashing import FileHashes
from mio.core.data.held_out import KEYS, record_key
from mio.core.data.loader import MioDataModule
from mio.core.data.validation import pack
from mio.core.errors import DataError, UserError
from mio.core.recipe.schema import ValidateConfig


def found(items=8, **sources):
    recipe = made_recipe(**sources)
    recipe.validate = ValidateConfig(every=5)
    module = MioDataModule(recipe, Plugins(), Characters())
    return module, [one for source in range(len(module.held_out)) for one in module.held_out.documents(source, items)]


def texts(documents):
    return [[bytes(document.tokens[1:-1].tolist()) for document in one.documents] for one in documents]


def test_they_are_of_the_records_held_out_the_same_for_all_directions_and_seeds():
    module, documents = found(held_out=0.2)
    assert [one.stream for one in documents] == [0, 1]  # of both directions, none of the source without a share
    source = module.streams[0].source
    held_out = [source[i] for i in range(50) if record_key(source[i], (), FileHashes(None)) < 0.2 * KEYS]
    reading, writing = texts(documents)
    assert len(reading) == len(writing) == min(8, len(held_out))
    records = {(record["word"] + record["number"]).encode() for record in held_out}
    assert set(reading) <= records
    assert [text.decode().strip("0123456789") for text in reading] == [
        text.decode().replace(", please", "").strip("0123456789") for text in writing
    ]
    again = made_recipe(held_out=0.2)
    again.seed, again.validate = 7, ValidateConfig(every=1)
    other = MioDataModule(again, Plugins(), Characters()).held_out
    assert texts(other.documents(0, 8)) == [reading, writing]
    assert texts(other.documents(0, 3)) == [reading[:3], writing[:3]]


def test_a_split_of_its_own_validates_and_what_cannot_be_used_is_counted():
    _, [reading, writing] = found(validation_split="test", options={"size": 20, "broken": (3, 4)}, items=100)
    assert len(reading.documents) == len(writing.documents) == 18
    assert reading.skipped == writing.skipped == {"broken": 2}


class Foretelling(Characters):
    """Knows lengths without rendering, and finds damage only then."""

    def measure(self, document):  # noqa: ARG002
        return 20

    def render(self, document, blank=()):
        if any(segment.content == "7" for segment in document.segments):
            raise DataError("damaged")
        return super().render(document, blank)


def test_damage_that_shows_when_media_are_read_costs_their_record():
    recipe = made_recipe(validation_split="test", options={"size": 12})
    recipe.validate = ValidateConfig(every=5)
    module = MioDataModule(recipe, Plugins(), Foretelling())
    for of in module.held_out.documents(0, 100):
        assert (len(of.documents), of.skipped) == (11, {"broken": 1})


def test_filters_and_the_context_count_for_them_too():
    _, [reading, _] = found(validation_split="test", filters={"longest": {"at": 4}}, items=100)
    assert reading.skipped == {"longest: too long": 50 - len(reading.documents)}
    assert reading.skipped["longest: too long"] > 0


def test_nothing_to_validate_on_is_an_error_before_training():
    with pytest.raises(DataError, match=r"pairs/letters/read: none of its 50 records is held out.*`held_out: 0`"):
        found(held_out=1e-9)
    with pytest.raises(DataError, match=r"none of its 5 records that validate can be used: broken \(5\); fix them"):
        found(validation_split="test", options={"size": 5, "broken": tuple(range(5))})
    with pytest.raises(UserError, match="no split `dev`"):
        found(validation_split="dev")


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), max_size=60))
def test_rows_hold_every_document_once_and_are_full(lengths):
    rows = pack(lengths, 20)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    used = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < one <= 20 for one in used)
    # best fit: no two rows could be one
    assert sum(one <= 10 for one in used) <= 1

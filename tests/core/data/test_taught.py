"""Documents that another model sees: the same tokens, each in its place."""

from __future__ import annotations

import torch

from mio.core.data.document_mask import DocumentMask
from mio.core.data.taught import taught_documents

LENGTHS = [[3, 4, 2], [5], [1, 1, 6]]
CHOSEN = [[False, True, False], [True], [False, True, True]]
CONTEXT = 10


def test_every_position_of_a_chosen_document_is_seen_once_and_found_again():
    taught = taught_documents(CHOSEN, LENGTHS, CONTEXT)
    tokens = torch.arange(3 * CONTEXT).view(3, CONTEXT) + 100
    seen = taught.row(tokens)[0]
    assert seen.tolist() == [103, 104, 105, 106, 110, 111, 112, 113, 114, 121, *range(122, 128)]
    places = taught.place.flatten()
    assert all(seen[place] == token for place, token in zip(places, tokens.flatten(), strict=True) if place >= 0)
    assert sorted(places[places >= 0].tolist()) == list(range(16))
    assert torch.equal(taught.mask.ids, DocumentMask.from_lengths([[4, 5, 1, 6]], 16).ids)


def test_for_gpus_the_row_is_a_power_of_two_whose_rest_is_padding():
    taught = taught_documents(CHOSEN, LENGTHS, CONTEXT, windows=(0,))
    assert len(taught.index) == 128
    assert taught.index[16:].eq(-1).all()
    assert taught.row(torch.ones(3, CONTEXT, dtype=torch.int64)).sum() == 16
    assert taught.mask.ids[0, 16:].eq(-1).all()
    assert 0 in taught.mask.blocks
    long = taught_documents([[True]], [[129]], 200, windows=(0,))
    assert len(long.index) == 256


def test_where_nothing_is_chosen_the_shortest_document_is_seen_and_not_taught():
    taught = taught_documents([[False] * len(row) for row in LENGTHS], LENGTHS, CONTEXT)
    assert taught.index.tolist() == [20]
    assert taught.place.eq(-1).all()

"""The journal: written once per step whatever happens, and equal to the plan or told why not."""

from __future__ import annotations

import pytest

from mio.core.data.journal import Journal, JournalEntry, add_digests, compare, read, row_digest
from mio.core.errors import DataError

ENTRIES = [JournalEntry(step, 4, 9, 300 + step, 2**63 + step) for step in range(1, 9)]


def test_lines_come_back_and_killed_steps_are_replaced(tmp_path):
    path = tmp_path / "journal.csv"
    first = Journal(path)
    for entry in ENTRIES[:6]:
        first.add(entry)
    first.close()
    with path.open("a") as file:
        file.write("7,4,9,3")  # a killed process
    assert read(path) == ENTRIES[:6]
    again = Journal(path)
    for entry in ENTRIES[4:]:  # from the checkpoint after step 4
        again.add(entry)
    again.close()
    assert read(path) == ENTRIES


def test_damage_is_told_with_its_line(tmp_path):
    path = tmp_path / "journal.csv"
    path.write_text("step,rows,documents,tokens,digest\n1,4,9,300,00ff\n2,4,x,300,00ff\n")
    with pytest.raises(DataError, match=r"journal\.csv, line 3: is damaged"):
        read(path)
    with pytest.raises(DataError, match="there is no journal"):
        read(tmp_path / "other.csv")


def test_a_row_has_a_fingerprint_of_its_place_and_its_documents():
    row = [(0, 5, 20, False), (1, 7, 30, True)]
    digests = {
        row_digest(index, changed)
        for index, changed in (
            (0, row),
            (1, row),
            (0, row[::-1]),
            (0, row[:1]),
            (0, [(0, 5, 20, False), (1, 8, 30, True)]),
            (0, [(0, 5, 20, False), (1, 7, 30, False)]),
        )
    }
    assert len(digests) == 6
    assert all(0 <= digest < 2**64 for digest in digests)


def test_sums_do_not_depend_on_who_read_what():
    digests = [row_digest(index, [(0, index, 5, 0)]) for index in range(12)]
    parts = [add_digests(digests[rank::3]) for rank in range(3)]
    assert add_digests(digests) == add_digests(digests[::-1]) == add_digests(parts)
    assert add_digests(digests) != add_digests(digests[:-1])


def test_comparison_finds_what_is_lost_repeated_and_different():
    assert compare(ENTRIES[:5], ENTRIES).exact
    assert compare([*ENTRIES[:2], *ENTRIES[3:]], ENTRIES).lost == [3]
    assert compare([*ENTRIES[:3], ENTRIES[1]], ENTRIES).repeated == [2]
    assert compare([ENTRIES[0], ENTRIES[1]._replace(digest=1)], ENTRIES).different == [2]
    assert compare(ENTRIES, ENTRIES[:6]).different == [7, 8]

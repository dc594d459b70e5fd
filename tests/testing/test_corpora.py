"""Corpora as plugins have them are checked as they are: with options, broken records, objects, splits that are missing.

Each is `tally.py` with its source, or what looks at its records, otherwise.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from test_seeded_faults import DRAWN, GOOD, HELD, HELD_OUT, KEYS, RECORD
from test_seeded_faults import SOURCES as AGAIN
from typer.testing import CliRunner

import mio.testing
from mio.cli.app import app
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.testing import scans
from mio.testing.digests import digest

NUMBERS = itertools.count()
"""Of modules, whose names are their own."""
CLASS = "class Tallies:\n    def __init__(self, split):\n"
SHIPPED = "lambda split, _: Tallies(split)"
READ = "if not 0 <= index < len(self):\n            raise IndexError(index)\n"
ENCODE = "        shifted = ["
LABEL = 'return "short" if len(turn.record.get("values", "").split()) == 2 else ""'
KEY = 'key=f"{self.split}-{index}"'

OPENED, FILTERS, ELSEWHERE = "sources can be opened", "filters give reasons", "labels are the same in another process"
SHARDS, OF_MEDIA = "records come through shards", "tally: media come through shards"

OPTIONED = (
    'def opened(split, options):\n    if "path" not in options:\n'
    '        raise mio.UserError("tally/tallies: `path` is missing; give the file")\n'
    "    from pathlib import Path\n"
    '    if not Path(options["path"]).is_file():\n'
    "        raise mio.UserError(f\"tally/tallies: no file {options['path']}\")\n"
    "    return Tallies(split)\n\n\n"
)
WITH_OPTIONS = [(SHIPPED, "opened"), ("def spell(values):", OPTIONED + "def spell(values):")]
EPOCHS = (
    "    def at_epoch(self, index, epoch):\n        media = self[index]['tally']\n"
    "        values = (media.data + {step}) % 39\n"
    '        media = dataclasses.replace(media, data=values, key=f"{{media.key}}{key}")\n'
    '        return {{"tally": media, "values": spell(values)}}\n\n\n'
)


def written(folder, *changes):
    """The file of a plugin like `tally.py` but for these changes."""
    source = GOOD.read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) >= 1, old
        source = source.replace(old, new, 1)
    path = folder / f"tally_of_sources_{next(NUMBERS)}.py"
    path.write_text(source, encoding="utf-8")
    return path


def checked(folder, *changes, elsewhere=False, **options):
    """Results by check; with those of another process if that is asked for."""
    text = [one for one in discover() if one.name == "text"]
    plugin = local(f"tally={written(folder, *changes)}")
    manager = PluginManager([*text, plugin if elsewhere else replace(plugin, target="")])
    return {one.check: one for one in mio.testing.conformance("tally", manager=manager, **options)}


def failed(found):
    return {name: one.detail for name, one in found.items() if one.outcome == "failed"}


def test_a_source_that_needs_an_option_is_left_out_without_it(tmp_path):
    found = checked(tmp_path, *WITH_OPTIONS, elsewhere=True)
    assert not failed(found)
    for name in (OPENED, AGAIN, KEYS, HELD, SHARDS, "tally: codes fit the declaration", ELSEWHERE):
        assert found[name].outcome == "skipped", name
        assert "`path` is missing" in found[name].detail, name
        assert "`--source tally/tallies.KEY=VALUE`" in found[name].detail, name


def test_a_source_is_given_its_options_in_every_process(tmp_path, monkeypatch):
    (tmp_path / "values.txt").touch()
    monkeypatch.chdir(tmp_path)
    found = checked(tmp_path, *WITH_OPTIONS, elsewhere=True, sources={"tally/tallies": {"path": "values.txt"}})
    assert not failed(found)
    for name in (OPENED, AGAIN, HELD, SHARDS, "records are the same in another process", ELSEWHERE):
        assert found[name].outcome == "passed", found[name]


def test_options_that_a_source_refuses_fail_one_check(tmp_path):
    found = checked(tmp_path, *WITH_OPTIONS, elsewhere=True, sources={"tally/tallies": {"path": "nowhere.txt"}})
    assert failed(found) == {
        OPENED: "`tally/tallies` refuses the options {'path': 'nowhere.txt'}: tally/tallies: no file nowhere.txt"
    }


def test_options_of_a_source_that_nobody_ships_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no source `tally/talies`; did you mean `tally/tallies`\?"):
        checked(tmp_path, sources={"tally/talies": {"path": "values.txt"}})


def test_options_of_sources_are_given_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "values.txt").touch()
    monkeypatch.chdir(tmp_path)
    plugin = f"tally={written(tmp_path, *WITH_OPTIONS)}"

    def check(*options):
        return CliRunner().invoke(app, ["plugins", "check", "tally", "--plugin", plugin, *options])

    given = check("--source", "tally/tallies.path=values.txt")
    [line] = [one for one in given.output.splitlines() if HELD in one]
    assert "passed" in line
    for wrong, problem in (("tally/talies.path=1", "did you mean `tally/tallies`"), ("tallies", "give NAME.KEY=VALUE")):
        result = check("--source", wrong)
        assert isinstance(result.exception, UserError), result.output
        assert problem in str(result.exception)


@pytest.mark.parametrize("error", ['mio.DataError("line 3: no tally")', 'KeyError("tally")'])
def test_broken_records_are_passed_over_and_counted(tmp_path, error):
    broken = f"{READ}        if index == 3:\n            raise {error}\n"
    found = checked(
        tmp_path,
        (READ, broken),
        (HELD_OUT, "return [source[index] for index in range(10, 10 + count)]"),
        elsewhere=True,
    )
    assert not failed(found)
    assert found[AGAIN].detail.startswith("10 records, 2 of them broken, as in: ")
    assert found["records are the same in another process"].outcome == "passed"


def test_a_source_whose_first_records_are_all_broken_is_a_fault(tmp_path):
    found = checked(tmp_path, (READ, f'{READ}        if index < 9:\n            raise mio.DataError("torn")\n'))
    assert failed(found)[AGAIN] == "`tally/tallies` (train): the first 5 records are broken: torn"


def test_an_index_error_before_the_end_is_a_fault(tmp_path):
    found = checked(tmp_path, (READ, "if not 0 <= index < 4:\n            raise IndexError(index)\n"))
    assert "record 4 of 40 raises IndexError" in failed(found)[AGAIN]


def test_a_split_that_is_not_there_is_passed_over(tmp_path):
    refused = CLASS + '        if split == "test":\n            raise mio.UserError("no split `test`")\n'
    found = checked(
        tmp_path, (CLASS, refused), ('source = Tallies("test")', 'source = Tallies("train")'), elsewhere=True
    )
    assert list(failed(found)) == ["tasks' records are not trained on"]  # of the one split that there is
    assert found[OPENED].detail == "`tally/tallies` has no `test`: no split `test`"
    assert (found[HELD].outcome, found[HELD].detail) == ("skipped", "no source has both `train` and `test`")


REFUSED = '        if any(len(one) == 4 for one in media):\n            raise mio.DataError("too long")\n' + ENCODE


def test_items_that_are_refused_are_passed_over_and_counted(tmp_path):
    found = checked(tmp_path, (ENCODE, REFUSED))
    wrong = failed(found)
    wrong.pop("ceilings are within their bounds", None)
    assert not wrong
    assert found[SHARDS].detail == "1 sources; 1 records hold an item that is refused: too long"
    assert "more refused, as in: too long" in found[OF_MEDIA].detail


def test_a_tokenizer_that_refuses_everything_is_a_fault(tmp_path):
    found = checked(tmp_path, (ENCODE, REFUSED.replace("len(one) == 4", "True")))
    assert "items is refused: too long" in failed(found)["tally: codes fit the declaration"]


HELD_BY_OBJECTS = (
    "class Row:\n    def __init__(self, values):\n        self.values = values\n        {more}\n\n"
    "    def __len__(self):\n        return len(self.values)\n\n"
    "    def __iter__(self):\n        return iter(self.values)\n\n\n"
)


def objects(more=""):
    """Media of a class without `==`."""
    return [
        ("def spell(values):", HELD_BY_OBJECTS.format(more=more) + "def spell(values):"),
        ('mio.Media("tally", values,', 'mio.Media("tally", Row(values.tolist()),'),
        ("np.asarray(values, np.int64)", "np.asarray(list(values), np.int64)"),
    ]


COMPARED = (AGAIN, SHARDS, OF_MEDIA, "tasks' prompts can be filled")
"""Checks that ask objects whether they are equal."""


def test_media_that_are_objects_are_compared_by_what_is_in_them(tmp_path):
    found = checked(tmp_path, *objects())
    assert not {name: one for name, one in failed(found).items() if name in (KEYS, HELD)}
    assert "40 held-out records with media" in found[HELD].detail
    assert found[KEYS].detail == "80 keys"
    same = checked(tmp_path, *objects(), (DRAWN, "draw = np.random.default_rng([index])"))
    assert "record 0 of `test` is in `train` too (as record 0)" in failed(same)[HELD]
    one_key = checked(tmp_path, *objects(), (KEY, 'key=f"{index}"'))
    assert "names another item" in failed(one_key)[KEYS]


def test_objects_that_are_others_at_each_reading_are_left_out(tmp_path):
    found = checked(tmp_path, *objects("self.place = next(COUNTER)"))
    assert found[HELD].outcome == found[KEYS].outcome == "passed"
    assert "left out, whose objects are others whenever they are read" in found[HELD].detail


def test_objects_are_told_apart_inside_only_where_that_is_asked_for():
    class Board:
        def __init__(self, *squares):
            self.squares = set(squares)

    class Loop:
        def __init__(self):
            self.itself = self

    assert digest(Board("a", "b")) == digest(Board("c"))
    assert digest(Board("a", "b"), inside=True) == digest(Board("b", "a"), inside=True)
    assert digest(Board("a", "b"), inside=True) != digest(Board("a", "c"), inside=True)
    assert digest([1, {"a": 2}], inside=True) == digest([1, {"a": 2}])
    with pytest.raises(RecursionError):
        digest(Loop(), inside=True)


LONG = [
    ("return 40", 'return 3000 if self.split == "train" else 300'),
    (DRAWN, 'draw = np.random.default_rng(index + (self.split == "test") * {begin})'),
    ("draw.integers(0, 39, 2 + index % 4)", "draw.integers(0, 39, 8)"),
    ("2 + index % 4", "8"),
]


@pytest.mark.parametrize("begin", [2700, 1350, 2990])
def test_a_test_split_that_is_a_part_of_train_is_found_wherever_it_is(monkeypatch, tmp_path, begin):
    monkeypatch.setattr(scans, "_SECONDS", 60.0)  # all that there are
    found = checked(tmp_path, *[(old, new.format(begin=begin)) for old, new in LONG[:3]])
    assert f"`test` is in `train` too (as record {begin})" in failed(found)[HELD]


def test_it_says_how_much_of_long_splits_was_looked_at_in_its_time(monkeypatch, tmp_path):
    monkeypatch.setattr(scans, "_SECONDS", 0.0)
    start = time.monotonic()
    found = checked(tmp_path, *[(old, new.format(begin=3000)) for old, new in LONG[:3]])
    assert found[HELD].detail == (
        "50 held-out records with media (of 300 records) are none of the 50 training records (of 3000) that were "
        "looked at"
    )
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("length", [1, 2, 49, 50, 51, 52, 53, 100, 1000])
def test_records_are_looked_at_once_the_ends_first(length):
    order = list(scans._order(length))
    assert sorted(order) == list(range(length))
    assert order[:25] == list(range(min(25, length)))
    assert length - 1 in order[:50]
    if length == 1000:  # however many further ones are looked at, they are spread
        assert max(after - before for before, after in itertools.pairwise(sorted(order[50:90]))) < 80


CODED = 'mio.Codes("tally", np.stack([values // 4, values % 4]))'


@pytest.mark.parametrize(
    "record",
    [
        'return __import__("collections").UserDict(tally=media, values=spell(values))',
        f'return {{"tally": {CODED}, "values": spell(values)}}',
    ],
    ids=["mappings", "codes"],
)
def test_whatever_records_are_those_of_test_are_not_of_train(tmp_path, record):
    assert HELD in failed(checked(tmp_path, (RECORD, record), (DRAWN, "draw = np.random.default_rng([index])")))


def test_records_that_hold_codes_come_through_shards(tmp_path):
    found = checked(tmp_path, (RECORD, f'return {{"tally": {CODED}, "of": media, "values": spell(values)}}'))
    assert found[SHARDS].outcome == "passed", found[SHARDS].detail


def test_sources_that_raise_are_a_finding(tmp_path):
    found = checked(tmp_path, ("def mio_sources():", "def mio_sources(options):\n    options['path']"))
    assert "KeyError" in found[OPENED].detail


def test_labels_that_depend_on_how_strings_hash_are_found(tmp_path):
    found = checked(tmp_path, (LABEL, 'return "short" if hash(turn.record.get("values")) % 2 else ""'), elsewhere=True)
    assert list(failed(found)) == [ELSEWHERE]
    assert "what is labelled of record" in found[ELSEWHERE].detail


OF_EPOCH = "{'-' * epoch}"


@pytest.mark.parametrize(
    ("step", "key", "check", "problem"),
    [
        ("2 * epoch", OF_EPOCH, "", ""),
        ("epoch", OF_EPOCH, HELD, "of epoch "),  # one of them is a record of `test`
        ("epoch * next(COUNTER)", OF_EPOCH, AGAIN, "follows from both numbers alone"),
        ("epoch + 1", OF_EPOCH, AGAIN, "record 0 of epoch 0 is not `[0]`"),
        ("epoch", "", KEYS, "names another item"),
    ],
)
def test_records_of_epochs_follow_from_their_numbers_under_keys_of_their_own(tmp_path, step, key, check, problem):
    method = EPOCHS.format(step=step, key=key)
    found = failed(checked(tmp_path, ("def spell(values):", f"{method}def spell(values):")))
    assert (problem in found[check]) if check else not found


@pytest.mark.parametrize(
    ("function", "outcome", "detail"),
    [
        ('lambda record, _: "short" if len(record["values"]) < 4 else ""', "passed", "1 filters; 5 records, dropped"),
        ("lambda record, _: True", "failed", "returned True, neither a reason"),
        ('lambda record, _: record["nothing"]', "failed", "raises of every record KeyError: 'nothing'"),
    ],
)
def test_filters_give_reasons(tmp_path, function, outcome, detail):
    found = checked(tmp_path, ('templates={"tally"', f'filters={{"tally_short": {function}}}, templates={{"tally"'))
    assert found[FILTERS].outcome == outcome
    assert detail in found[FILTERS].detail

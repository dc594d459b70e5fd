"""Conformance finds faults that plugins have in practice: each is one line of a plugin that conforms, otherwise.

The check that is named is the first that fails: what it does not see is seen by none before it. What comes after it may
fail as well, since a wrong code is wrong wherever it goes.
"""

from __future__ import annotations

import random
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import mio.testing
from mio.core.contract.discovery import Candidate, discover, local
from mio.core.contract.plugins import PluginManager

GOOD = Path(__file__).parent / "tally.py"

SHIFTED = "shifted = [(np.asarray(values, np.int64) + self.shift) % 40 for values in media]"
DECODED = "return (values - self.shift) % 40"
SAVED = 'path = stem.with_name(f"{stem.name}.tally")'
RECORD = 'return {"tally": media, "values": spell(values)}'
DRAWN = 'draw = np.random.default_rng([index, self.split == "test"])'
VALUES = "values = draw.integers(0, 39, 2 + index % 4)"
HELD_OUT = "return [source[index] for index in range(min(count, len(source)))]"
NAMED = "return [answer.text == f\" {record['values']}\" for answer, record in zip(answers, records, strict=True)]"

FIT = "tally: codes fit the declaration"
AGAIN = "tally: codes are the same again"
FRESH = "tally: a fresh tokenizer gives the same codes"
PICKLED = "tally: the tokenizer can be pickled"
WRITTEN = "tally: codes decode, and are written as a file"
READ = "tally: what is written is read again, as long as its file says"
STATE, NETWORK = "global state is left as it was", "no network is asked for"
IMPORT = "importing it is quick, and changes nothing"
JUDGES = "judges know right answers from wrong ones"
SOURCES, KEYS = "sources give the same records again", "a key names one item for ever"
HELD = "what is held out is not trained on"
ELSEWHERE = "in another process"


class Fault(NamedTuple):
    what: str
    old: str
    new: str
    check: str
    detail: str = ""


FAULTS = [
    # codes and their cost
    Fault("codes beyond their codebook", "values // 4, values % 4", "values // 4 + 1, values % 4 + 1", FIT,
          "of size 4"),
    Fault("codes that are no integers", "values // 4, values % 4", "values / 4, values % 4", FIT, "float64"),
    Fault("a codebook too few", "np.stack([values // 4, values % 4])", "values[None] // 4", FIT, "1 codebooks"),
    Fault("spans longer than declared", "maximum=8", "maximum=3", FIT, "4 frames, declared are 1 to 3"),
    Fault("spans between the declared lengths", "minimum=1, maximum=8", "minimum=2, maximum=8, step=2", FIT,
          "3 frames"),
    Fault("codes that leave the automaton", 'layout="frame_major",',
          'layout="frame_major", automaton=mio.Automaton(start=0, arcs={0: (mio.Arc(range(9), 1),), '
          '1: (mio.Arc(range(3), 0),)}, final=(0,)),', FIT),
    Fault("a length that is foretold wrongly", "return len(media)\n", "return len(media) + 1\n",
          "tally: `frames` foretells `encode`"),
    Fault("codes that depend on the batch", SHIFTED, SHIFTED.replace("self.shift", "len(media)"), AGAIN, "alone"),
    Fault("codes that depend on the place in the batch", SHIFTED,
          SHIFTED.replace("values in media", "at, values in enumerate(media)").replace("self.shift", "at"), AGAIN),
    Fault("codes that depend on earlier calls", SHIFTED, SHIFTED.replace("self.shift", "next(COUNTER)"), AGAIN),
    Fault("an encoder that changes its media", SHIFTED,
          "[values.__iadd__(1) for values in media]; " + SHIFTED, AGAIN),
    Fault("a tokenizer that draws what it is", "self.shift = options.shift", "self.shift = next(COUNTER)", FRESH),
    Fault("a tokenizer that cannot be pickled", "self.shift = options.shift",
          "self.shift = options.shift; self.open = lambda: None", PICKLED),
    Fault("a tokenizer that loses something in a copy", "    def frames(self",
          "    def __getstate__(self):\n        return {**vars(self), 'shift': 1}\n\n    def frames(self", PICKLED),
    Fault("codes that depend on how strings hash", SHIFTED, SHIFTED.replace("self.shift", "hash(str(values))"),
          f"tally: codes are the same {ELSEWHERE}"),
    # media and files
    Fault("a decoder that gives nothing", DECODED, "return None", WRITTEN, "returned nothing"),
    Fault("a file that is written elsewhere", SAVED, 'path = stem.parent.parent / f"{stem.name}.tally"', WRITTEN),
    Fault("a file of a name of its own", SAVED, 'path = stem.with_name("tally.tally")', WRITTEN),
    Fault("a file without a suffix", SAVED, "path = stem", WRITTEN, "without a suffix"),
    Fault("a second file that nobody asked for", SAVED, f'stem.with_suffix(".log").touch(); {SAVED}', WRITTEN, ".log"),
    Fault("a name that loses what is behind its dot", SAVED, 'path = stem.with_suffix(".tally")', WRITTEN,
          "`sam.ple-0` plus a suffix, and wrote sam.tally"),
    Fault("another file beside it", SAVED, f'(stem.parent / "debug.log").touch(); {SAVED}', WRITTEN, "debug.log too"),
    Fault("a decoder that draws", DECODED, "return (values + next(COUNTER)) % 40", WRITTEN, "at the second time"),
    Fault("a path as text", "        return path\n", "        return str(path)\n", WRITTEN),
    Fault("a suffix that nothing reads", SAVED, 'path = stem.with_name(f"{stem.name}.dat")', READ, "`.dat`"),
    Fault("a file that is measured wrongly", "return file.read_bytes().split()", "return file.read_bytes()", READ),
    Fault("a file that is read otherwise from memory", "np.array(file.read_bytes().split(), np.int64)",
          "np.array(file.read_bytes().split(), np.int64)[:: 1 if hasattr(file, 'parent') else -1]", READ),
    Fault("a decoder that breaks on codes that may come", 'raise mio.DataError("no tally begins with 39")',
          "raise IndexError(39)", "tally: random codes decode, and are written as files", "IndexError"),
    # declarations and options
    Fault("options that are not refused", 'mio.read_options(Options, options, "plugins.tally")',
          'Options(options.get("shift", 0))', "unknown options are refused", "without a word"),
    Fault("options that are refused by a crash", 'mio.read_options(Options, options, "plugins.tally")',
          "Options(**options)", "unknown options are refused", "TypeError"),
    Fault("declarations that change", 'code_token="<tally{}>"', 'code_token=f"<tally{next(COUNTER)}-{{}}>"',
          "declarations follow from options alone"),
    Fault("declarations in an order of a set", 'specials=("<one>", "<two>", "<three>", "<four>", "<five>", "<six>")',
          'specials=tuple({"<one>", "<two>", "<three>", "<four>", "<five>", "<six>"})',
          f"declarations are the same {ELSEWHERE}"),
    Fault("a fingerprint that misses an option", 'f"tally-1-{self.shift}"', '"tally-1"',
          "fingerprints change when codes do", "`shift`"),
    # surroundings
    Fault("an import that takes long", "import numpy as np\n", "import numpy as np\nimport scipy\n", IMPORT, "`scipy`"),
    Fault("an import that computes", "import numpy as np\n",
          "import time\n\nimport numpy as np\n\nwhile time.process_time() < 4:\n    pass\n", IMPORT, "processor time"),
    Fault("an import that changes the environment", "import numpy as np\n",
          "import os\n\nimport numpy as np\n\nos.environ['TALLY'] = '1'\n", IMPORT, "the environment"),
    Fault("a call home, caught", DECODED,
          "import contextlib, socket\n        with contextlib.suppress(OSError):\n            "
          f"socket.create_connection(('localhost', 80), 1)\n        {DECODED}", NETWORK, "localhost"),
    Fault("random numbers seeded for all", SHIFTED, f"np.random.seed(0); {SHIFTED}", STATE, "NumPy's"),
    Fault("Python's random numbers seeded", SHIFTED, f"import random; random.seed(0); {SHIFTED}", STATE, "`random`"),
    Fault("another working folder", SAVED, f"import os; os.chdir(stem.parent); {SAVED}", STATE, "the working folder"),
    Fault("a variable of the environment", DECODED, f"import os; os.environ['TALLY'] = '1'; {DECODED}", STATE,
          "the environment"),
    Fault("warnings silenced for all", DECODED, f"import warnings; warnings.simplefilter('ignore'); {DECODED}", STATE,
          "warnings filters"),
    Fault("a logger set up for all", DECODED, f"import logging; logging.basicConfig(force=True); {DECODED}", STATE,
          "the root logger"),
    Fault("a handler of signals", DECODED,
          f"import signal; signal.signal(signal.SIGUSR1, lambda *_: None); {DECODED}", STATE, "signal handlers"),
    # data
    Fault("a template of a field that is not there", "{tally} The values are:", "{tallies} The values are:",
          "templates' fields are in the records", "did you mean `tally`?"),
    Fault("records drawn anew", DRAWN, "draw = np.random.default_rng()", SOURCES, "differs when read again"),
    Fault("records past the end", "raise IndexError(index)", "index %= len(self)", SOURCES, "IndexError"),
    Fault("a source without records", "return 40", "return 0 if self.split == 'test' else 40", SOURCES),
    Fault("a test split that is trained on", DRAWN, "draw = np.random.default_rng([index])", HELD),
    Fault("one key for two items", 'key=f"{self.split}-{index}"', 'key=f"{index}"', KEYS, "names another item"),
    Fault("a fingerprint of a source that is drawn", "self.split = split",
          "self.split = split; self.fingerprint = str(next(COUNTER))", SOURCES, "differs in a fresh source"),
    Fault("a fingerprint of a source that depends on how strings hash", "self.split = split",
          "self.split = split; self.fingerprint = str(hash(split))", f"records are the same {ELSEWHERE}",
          "the fingerprint of `train`"),
    Fault("a record's name that is none", "    def __len__(self):",
          "    def locate(self, index):\n        return index\n\n    def __len__(self):", SOURCES,
          "`locate(0)` gives 0"),
    Fault("a source that cannot be pickled", "self.split = split", "self.split = split; self.draw = lambda: 0",
          "sources and records can be pickled"),
    # a permutation, so that what is held out and what is trained on stay apart whatever the hash is
    Fault("records that depend on how strings hash", VALUES,
          "values = np.random.default_rng(hash('tally') % 2**32).permutation(39)[draw.integers(0, 39, 2 + index % 4)]",
          f"records are the same {ELSEWHERE}"),
    Fault("text that no file can hold", RECORD, RECORD.replace("spell(values)", "spell(values) + chr(0xD800)"),
          "records come through shards", "`values` is lost"),
    # tasks and control tokens
    Fault("as many records as there are", HELD_OUT, "return list(map(source.__getitem__, range(40)))",
          "tasks' prompts can be filled", "asked for 1 record, got 40"),
    Fault("held-out records that differ", HELD_OUT,
          HELD_OUT.replace("source[index] for", "{**source[index], 'n': next(COUNTER)} for"),
          "tasks' prompts can be filled", "records differ"),
    Fault("full marks for everything", NAMED, "return [True for _ in answers]", JUDGES, "every wrong answer"),
    Fault("full marks for every empty answer", "[answer.text == f\" {record['values']}\"",
          "[answer.text in ('', f\" {record['values']}\")", JUDGES, "every empty answer"),
    Fault("no marks for anything", NAMED, "return [False for _ in answers]", JUDGES, "no right answer"),
    Fault("marks beyond their bounds", NAMED, "return [100.0 for _ in answers]", JUDGES, "from 0 to 1"),
    Fault("a verdict too few", NAMED, "return [True for _ in answers][1:]", JUDGES),
    Fault("an answer that is judged by its neighbours", NAMED,
          NAMED.replace("return [", "return [len(answers) > 1 and "), "an answer is judged by itself"),
    Fault("a ceiling in per cent", "/ len(records)", "/ len(records) * 100", "ceilings are within their bounds"),
    Fault("records that training sees", 'source = Tallies("test")', 'source = Tallies("train")',
          "tasks' records are not trained on", "one of `train` of `tally/tallies`"),
    Fault("a measure without a bound that knows nothing", 'judge=named)',
          'judge=lambda answers, _: [3.0] * len(answers), '
          'measures=(mio.Measure(name="points", most=float("inf")),))', JUDGES, "3 in the mean, and wrong ones 3"),
    Fault("a second measure the wrong way round", 'judge=named)',
          'judge=lambda *both: [{"all": one, "errors": 1.0 - one} for one in named(*both)], '
          'measures=(mio.Measure(name="all"), mio.Measure(name="errors")))', JUDGES, "`errors`, of which higher"),
    Fault("an item without a verdict that counts a crash", 'judge=named)',
          'judge=named, measures=(mio.Measure(worst=lambda record: record["value"]),))',
          "what judges say makes figures", "`worst` raised KeyError"),
    Fault("a figure that crashes", 'judge=named)',
          'judge=named, measures=(mio.Measure(overall=lambda said, records: said["all"]),))',
          "what judges say makes figures", "`overall` raised TypeError"),
    Fault("a label of records of its own alone", 'turn.record.get("values", "")', 'turn.record["values"]',
          "records are labelled, and the same again", "a record of somebody else's"),
    Fault("a label that is no control token", 'return "short" if', 'return "shrot" if',
          "records are labelled, and the same again", "did you mean `short`?"),
]  # fmt: skip


def of_file(path: Path) -> Candidate:
    return local(f"tally={path}")


def in_memory(source: str) -> Candidate:
    """The plugin as a module of this process alone, which no other process can import."""
    module = types.ModuleType("tally_in_memory")
    sys.modules[module.__name__] = module  # where `pickle` finds its classes
    exec(compile(source, "tally.py", "exec"), vars(module))
    return Candidate("tally", "test 1.0", "", lambda: module)


def checked(candidate: Candidate) -> mio.testing.Report:
    text = [one for one in discover() if one.name == "text"]
    return mio.testing.conformance("tally", manager=PluginManager([*text, candidate]))


def test_the_good_one_conforms():
    start = time.process_time()
    report = checked(of_file(GOOD))
    assert not report.failed, report.failed
    assert {result.check for result in report if result.outcome == "skipped"} == {
        "tally: pieces of a stream are what `decode` gives",
        "the policy of conversations is valid",
    }
    details = {result.check: result.detail for result in report}
    assert "no tally begins with 39" in details["tally: random codes decode, and are written as files"]
    assert details["fingerprints change when codes do"] == "1 other values of options, 1 of which change what is made"
    assert time.process_time() - start < 10, "a plugin like this one is checked in a few seconds"


@pytest.mark.parametrize("fault", [one for one in FAULTS if "seeded" in one.what], ids=lambda fault: fault.what)
def test_a_process_that_was_seeded_alike_hides_nothing_and_keeps_its_numbers(fault):
    random.seed(0)
    np.random.seed(0)
    following = random.getstate(), np.random.get_state()[1].tobytes()
    failed = checked(in_memory(GOOD.read_text(encoding="utf-8").replace(fault.old, fault.new, 1))).failed
    assert [one.check for one in failed] == [fault.check]
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == following


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_seeded_fault_is_found_by_its_check(fault, tmp_path):
    source = GOOD.read_text(encoding="utf-8")
    assert source.count(fault.old) >= 1
    source = source.replace(fault.old, fault.new, 1)
    if ELSEWHERE in fault.check or fault.check == IMPORT:  # these compare this process with another
        path = tmp_path / f"tally_{FAULTS.index(fault)}.py"
        path.write_text(source, encoding="utf-8")
        candidate = of_file(path)
    else:
        candidate = in_memory(source)
    failed = checked(candidate).failed
    assert failed, "nothing was found"
    assert (failed[0].check, fault.detail in failed[0].detail) == (fault.check, True), failed[:3]

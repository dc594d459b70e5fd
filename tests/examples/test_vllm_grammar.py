"""The grammar of `examples/vllm`, which knows the file alone, beside mio's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/vllm"
sys.path[:0] = [str(EXAMPLE), str(ROOT / "benchmarks")]

import vllm_grammar  # noqa: E402
from mio_vllm import grammar as following  # noqa: E402
from vllm_grammar import WORLDS, walk  # noqa: E402


@pytest.mark.parametrize("world", WORLDS)
def test_on_random_answers_both_allow_the_same_tokens(world):
    """Of the many thousands of `benchmarks/vllm_grammar.py`."""
    counts = Counter()
    found = [difference for seed in range(60) if (difference := walk(world, seed, counts))]
    assert not found
    assert counts["answers"] > 20
    assert counts["refused"]
    assert counts["controls"] or not WORLDS[world].controls


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_barred", lambda answer, owed: []),  # noqa: ARG005
        ("_owed", lambda answer, spans: 1),  # noqa: ARG005
        ("_may_open", lambda answer, name, owed: True),  # noqa: ARG005
        ("_may_say", lambda answer, control, owed: True),  # noqa: ARG005
    ],
)
def test_a_grammar_that_forgets_something_is_found_out(monkeypatch, name, wrong):
    monkeypatch.setattr(following.Answer, name, wrong)
    counts = Counter()
    assert any(walk(world, seed, counts) for seed in range(40) for world in WORLDS)


def test_a_copy_goes_its_own_way():
    grammar = WORLDS["layouts"].theirs
    answer = grammar.answer(grammar.need("music"), 100)
    answer.advance(grammar.spans["music"].begin)
    before, copy = answer.allowed(), answer.fork()
    assert copy.advance(before[0][0])
    assert copy.allowed() != before == answer.allowed()
    assert not copy.advance(grammar.stop)
    assert copy.allowed() == ((grammar.stop, grammar.stop + 1),)
    assert answer.allowed() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is no span grammar"),
        ('{"format": "mio-grammar", "version": 1}', "is version 1 of the format, and this program reads 2"),
        ('{"format": "mio-grammar", "version": 2}', "is damaged"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "grammar.json"
    path.write_text(content)
    with pytest.raises(following.GrammarError, match=message):
        following.Grammar.load(path)
    with pytest.raises(following.GrammarError, match="cannot be read"):
        following.Grammar.load(tmp_path / "none.json")


def test_answers_that_cannot_be_are_refused_with_the_reason():
    grammar = WORLDS["heads"].theirs
    for output, message in (
        ("picture", "a head of the model makes it"),
        ("strip", "its parts cannot be written"),
        ("smell", "it is only read"),
        ("taste", "no modality `taste` in this model; an answer can be of scene, speech, text, tones"),
    ):
        with pytest.raises(following.GrammarError, match=message):
            grammar.need(output)
    with pytest.raises(following.GrammarError, match=r"too few for the answer: 1 span\(s\) of `speech` take"):
        grammar.answer(grammar.need("speech"), 3)


def test_it_needs_neither_mio_nor_torch():
    code = (
        "import sys, json; import mio_vllm.grammar, mio_vllm.requests, mio_vllm.rows;"
        "print(json.dumps([name for name in ('mio', 'torch', 'vllm') if name in sys.modules]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=EXAMPLE
    ).stdout
    assert json.loads(printed) == []


def test_the_benchmark_says_what_it_found(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vllm_grammar.py", "--walks", "8"])
    assert vllm_grammar.main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["differences"] == 0
    assert found["answers"] + found.get("refused", 0) == found["walks"] == 8

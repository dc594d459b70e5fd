"""The grammar that vLLM's logits processor follows (`examples/vllm`), held against mio's own on random answers.

    python benchmarks/vllm_grammar.py [--walks 10000] [--seed 0]

Worlds with all four layouts, spans that carry some of their codebooks or have automata, modalities that are read alone
or made by a head, parts, and control tokens of both kinds. One seed is one answer, with a need and a budget of its own,
whose tokens are drawn among those allowed so that every kind of token occurs. At every step both allow the same tokens,
those left out that open what a head makes, which vLLM cannot do. Answers that cannot be are refused by both. Last line:
the figures; exit code 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples/vllm"), str(ROOT / "tests/core")]

import mio_vllm.grammar as file_grammar  # noqa: E402
from mio_vllm.ranges import Ranges  # noqa: E402
from mio_world import IMAGE, MUSIC, SPEECH, TEXT, VIDEO, FakeText  # noqa: E402

from mio import Arc, Automaton, ControlToken, Frames, Modality, UserError  # noqa: E402
from mio.core.exchange.grammar_file import grammar_content  # noqa: E402
from mio.core.generation.grammar import AnswerGrammar, Grammar, HeadSpan, need_of  # noqa: E402
from mio.core.tokens.vocabulary import Vocabulary  # noqa: E402


def tones(**more) -> Modality:
    return Modality(name="tones", codebooks=(4, 4, 4), begin="<t>", end="</t>", code_token="<t{}>", layout="delayed",
                    **more)  # fmt: skip


PICTURE = Modality(name="picture", begin="<p>", end="</p>")
SCENE = Modality(name="scene", parts="tones", frames=Frames(minimum=1, maximum=3))
BOTH = Modality(name="both", parts=("pairs", "notes", "tones"))
COVER = Modality(name="cover", parts=("tones", "picture"))
STRIP = Modality(name="strip", parts="picture", frames=Frames(minimum=1, maximum=3))
SMELL = Modality(name="smell", begin="<smell>", end="</smell>")
SOME = tones(views={"generate": (0, 2)}, frames=Frames(minimum=2, maximum=5))
ALL = tones(frames=Frames(minimum=1, maximum=6))
STEPS = tones(frames=Frames(minimum=2, maximum=9, step=3))
NOTES = Modality(
    name="notes",
    codebooks=(20,),
    begin="<n>",
    end="</n>",
    code_token="<n{}>",
    frames=Frames(minimum=2, maximum=13, step=2),
    automaton=Automaton(
        start="pitch",
        arcs={
            "pitch": (Arc((*range(8), 11), "length"), Arc((9,), "pitch")),  # a rest has no length
            "length": (Arc(range(12, 16), "pitch"), Arc((16,), "bar")),
            "bar": (Arc(range(17, 20), "pitch"),),
        },
        final=("bar", "pitch"),
    ),
)


def pairs() -> Modality:
    """Three codebooks, of which the last counts: a span ends behind an odd number of its codes 1, below 4."""
    arcs: dict[tuple[int, int], tuple[Arc, ...]] = {}
    for count in range(4):
        arcs[0, count] = (Arc(range(count % 2, 3), (1, count)),)
        arcs[1, count] = (Arc(range(5), (2, count)),)
        arcs[2, count] = (Arc((0,), (0, count)), *([Arc((1,), (0, count + 1))] if count < 3 else []))
    return Modality(
        name="pairs",
        codebooks=(3, 5, 2),
        begin="<a>",
        end="</a>",
        code_token="<a{}>",
        layout="frame_major",
        frames=Frames(minimum=1, maximum=7, step=2),
        automaton=Automaton(start=(0, 0), arcs=arcs, final=((0, 1), (0, 3))),
    )


SOME = tones(views={"generate": (0, 2)}, frames=Frames(minimum=2, maximum=5))
ALL = tones(frames=Frames(minimum=1, maximum=6))
STEPS = tones(frames=Frames(minimum=2, maximum=9, step=3))
NOTES = Modality(
    name="notes", codebooks=(20,), begin="<n>", end="</n>", code_token="<n{}>", frames=Frames(minimum=2, maximum=13,
    step=2), automaton=Automaton(start="pitch", final=("bar", "pitch"), arcs={  # a rest has no length, a bar its number
        "pitch": (Arc((*range(8), 11), "length"), Arc((9,), "pitch")), "length": (Arc(range(12, 16), "pitch"),
                                                                                  Arc((16,), "bar")),
        "bar": (Arc(range(17, 20), "pitch"),)}),
)  # fmt: skip
SAID = (
    ControlToken(name="noise", token="<2>", plain_text=True, action="silence"),
    ControlToken(name="query", token="<1>", plain_text=True, action="interrupt"),
    ControlToken(name="hum", token="<3>", plain_text=True, action="insert", insert="Hm."),
    ControlToken(name="think", token="<think>", anywhere=True, action="insert", insert="So: "),
    ControlToken(name="over", token="<over>", anywhere=True, action="stop"),
    ControlToken(name="aside", token="<aside>"),
)


@dataclass(frozen=True)
class World:
    """A vocabulary with both grammars of it."""

    modalities: tuple[Modality, ...]
    controls: tuple[ControlToken, ...] = ()
    made: tuple[str, ...] = ()
    chat: bool = True

    @cached_property
    def vocabulary(self) -> Vocabulary:
        declared = [("made", modality) for modality in self.modalities]
        return Vocabulary.build(FakeText(size=356), declared, [("said", token) for token in self.controls])

    @cached_property
    def declared(self) -> dict[str, Modality]:
        return {modality.name: modality for modality in self.modalities}

    @cached_property
    def stop(self) -> int:
        return self.vocabulary.specials.im_end if self.chat else self.vocabulary.specials.eos

    @cached_property
    def own(self) -> Grammar:
        heads = {name: HeadSpan(3, 2) for name in self.made}
        return Grammar(self.vocabulary, self.declared, self.stop, heads=heads)

    @cached_property
    def theirs(self) -> file_grammar.Grammar:
        read = {"smell"} & self.declared.keys()
        content = grammar_content(self.vocabulary, self.stop, 200, made=self.made, read=read)
        return file_grammar.Grammar.of(json.loads(json.dumps(content)))

    @cached_property
    def openings_of_heads(self) -> list[int]:
        return [self.vocabulary.begin(name) for name in self.made]


WORLDS = {
    "layouts": World((TEXT, SPEECH, IMAGE, VIDEO, MUSIC, SOME)),
    "controls": World((TEXT, SPEECH, IMAGE, VIDEO, MUSIC, SOME), SAID),
    "delayed": World((TEXT, ALL, SCENE), SAID, chat=False),
    "automata": World((TEXT, NOTES, pairs(), STEPS, SCENE, BOTH), SAID[3:]),
    "heads": World((TEXT, SPEECH, PICTURE, STRIP, COVER, SMELL, SCENE, ALL), SAID[3:], made=("picture",)),
}


def allowed_by_mio(world: World, answer: AnswerGrammar) -> np.ndarray:
    """Ids that mio's grammar allows next, ascending, but for openings of what a head makes."""
    ids = np.array(world.own.allowed(answer.state()))
    return ids[~np.isin(ids, world.openings_of_heads)]


def ids_of(ranges: Ranges) -> np.ndarray:
    return np.concatenate([np.arange(start, stop) for start, stop in ranges] or [np.array([], int)])


def walk(name: str, seed: int, counts: Counter[str]) -> str:
    """One answer by both grammars. Returns where they differ; empty if nowhere."""
    world, draw = WORLDS[name], np.random.default_rng(seed)
    output = str(draw.choice(["", *world.declared]))
    only, most = bool(draw.integers(2)), int(draw.choice([0, 0, 1, 2, 3]))
    budget = int(draw.choice([draw.integers(1, 60), draw.integers(60, 220)]))
    asked = f"{name}, seed {seed}: output={output!r} only={only} most={most} budget={budget}"
    own = theirs = None
    with suppress(UserError):
        own = AnswerGrammar(world.own, need_of(output, world.declared, only, world.made, most), budget)
    with suppress(file_grammar.GrammarError):
        theirs = world.theirs.answer(world.theirs.need(output, only, most), budget)
    if output in ("picture", "strip", "cover"):  # which heads make
        counts["refused"] += 1
        return "" if theirs is None else f"{asked}: begun, though a head makes it"
    if own is None or theirs is None:
        counts["refused"] += 1
        return "" if own is theirs else f"{asked}: refused by one of them alone"
    stop_share = draw.choice([0.02, 0.3])
    counts["answers"] += 1
    step = 0
    while not own.done:
        ours, others = allowed_by_mio(world, own), ids_of(theirs.allowed())
        if not np.array_equal(ours, others):
            more, other = np.setdiff1d(ours, others), np.setdiff1d(others, ours)
            return f"{asked}, step {step}: mio alone allows {more}, the file alone {other}"
        counts["steps"] += 1
        if theirs.in_span != own.in_span:
            return f"{asked}, step {step}: one of them is inside a span"
        if len(ours) > 1 and world.stop in ours and draw.random() > stop_share:
            ours = ours[ours != world.stop]
        kinds = world.vocabulary.block_of[ours]
        token = int(draw.choice(ours[kinds == draw.choice(np.unique(kinds))]))
        if draw.random() < 0.5:  # a control token of plain text is begun and gone on with
            begun = [one for one in ours if _begins(world, own._reader.read, int(one))]
            token = int(draw.choice(begun)) if begun else token
        own.advance(token)
        if not theirs.advance(token):
            return f"{asked}, step {step}: the token {token} is refused"
        step += 1
    counts["controls"] += len(own.controls)
    last = ids_of(theirs.allowed()).tolist()
    if not theirs.done or theirs.budget != own.budget or last != [world.stop]:
        return f"{asked}: at the end {theirs.done} {theirs.budget} {last}, mio has {own.budget} tokens left"
    return ""


def _begins(world: World, read: tuple[int, ...] | None, token: int) -> bool:
    """Whether a token goes on with a control token of plain text of which so much was read."""
    controls = world.vocabulary.controls
    return read is not None and ((*read, token) in controls.beginnings or (*read, token) in controls.texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    differences, start = [], time.process_time()
    for number in range(options.walks):
        if found := walk(list(WORLDS)[number % len(WORLDS)], options.seed + number, counts):
            differences.append(found)
            print(found)
    seconds = round(time.process_time() - start, 1)
    print(f"{options.walks} walks, {counts['answers']} answers of {counts['steps']} tokens in {seconds} s of CPU")
    print(json.dumps({"walks": options.walks, **counts, "differences": len(differences), "cpu_seconds": seconds}))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())

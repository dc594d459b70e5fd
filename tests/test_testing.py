"""The conformance suite finds what it says it looks for: each defect put into a plugin that conforms is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conforming import DATA, Detokenizer, Plugin, Tokenizer, Written, changed, failed, outcomes, tokenizer

import mio.testing
from mio import (
    ControlToken,
    ControlTokens,
    DataModule,
    Decoding,
    Media,
    Modality,
    SessionPolicy,
    Stream,
    Task,
    Template,
    UserError,
    Utterance,
    hookimpl,
)
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager


def test_a_plugin_that_conforms_passes():
    found = outcomes(Plugin())
    assert failed(Plugin()) == set()
    skipped = [name for name, result in found.items() if result.outcome == "skipped"]
    assert skipped == [
        "the policy of conversations is valid",
        "curve: pieces of a stream are what `decode` gives",
        "curve: what is written is read again, as long as its file says",
        "importing it is quick, and changes nothing",
        "declarations are the same in another process",
        "curve: codes are the same in another process",
        "records are the same in another process",
        "tasks' prompts can be filled",
    ]


class Piecewise:
    """Decodes numbers with a delay of one frame."""

    def __init__(self):
        self.held = np.zeros(0)

    def push(self, codes):
        media = np.concatenate((self.held, codes[0] / 10 + 0.05))
        self.held = media[-1:]
        return media[:-1] if len(media) > 1 else None

    def finish(self):
        return self.held


class Streaming(Detokenizer):
    """Its streams give what `decode` gives."""

    def stream(self):
        return Piecewise()


class Forgetful(Detokenizer):
    """Its streams give all but the last frame."""

    def stream(self):
        decoder = Piecewise()
        decoder.finish = lambda: None
        return decoder


class OneStream(Detokenizer):
    """It has one stream for all spans."""

    def __init__(self):
        self.decoder = Piecewise()

    def stream(self):
        return self.decoder


def read_curve(file):
    with file.open("rb") as content:
        return np.array(content.read().split(), float)


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ({}, ""),
        ({"in_memory": True}, ""),
        ({"in_memory": True, "probe": lambda file: [0] * len(read_curve(file))}, ""),
        ({"probe": lambda file: [0] * file.stat().st_size}, "of what `probe` makes of a file, `encode` gives 2"),
        ({"in_memory": True, "read": lambda file: read_curve(file)[:: 1 if isinstance(file, Path) else -1]},
         "a file in memory has other codes than the same file on a disk"),
        ({"in_memory": True, "read": lambda path: np.loadtxt(str(path), ndmin=1)}, "media given as bytes"),
    ],
)  # fmt: skip
def test_files_are_read_and_measured_alike_from_a_disk_and_from_memory(module, problem):
    made = DataModule(**{"read": read_curve, "suffixes": (".txt",), **module})
    plugin = changed(detokenizer=Written, mio_datamodule=hookimpl(lambda _: made))
    result = outcomes(plugin, samples={"curve": DATA})["curve: what is written is read again, as long as its file says"]
    assert result.outcome == ("failed" if problem else "passed"), result.detail
    assert problem in result.detail


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("which? {curve}", ""),
        ("{hint?}which? {curve}", ""),
        ("{hint}which? {curve}", "template `name/name` needs field `hint`; the record has: curve, name"),
    ],
)
def test_a_task_needs_the_fields_that_are_not_optional(prompt, problem):
    task = Task(
        name="name",
        template=Template(direction="name", prompt=prompt, response="{name}"),
        records=lambda count: [{"curve": Media("curve", DATA[0], key="0"), "name": "up"}][:count],
        output="curve",
        judge=lambda answers, _: [1.0] * len(answers),
    )
    result = outcomes(changed(mio_tasks=hookimpl(lambda _: [task])))["tasks' prompts can be filled"]
    assert (result.outcome, result.detail) == ("failed" if problem else "passed", problem or "1 tasks")


@pytest.mark.parametrize(
    ("detokenizer", "problem"),
    [
        (Streaming, ""),
        (Forgetful, "what `stream` gives of 3 frames is not what"),
        (OneStream, "is not what `decode` gives of them"),
    ],
)
def test_pieces_of_a_stream_are_compared_with_the_whole(detokenizer, problem):
    found = outcomes(changed(detokenizer=detokenizer))["curve: pieces of a stream are what `decode` gives"]
    assert found.outcome == ("failed" if problem else "passed"), found.detail
    assert problem in found.detail


def test_pytest_is_told_all_failures_at_once():
    manager = PluginManager([Candidate("acme", "test 1.0", "", lambda: tokenizer(fingerprint=""))])
    with pytest.raises(AssertionError, match=r"(?s)does not conform.*codes fit the declaration.*can be pickled"):
        mio.testing.check_plugin("acme", manager=manager)


def test_a_plugin_that_imports_torch_is_found(tmp_path, monkeypatch):
    (tmp_path / "heavy_plugin.py").write_text(
        "import mio, torch\n@mio.hookimpl\ndef mio_modalities():\n    return []\n"
    )
    monkeypatch.setenv("MIO_PLUGINS", str(tmp_path / "heavy_plugin.py"))
    [failed] = mio.testing.conformance("heavy_plugin").failed
    assert failed.check == "importing it is quick, and changes nothing"
    assert failed.detail == "importing the plugin imports `torch`; import inside functions"


class Unready(Plugin):
    """Its tokenizer needs something that is not here."""

    modality = Modality(name="shape", codebooks=(2,), begin="<s>", end="</s>", code_token="<s{}>")
    mio_sources = None

    @hookimpl
    def mio_tokenizer(self, modality):
        if modality == "shape":
            raise UserError("set `checkpoint`")


def test_what_another_plugin_lacks_is_no_fault_of_this_one():
    records = [{"curve": Media("curve", DATA[0], "0"), "shape": Media("shape", DATA[0], "0")}]
    plugin = changed(mio_sources=hookimpl(lambda _: {"curves": lambda split, _: records if split == "train" else DATA}))
    own = hookimpl(lambda _, modality: Tokenizer() if modality == "curve" else None)
    plugins = {"acme": type(plugin)(), "other": Unready()}
    type(plugins["acme"]).mio_tokenizer = own
    manager = PluginManager([Candidate(name, "", "", lambda made=made: made) for name, made in plugins.items()])
    results = {one.check: one for one in mio.testing.conformance("acme", beside=["other"], manager=manager)}
    assert (results["records come through shards"].outcome) == "skipped"
    assert results["records come through shards"].detail == "plugin `other`: set `checkpoint`"


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bytes"}])
def test_the_built_in_text_conforms(options):
    mio.testing.check_plugin("text", options)


def test_the_built_in_corpora_conform_and_tasks_of_what_is_not_there_rest():
    def resting(**options):
        results = {one.check: one for one in mio.testing.check_plugin("digits", **options)}
        assert results["judges know right answers from wrong ones"].outcome == "passed"
        rest = results["tasks that rest can be asked"]
        assert rest.outcome == "skipped"
        return rest.detail

    alone, beside = resting(), resting(beside=["vita"])
    assert "`remark`, `crowd`, `noise`: it looks for the control token `unaddressed`, which no plugin here" in alone
    assert "`draw`, " in alone
    assert "`draw`, " in beside
    assert "control token" not in beside


def test_policies_of_conversations_are_checked():
    from parley import Notes

    class Talkative(Notes):
        def close(self):
            return [Utterance((1, 2), 0.0, 1.0)]

    for modality, segmenter, outcome, detail in (
        ("curve", Notes, "passed", ""),
        (
            "curves",
            Notes,
            "failed",
            "`stream.modality`: 'curves' is no modality of the plugins in use; did you mean",
        ),
        ("curve", dict, "failed", "`stream.segmenter` makes a dict, no Segmenter"),
        ("curve", Talkative, "failed", "a stream in which nothing was said gives utterances"),
        ("curve", Decoding(beams=2), "failed", "`decoding`: conversations have no `beams`"),
    ):
        decoding = segmenter if isinstance(segmenter, Decoding) else Decoding()
        stream = Stream(modality=modality, segmenter=Notes if decoding is segmenter else segmenter, open=lambda _: [])
        policy = SessionPolicy(stream=stream, decoding=decoding)
        made = changed(mio_session=hookimpl(lambda _, policy=policy: policy))
        found = outcomes(made)["the policy of conversations is valid"]
        assert (found.outcome, detail in found.detail) == (outcome, True), found


def test_rules_for_control_tokens_are_checked():
    calls = []

    def fickle(turn):  # noqa: ARG001
        calls.append(1)
        return "odd" if len(calls) % 2 else ""

    odd = ControlToken(name="odd", token="<odd>")
    templates = {"curves": (Template(direction="d", prompt="{curve}", response="yes"),)}
    for label, outcome, detail in (
        (lambda turn: "odd" if len(turn.prompt) else "", "passed", ""),
        (lambda _: "od", "failed", "`label` returned `od`, no control token; did you mean `odd`?"),
        (lambda turn: turn.record["x"], "failed", "`label` raised KeyError: 'x'"),
        (fickle, "failed", "record 0 is labelled otherwise at the second time"),
    ):
        answer = ControlTokens(tokens=[odd], label=label)
        made = changed(
            mio_control_tokens=hookimpl(lambda _, answer=answer: answer),
            mio_datamodule=hookimpl(lambda _: DataModule(templates=templates)),
        )
        found = outcomes(made)["records are labelled, and the same again"]
        assert (found.outcome, detail in found.detail) == (outcome, True), found
    assert outcomes(made)["control tokens can be told from text"].outcome == "passed"

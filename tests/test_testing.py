"""The conformance suite finds what it says it looks for: each defect put into a plugin that conforms is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mio.testing
from mio import (
    ControlToken,
    ControlTokens,
    DataModule,
    Frames,
    Media,
    Modality,
    SessionPolicy,
    Stream,
    Task,
    Template,
    Utterance,
    hookimpl,
)
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager

DATA = [np.array([0.1, 0.5]), np.array([0.9, 0.2, 0.4])]


class Tokenizer:
    fingerprint = "tenths"

    def encode(self, media):
        return [(np.asarray(item) * 10).astype(np.int64)[None] for item in media]

    def frames(self, media):
        return len(media)


class Detokenizer:
    def decode(self, codes):
        return codes[0] / 10 + 0.05

    def save(self, media, stem):
        path = stem.with_suffix(".txt")
        path.write_text(str(media))
        return path


class Source:
    def __init__(self, split, options):
        self.options = split, options

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError
        return {"curve": Media("curve", DATA[index % 2], key=str(index))}


class Plugin:
    """A plugin that conforms; tests change one thing each."""

    modality = Modality(
        name="curve", codebooks=(10,), begin="<c>", end="</c>", code_token="<c{}>", frames=Frames(maximum=3)
    )
    tokenizer = Tokenizer
    detokenizer = Detokenizer
    source = Source

    @hookimpl
    def mio_modalities(self):
        return [self.modality]

    @hookimpl
    def mio_tokenizer(self):
        return self.tokenizer()

    @hookimpl
    def mio_detokenizer(self):
        return self.detokenizer()

    @hookimpl
    def mio_datamodule(self):
        return DataModule()

    @hookimpl
    def mio_sources(self):
        return {"curves": self.source}


def outcomes(plugin, **options):
    manager = PluginManager([Candidate("acme", "test 1.0", "json", lambda: plugin)])
    return {result.check: result for result in mio.testing.conformance("acme", manager=manager, **options)}


def failed(plugin, **options):
    # `json` stands in for the module of a plugin made in memory: it imports, but is no plugin
    return {name for name, result in outcomes(plugin, **options).items() if result.outcome == "failed"} - {
        "imports without torch"
    }


def test_a_plugin_that_conforms_passes():
    found = outcomes(Plugin())
    assert failed(Plugin()) == set()
    skipped = [name for name, result in found.items() if result.outcome == "skipped"]
    assert skipped == [
        "curve: what is written is read again, as long as its file says",
        "tasks' prompts can be filled",
        "the policy of conversations is valid",
    ]


def changed(**attributes):
    return type("Changed", (Plugin,), attributes)()


def tokenizer(**attributes):
    return changed(tokenizer=type("Changed", (Tokenizer,), attributes))


class Counting(Tokenizer):
    """Its codes depend on how often it was called."""

    calls = 0

    def encode(self, media):
        Counting.calls += 1
        return [(codes + Counting.calls) % 10 for codes in super().encode(media)]


class Batched(Tokenizer):
    """Its codes depend on the other items of the batch."""

    def encode(self, media):
        return [(codes + len(media)) % 10 for codes in super().encode(media)]


class Fresh(Tokenizer):
    """Every instance has codes of its own."""

    made = 0

    def __init__(self):
        Fresh.made += 1
        self.shift = Fresh.made

    def encode(self, media):
        return [(codes + self.shift) % 10 for codes in super().encode(media)]


class Drawn(Source):
    """Its records are drawn anew at every reading."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "noise": np.random.default_rng().random(4)}


class Beyond(Tokenizer):
    """Its codes leave the codebook."""

    def encode(self, media):
        return [codes + 10 for codes in super().encode(media)]


class Floating(Tokenizer):
    """Its codes are no integers."""

    def encode(self, media):
        return [codes.astype(np.float64) for codes in super().encode(media)]


class Unsure(Tokenizer):
    """It foretells one frame too many."""

    def frames(self, media):
        return len(media) + 1


class Nowhere(Detokenizer):
    """It writes no file."""

    def save(self, media, stem):
        del media
        return stem


class Endless(Source):
    """It has records past its end."""

    def __getitem__(self, index):
        return super().__getitem__(index % 3)


@pytest.mark.parametrize(
    ("plugin", "checks"),
    [
        (changed(tokenizer=Counting), {"codes are the same again", "a fresh tokenizer gives the same codes"}),
        (changed(tokenizer=Batched), {"codes are the same again"}),
        (changed(tokenizer=Fresh), {"a fresh tokenizer gives the same codes"}),
        (changed(tokenizer=Unsure), {"`frames` foretells `encode`"}),
        (changed(tokenizer=Beyond), {"codes fit the declaration"}),
        (changed(tokenizer=Floating), {"codes fit the declaration"}),
        (tokenizer(fingerprint=""), {"codes fit the declaration"}),
        (changed(detokenizer=Nowhere), {"codes decode, and are written as a file"}),
        (changed(source=Drawn), {"sources give the same records again"}),
        (changed(source=Endless), {"sources give the same records again"}),
    ],
)
def test_each_defect_is_found_by_its_check(plugin, checks):
    assert {name.removeprefix("curve: ") for name in failed(plugin, samples={"curve": DATA})} == checks


def read_curve(file):
    with file.open("rb") as content:
        return np.array(content.read().split(), float)


class Written(Detokenizer):
    """It writes what `read_curve` reads."""

    def save(self, media, stem):
        path = stem.with_suffix(".txt")
        path.write_text(" ".join(map(str, media)))
        return path


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
    assert (result.outcome, result.detail) == ("failed" if problem else "passed", problem)


def test_the_frames_of_a_declaration_bind():
    short = Modality(
        name="curve", codebooks=(10,), begin="<c>", end="</c>", code_token="<c{}>", frames=Frames(maximum=2)
    )
    found = outcomes(changed(modality=short))["curve: codes fit the declaration"]
    assert found.detail == "3 frames, declared are 1 to 2"


def test_pytest_is_told_all_failures_at_once():
    manager = PluginManager([Candidate("acme", "test 1.0", "json", lambda: tokenizer(fingerprint=""))])
    with pytest.raises(AssertionError, match=r"(?s)does not conform.*imports without torch.*codes fit the declaration"):
        mio.testing.check_plugin("acme", manager=manager)


def test_a_plugin_that_imports_torch_is_found(tmp_path, monkeypatch):
    (tmp_path / "heavy_plugin.py").write_text(
        "import mio, torch\n@mio.hookimpl\ndef mio_modalities():\n    return []\n"
    )
    monkeypatch.setenv("MIO_PLUGINS", str(tmp_path / "heavy_plugin.py"))
    found = {result.check: result for result in mio.testing.conformance("heavy_plugin")}
    assert found["imports without torch"].detail == "importing the plugin imports torch"


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bytes"}])
def test_the_built_in_text_conforms(options):
    mio.testing.check_plugin("text", options)


def test_the_built_in_corpora_conform():
    mio.testing.check_plugin("digits", beside=["text", "image", "speech", "video"])


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
    ):
        stream = Stream(modality=modality, segmenter=segmenter, open=lambda _: [])
        policy = SessionPolicy(stream=stream)
        made = changed(mio_session=hookimpl(lambda _, policy=policy: policy))
        found = outcomes(made)["the policy of conversations is valid"]
        assert (found.outcome, detail in found.detail) == (outcome, True), found


class Blocks:
    """An encoder of curves that conforms: one position for every two values."""

    fingerprint = "blocks"

    def positions(self, item):
        return -(-len(item) // 2)

    def prepare(self, item):
        padded = np.zeros(2 * self.positions(item), np.float32)
        padded[: len(item)] = item
        return {"blocks": padded.reshape(-1, 2)}

    def dummy(self):
        return {"blocks": np.zeros((1, 2), np.float32)}

    def module(self, width):
        import torch

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, width)

            def forward(self, items):
                return self.layer(items.arrays["blocks"])

        return Network()


def read_by(made=Blocks, **members):
    encoder = type("Changed", (made,), members)
    return changed(mio_encoder=hookimpl(lambda _: encoder()))


def network(function):
    """An encoder whose network gives `function(its layer, blocks [S, 2])`."""

    def module(self, width):
        made = Blocks.module(self, width)
        made.forward = lambda items: function(made.layer, items.arrays["blocks"])
        return made

    return module


def counting(self, item):
    self.calls = getattr(self, "calls", 0) + 1
    return {"blocks": np.full((self.positions(item), 2), self.calls, np.float32)}


def normalised(layer, blocks):
    return layer((blocks - blocks.mean(0)) / (blocks.std(0, correction=0) + 1))


def drawn(self, width):
    made = Blocks.module(self, width)
    made.layer.weight.data = made.layer.weight.data + float(np.random.default_rng().random())
    return made


ENCODER_DEFECTS = [
    ({"fingerprint": ""}, "the encoder foretells positions", "`fingerprint` is empty"),
    ({"positions": lambda _, item: len(item) / 2}, "the encoder foretells positions", "`positions` says 1.0"),
    ({"prepare": counting}, "the encoder prepares the same arrays again", "differs at the second time"),
    ({"prepare": lambda *_: {"blocks": [1, 2]}}, "the encoder prepares the same arrays again", "gives list"),
    ({"dummy": lambda _: {"blocks": np.zeros((1, 2))}}, "the encoder's dummy is like an item", "float64"),
    ({"dummy": lambda _: {}}, "the encoder's dummy is like an item", "`dummy` gives nothing"),
    ({"module": drawn}, "the network is made without memory, and the same again", "other initial values"),
    ({"module": network(lambda layer, x: layer(x)[1:])}, "the network gives as many embeddings as foretold", "[3, 32]"),
    ({"module": network(normalised)}, "an item's embeddings do not depend on other items", "when item 1 is another"),
    ({"weights": lambda _: {"layer.bias": np.zeros(3)}}, "the network is made without memory, and the same again",
     "`weights` has `layer.bias` as [3], the network as [32]"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "detail"), ENCODER_DEFECTS)
def test_defects_of_an_encoder_are_found(members, check, detail):
    found = outcomes(read_by(**members))[f"curve: {check}"]
    assert (found.outcome, detail in found.detail) == ("failed", True), found


def test_an_encoder_that_conforms_does():
    assert failed(read_by()) == set()
    alone = outcomes(changed(modality=Modality(name="curve")))  # which nothing reads
    assert "no plugin supplies an encoder" in alone["curve: the encoder foretells positions"].detail


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
    assert outcomes(made)["control tokens can be told from text"].outcome == "skipped"


class Shades:
    """A head of curves of two values that conforms: it makes them of the hidden states before them."""

    fingerprint, context, maps, drop, writes = "shades", 3, {}, 0.1, 0

    def positions(self, item):  # noqa: ARG002
        return self.writes

    def target(self, item):
        return {"pair": np.resize(np.asarray(item, np.float32), (1, 2))}

    def noise(self, target, random):  # noqa: ARG002
        return {"noise": random.standard_normal((1, 2), np.float32)}

    def example(self):
        return np.zeros(2, np.float32)

    def save(self, media, stem):
        return Written().save(media, stem)

    def module(self, width):
        import torch

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(width, 2)
                self.empty = torch.nn.Parameter(torch.zeros(width))

            def told(self, condition):
                known = condition.context_mask[..., None]
                return (condition.context * known).sum(1) / known.sum(1)

            def forward(self, condition, items, kept):  # noqa: ARG002
                told = torch.where(items.dropped[:, None], self.empty, self.told(condition))
                return (self.layer(told) - items.arrays["pair"] - items.arrays["noise"]).square().mean(1)

            def sample(self, condition, sampling, run):  # noqa: ARG002
                draws = [torch.randn(2, generator=torch.Generator().manual_seed(seed)) for seed in sampling.seeds]
                return list((self.layer(self.told(condition)) - torch.stack(draws)).numpy())

        return Network()


def makes(**members):
    head = type("Changed", (Shades,), members)
    return changed(mio_head=hookimpl(lambda _: head()))


def of_network(made, **methods):
    """A class's `module` with other methods of its network."""

    def module(self, width):
        network = made.module(self, width)
        for name, method in methods.items():
            setattr(network, name, lambda *given, method=method: method(network, *given))
        return network

    return module


def forwards(function):
    """A head whose losses are `function(losses, condition, items)`."""
    return of_network(
        Shades,
        forward=lambda net, condition, items, kept: function(
            type(net).forward(net, condition, items, kept), condition, items
        ),
    )


def samples(function):
    return of_network(
        Shades,
        sample=lambda net, condition, sampling, run: function(
            type(net).sample(net, condition, sampling, run), condition, sampling
        ),
    )


def counted(self, _):
    self.calls = getattr(self, "calls", 0) + 1
    return {"pair": np.full((1, 2), self.calls, np.float32)}


def unseeded(media, condition, sampling):  # noqa: ARG001
    import torch

    return [one + torch.randn(2).numpy() for one in media]


HEAD_DEFECTS = [
    ({"fingerprint": ""}, "the head foretells its own positions", "`fingerprint` is empty"),
    ({"positions": lambda *_: -1}, "the head foretells its own positions", "`positions` says -1"),
    ({"target": counted}, "the head learns the same of an item again", "differs at the second time"),
    ({"target": lambda *_: {"pair": np.full((1, 2), np.nan)}},
     "the head learns the same of an item again", "holds NaN"),
    ({"noise": lambda *_: {"noise": np.random.default_rng().random((1, 2), np.float32)}},
     "what the head draws follows from its generator", "differs with an equal generator"),
    ({"example": lambda _: np.full(2, np.nan, np.float32)}, "the head's example is like an item", "NaN"),
    ({"weights": lambda _: {"layer.bias": np.zeros(3)}},
     "the head's network is made without memory, and the same again", "as [3], the network as [2]"),
    ({"module": forwards(lambda losses, *_: losses.mean())}, "the head gives a loss for each item", "gives losses []"),
    ({"module": forwards(lambda losses, *_: losses.double())}, "the head gives a loss for each item", "torch.float64"),
    ({"module": forwards(lambda losses, *_: losses + losses.mean())}, "an item's loss depends on nothing but its own",
     "other losses when item 1 is another"),
    ({"module": forwards(lambda losses, condition, _: losses + condition.context.square().mean((1, 2)))},
     "an item's loss depends on nothing but its own", "more room for context"),
    ({"module": forwards(lambda losses, condition, _: losses + condition.context[:, 0, 0].abs())},
     "an item that is dropped does not know its context", "the context changes the loss"),
    ({"module": samples(unseeded)}, "media follow from their seeds, alone or together", "at the second time"),
    ({"module": samples(lambda media, *_: [one + sum(media) for one in media])},
     "media follow from their seeds, alone or together", "when it is alone"),
    ({"save": lambda *given: given[2]}, "media that are made are saved, and learnt like others", "no file is"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "detail"), HEAD_DEFECTS)
def test_defects_of_a_head_are_found(members, check, detail):
    found = outcomes(makes(**members), samples={"curve": DATA})[f"curve: {check}"]
    assert (found.outcome, detail in found.detail) == ("failed", True), found


def test_a_head_that_conforms_does():
    assert failed(makes(), samples={"curve": DATA}) == set()


class Glance:
    """Adapters that conform: a position adds the mean of the maps that it sees."""

    fingerprint, reads = "glance", "curve"

    def layers(self, count):
        return range(0, count, 2)

    def module(self, width):
        import torch

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.gate = torch.nn.Linear(3, width), torch.nn.Parameter(torch.zeros(1))

            def forward(self, hidden, maps, visible):  # noqa: ARG002
                seen = visible.to(maps.dtype)
                return self.gate * self.layer(seen @ maps.mean(2) / (1 + seen.sum(-1, keepdim=True)))

        return Network()


class Mapped(Blocks):
    """An encoder with maps."""

    maps = (4, 3)

    def module(self, width):
        import torch

        network = super().module(width)
        network.forward = lambda items: (
            network.layer(items.arrays["blocks"]),
            torch.ones(len(items.positions), 4, 3),
        )
        return network


def adapts(**members):
    adapter = type("Changed", (Glance,), members)
    return changed(mio_encoder=hookimpl(lambda _: Mapped()), mio_adapters=hookimpl(lambda _: adapter()))


def passes(function):
    """Adapters that give `function(result, hidden, maps, visible)`."""
    return {"module": of_network(Glance, forward=lambda net, *given: function(type(net).forward(net, *given), *given))}


def softmaxed(found, hidden, maps, visible):  # noqa: ARG001
    """The classic: where nothing is seen, the softmax of nothing but -inf."""
    import torch

    weights = torch.where(visible, maps.sum((2, 3))[:, None], -torch.inf).softmax(-1)
    return found * weights.sum(-1, keepdim=True)


ADAPTER_DEFECTS = [
    ({"fingerprint": ""}, "adapters are in layers that are there", "`fingerprint` is empty"),
    ({"layers": lambda _, count: range(1, count + 1)}, "adapters are in layers that are there", "gave [1, 2] of 2"),
    ({"weights": lambda _: {"gate": np.zeros(1)}}, "adapters: the network is made without memory, and the same again",
     "`weights` has `gate`, which is no `LAYER.NAME`"),
    (passes(lambda found, hidden, *_: found + hidden), "adapters change nothing at the beginning", "is not 0"),
    (passes(lambda found, hidden, *_: found + found.abs() * hidden.mean(1, keepdim=True)),
     "adapters: a position's result is its own", "depends on another position"),
    (passes(lambda found, *given: found + found.abs() * given[1].mean((1, 2))[:, :1, None]),
     "adapters: what a position does not see changes nothing", "of positions not seeing it"),
    (passes(lambda found, *given: found * given[1].shape[1]),
     "adapters: what a position does not see changes nothing", "where a row has more items"),
    (passes(softmaxed), "adapters: what a position does not see changes nothing", "NaN or infinities"),
    (passes(softmaxed), "adapters: gradients are finite, whatever is seen", "gradients are NaN"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "detail"), ADAPTER_DEFECTS)
def test_defects_of_adapters_are_found(members, check, detail):
    found = outcomes(adapts(**members))[check]
    assert (found.outcome, detail in found.detail) == ("failed", True), found


def test_adapters_that_conform_do():
    assert failed(adapts()) == set()
    alone = outcomes(changed(mio_adapters=hookimpl(lambda _: Glance())))
    assert alone["adapters change nothing at the beginning"].outcome == "skipped"
    assert "no plugin here reads `curve`" in alone["adapters change nothing at the beginning"].detail

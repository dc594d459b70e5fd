"""The recipes that are shipped: the four stages, MIO in one file each, AnyGPT against its paper, code and formats."""

from __future__ import annotations

import json
from fnmatch import fnmatch

import numpy as np
import pytest
from mio_world import FakeCodecs, FakeText

from mio import Codes
from mio.core.contract.plugins import PluginManager
from mio.core.data.readers import OPTIONS, READERS, open_reader
from mio.core.data.readers.options import option_problems
from mio.core.data.sources import known_kinds, template_sets
from mio.core.recipe.chain import chain
from mio.core.recipe.resolved import diff
from mio.core.recipe.schema import LossConfig
from mio.core.stages.check import check
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary

MANAGER = PluginManager.discover()
ANYGPT = ["anygpt-pretrain", "anygpt-continued", "anygpt-sft"]

IMAGE = "<soim>" + "".join(f"<👀{code}>" for code in range(100, 132)) + "<eoim>"
SPEECH = "<sosp><🗣️7><🗣️1023><eosp>"
# two frames of four codebooks, the numbers running on through the codebooks
MUSIC = "<somu><🎶5><🎶2053><🎶4101><🎶6149><🎶6><🎶2054><🎶4102><🎶8191><eomu>"


@pytest.fixture(scope="module")
def anygpt():
    return {stage.name: stage for stage in chain(["anygpt/sft"], [], MANAGER)}


@pytest.mark.parametrize(
    "last", ["mio/stage4", "anygpt/sft", "janus/stage3", "janus/digits/stage3", "bagel/digits/stage2"]
)
def test_every_stage_passes_every_check(last):
    for stage in chain([last], [], MANAGER):
        plugins = MANAGER.enable(stage.plugins)
        check(stage, plugins)
        kinds = known_kinds(plugins)
        for group in stage.data.groups.values():
            for source in group.sources.values():
                if source.dataset in READERS:
                    assert not option_problems(source.dataset, source.options, OPTIONS[source.dataset], kinds.media)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_stage_of_mio_is_stage_scale_and_data_together(number):
    [*_, one] = chain([f"mio/stage{number}"], [], MANAGER)
    [*_, three] = chain([f"stage{number}", "scale/mio-7b", "data/mio"], [], MANAGER)
    changes = {line.split(":")[0] for line in diff(three, one, runtime=True)}
    assert changes == ({"name", "start_from"} if number > 1 else {"name"})
    assert one.start_from == (f"../mio-stage{number - 1}" if number > 1 else "")


def test_anygpt_has_the_published_values(anygpt):
    """arXiv 2402.12226, tables 7 and 8 and appendix A.2; github.com/OpenMOSS/AnyGPT for what these leave open."""
    assert list(anygpt) == ANYGPT
    assert [stage.train.steps for stage in anygpt.values()] == [81_000, 4_000, 5_000]
    assert [stage.train.rows for stage in anygpt.values()] == [480, 480, 64]
    assert [stage.train.optimizer.lr for stage in anygpt.values()] == [6e-5, 6e-5, 2e-5]
    assert [stage.data.form for stage in anygpt.values()] == ["plain", "plain", "chat"]
    for stage in anygpt.values():
        optimizer = stage.train.optimizer
        assert (optimizer.kind, optimizer.warmup, optimizer.clip, optimizer.final) == ("adamw", 0.03, 1.0, 0.0)
        assert optimizer.weight_decay == 0
        assert stage.data.packing.context == 4500
        assert stage.model == {"preset": "llama-2-7b"}
        assert list(stage.plugins) == ["text", "image", "speech", "music"]
        assert sum(stage.mixture.ratios.values()) == pytest.approx(1)
    pretrain = anygpt["anygpt-pretrain"]
    assert pretrain.runtime.nodes * pretrain.runtime.devices == 96
    assert pretrain.mixture.ratios == {
        "interleaved": 0.05, "image_text": 0.3, "speech_mls": 0.13, "speech": 0.27, "music": 0.25,
    }  # fmt: skip


def test_anygpt_reads_the_published_data_sets(anygpt):
    def read(stage, group):
        return set(anygpt[stage].data.groups[group].sources)

    assert read("anygpt-pretrain", "image_text") == {"laion_2b", "laion_coco", "journeydb", "laion_aesthetics"}
    assert read("anygpt-pretrain", "music") == {"youtube_music_1m", "musicgen_synthesis"}
    assert read("anygpt-continued", "image_text") == {"laion_coco", "journeydb", "laion_aesthetics"}
    assert read("anygpt-continued", "music") == {"any_instruct_music"}


def test_anygpt_declares_the_published_tokens(anygpt):
    declared = {m.name: m for _, m in MANAGER.enable(anygpt["anygpt-sft"].plugins).modalities()}
    strings = {name: (m.begin, m.code_token, m.end) for name, m in declared.items() if m.codebooks}
    assert strings == {
        "image": ("<soim>", "<👀{}>", "<eoim>"),
        "speech": ("<sosp>", "<🗣️{}>", "<eosp>"),
        "music": ("<somu>", "<🎶{}>", "<eomu>"),
    }
    assert {name: m.codebooks for name, m in declared.items() if m.codebooks} == {
        "image": (8192,), "speech": (1024,), "music": (2048,) * 4,
    }  # fmt: skip
    assert declared["music"].layout == "frame_major"
    assert declared["music"].frames.maximum == 250


def first(stage, group, name, row, tmp_path):
    """What a source of the recipe makes of a file with one line, and the source."""
    source = stage.data.groups[group].sources[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    kinds = known_kinds(MANAGER.enable(stage.plugins))
    return open_reader(source.dataset, source.split, {**source.options, "path": str(path)}, kinds)[0], source


def spelled(stage, document):
    """The document's tokens: text as it is, everything else by its token's string."""
    text = FakeText(32000)
    vocabulary = Vocabulary.build(text, MANAGER.enable(stage.plugins).modalities())
    ids = Renderer(vocabulary, FakeCodecs(text), stage.train.loss).render(document).tokens
    pieces = []
    for index in (int(index) for index in ids):
        byte = 100 <= index < 356
        pieces.append(bytes([index - 100]) if byte else vocabulary.token(index).encode())
    return b"".join(pieces).decode()


@pytest.mark.parametrize(
    ("group", "name", "media", "written"),
    [
        ("image_text", "laion_coco", "image", IMAGE),
        ("image_text", "journeydb", "image", IMAGE),
        ("speech_mls", "mls", "speech", SPEECH),
        ("music", "musicgen_synthesis", "music", MUSIC),
    ],
)
def test_published_pairs_become_the_published_text(anygpt, tmp_path, group, name, media, written):
    stage = anygpt["anygpt-pretrain"]
    record, source = first(stage, group, name, {"text": "a red hat", media: written}, tmp_path)
    sets = template_sets(stage, MANAGER.enable(stage.plugins))
    found = [
        spelled(stage, to_document(record, CompiledTemplate(template)))
        for template in sets[source.templates]
        if not source.directions or template.direction in source.directions
    ]
    assert len(found) == (2 if source.directions else 4)
    for text in found:
        reads = f"{written}<eoh> [MMGPT]: a red hat<eos>" in text
        writes = f"This is input: a red hat<eoh> [MMGPT]: {written}<eos>" in text
        assert reads + writes == 1
        assert "[Human]: " in text
        assert reads if name == "laion_coco" else writes if name == "journeydb" else True


def test_published_interleaved_text_is_read(anygpt, tmp_path):
    stage = anygpt["anygpt-pretrain"]
    row = {"text": f"A hat. {IMAGE} It is red."}
    record, source = first(stage, "interleaved", "mmc4_core_ff", row, tmp_path)
    [template] = template_sets(stage, MANAGER.enable(stage.plugins))[source.templates]
    assert row["text"] in spelled(stage, to_document(record, CompiledTemplate(template)))


@pytest.mark.parametrize("nested", [True, False])
def test_published_conversations_are_read(anygpt, tmp_path, nested):
    stage = anygpt["anygpt-sft"]
    turns = [{"role": "user", "message": f"Hear: {SPEECH}"}, {"role": "assistant", "message": f"Music {MUSIC}"}]
    row = {"id": "7", "conversation": [turns] if nested else turns}
    record, source = first(stage, "any_instruct", "any_instruct", row, tmp_path)
    [heard] = [part for part in record["messages"][0]["content"] if isinstance(part, Codes)]
    assert heard.modality == "speech"
    assert np.array_equal(heard.codes, [[7, 1023]])
    [played] = [part for part in record["messages"][1]["content"] if isinstance(part, Codes)]
    assert np.array_equal(played.codes, [[5, 6], [5, 6], [5, 6], [5, 2047]])
    text = spelled(stage, to_document(record, None, source.form or stage.data.form, stage.data.system))
    assert "You are an AI assistant named AnyGPT" in text
    assert f"user\nHear: {SPEECH}" in text
    assert f"assistant\nMusic {MUSIC}" in text


STAGES = ["stage1", "stage2", "stage3", "stage4"]


def stages(*overlays):
    return {stage.name: stage for stage in chain(["stage4", *overlays], [], MANAGER)}


def test_the_stages_pass_every_check_on_the_laptop():
    made = stages()
    assert list(made) == STAGES
    for stage in made.values():
        check(stage, MANAGER.enable(stage.plugins))


def test_the_stages_have_the_published_values():
    """MIO, arXiv 2409.17692 v4: table 9, appendices B and C. The tokenizers' files are not needed to check them."""
    made = stages("scale/mio-7b", "data/mio")
    for stage in made.values():
        check(stage, MANAGER.enable(stage.plugins))
    assert [list(made[name].mixture.ratios.items()) for name in STAGES[:3]] == [
        [("image_text", 12), ("text", 2), ("interleaved", 0), ("speech_text", 2)],
        [("image_text", 2), ("text", 2), ("interleaved", 6), ("speech_text", 6)],
        [("image_text", 2), ("text", 1), ("interleaved", 1), ("speech_text", 12)],
    ]
    assert [made[name].mixture.unit for name in STAGES[:3]] == ["rows"] * 3
    assert [made[name].train.steps for name in STAGES[:3]] == [24_800, 12_800, 32_200]
    gpus = [made[name].runtime.nodes * made[name].runtime.devices for name in STAGES[:3]]
    assert gpus == [128, 128, 8]
    for name, count in zip(STAGES, gpus, strict=False):
        assert made[name].train.rows == count * sum(made[name].mixture.ratios.values())
    for stage in made.values():
        optimizer = stage.train.optimizer
        assert (optimizer.kind, optimizer.lr, optimizer.warmup, optimizer.clip) == ("adamw", 3e-5, 0.03, 1.0)
        assert stage.train.loss == LossConfig()
        assert stage.data.packing.context == 2800
        assert list(stage.plugins) == ["text", "image", "speech", "video"]
        assert stage.model == {"preset": "yi-6b"}
        assert stage.evaluate.tasks == []
    assert [stage.data.form for stage in made.values()] == ["plain"] * 3 + ["chat"]


def test_the_stages_read_the_published_data_sets():
    made = stages("scale/mio-7b", "data/mio")

    def read(stage, group):
        return set(made[stage].data.groups[group].sources)

    assert read("stage1", "image_text") == read("stage2", "image_text") == {"sbu", "cc3m", "laion_coco", "journeydb"}
    assert read("stage3", "image_text") == {"cc3m", "laion_coco"}
    assert read("stage2", "interleaved") == {"obelics", "mmc4", "webvid", "howto100m", "yt_temporal"}
    assert read("stage3", "interleaved") == {"mmc4", "webvid", "howto100m", "yt_temporal"}
    [say, _] = made["stage3"].data.templates["speech_text"]
    assert say.prompt + say.response == "{speech} The transcription of this speech is: {transcription}"


def test_janus_trains_what_its_paper_says():
    """arXiv 2410.13848, section 3.2; arXiv 2501.17811, section 2.1, for the ratios of stage 3."""
    made = {stage.name: stage for stage in chain(["janus/stage3"], [], MANAGER)}
    names = {
        "tower": "encoders.image.tower.blocks.3.attn.qkv.weight",
        "aligner": "encoders.image.projector.0.weight",
        "codes": "embedding.weight",
        "scores": "head.weight",
        "language model": "layers.7.ffn.up.weight",
    }
    learns = {stage.name: {part for part, name in names.items() if trains(stage, name)} for stage in made.values()}
    assert learns == {
        "janus-stage1": {"aligner", "codes", "scores"},
        "janus-stage2": names.keys() - {"tower"},
        "janus-stage3": names.keys(),
    }
    rows = {rule.pattern: rule.rows for rule in made["janus-stage1"].train.optimizer.rules.values()}
    assert rows["embedding.weight"] == rows["head.weight"] == ["image/*"]
    assert list(made["janus-stage3"].mixture.ratios.items()) == [("understanding", 5), ("text", 1), ("generation", 4)]
    assert set(made["janus-stage1"].data.groups["generation"].sources) == {"imagenet"}
    assert "imagenet" not in made["janus-stage2"].data.groups["generation"].sources
    for stage in made.values():
        for source in stage.data.groups["generation"].sources.values():
            assert source.directions == {"text_to_image": 9, "nothing_to_image": 1}
        declared = {m.name: m for _, m in MANAGER.enable(stage.plugins).modalities()}
        assert declared["image"].codebooks == (16_384,)
        assert declared["image"].frames.maximum == 576


def trains(stage, name):
    """Whether a parameter learns: by the last rule that fits."""
    rules = [rule for rule in stage.train.optimizer.rules.values() if fnmatch(name, rule.pattern)]
    rule = rules[-1] if rules else None
    return rule is None or rule.trainable

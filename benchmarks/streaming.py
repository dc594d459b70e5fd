"""When the first piece of an utterance is given out, by codec and layout, and whether the pieces are the whole.

    python benchmarks/streaming.py            # the pretrained codecs narrow, with random weights
    python benchmarks/streaming.py --full     # at their published widths
    python benchmarks/streaming.py --run runs/stage4 --task speak

Spans are written token by token, as an answer is: recordings of spoken digits with `mel_rvq`, which is trained on
others of them, and random codes of three seconds with all codecs. Each is then read as a whole, and samples are
compared bit by bit. An engine with a small transformer of random weights writes further ones, of any length, 8 at a
time, in each layout, which are compared in the same way. With `--run`, it is the run that answers, in the layout that
it was trained in.

A line per case: codec, layout, frames, tokens before the first piece as a share of the utterance's (median and most;
not of random lengths), CPU seconds of reading in pieces by those of reading the whole, samples that differ. The last
line is one JSON object: `different` samples of all cases, and `share`, the largest median where frames become whole
early (`frame_major`, `delayed`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mio import Decoding, Media
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.data.items import prepared
from mio.core.distributed.ranks import Ranks
from mio.core.generation.answer import read_answer
from mio.core.generation.grammar import need_of
from mio.core.generation.growing import AnswerTokens
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.generation.requests import Finished, Request, Ticket, Token
from mio.core.generation.streaming import AnswerStream, MediaChunk
from mio.core.model.transformer import Transformer
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.runs.run import Run
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import GENERATE, plain_document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.spans import SpanPlan
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins.digits.voices import clips

LAYOUTS = ("frame_major", "delayed", "codebook_major")
FRAMES = 150
"""Of three seconds."""
SPEECHTOKENIZER = {
    "strides": [8, 5, 4, 2], "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3,
    "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU", "codebook_size": 1024, "n_q": 8,
    "sample_rate": 16000,
}  # fmt: skip
ENCODEC = {
    "target_bandwidths": [2.2], "sampling_rate": 32000, "audio_channels": 1, "upsampling_ratios": [8, 5, 4, 4],
    "use_causal_conv": False, "use_conv_shortcut": False, "codebook_size": 2048, "codebook_dim": 128,
    "hidden_size": 128, "num_lstm_layers": 2,
}  # fmt: skip


@dataclass
class Case:
    """What is measured of some spans."""

    codec: str
    layout: str
    spans: int
    frames: str
    share: float | None
    """Tokens before the first piece by those of the utterance, the median."""
    most: float | None
    cpu: float
    """Seconds in pieces by seconds as a whole."""
    different: int
    """Samples."""

    def __str__(self) -> str:
        first = "" if self.share is None else f"first piece after {self.share:.3f}, at most {self.most:.3f}; "
        return (
            f"{self.codec:24} {self.layout:14} {self.spans:3} spans of {self.frames:>7} frames: {first}"
            f"CPU x {self.cpu:.2f}; {self.different} samples differ"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--task", default="speak")
    parser.add_argument("--items", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases: list[Case] = []
    if options.run:
        cases.append(of_run(options.run, options.task, options.items))
        print(cases[-1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            cases += of_codecs(Path(scratch), options.full)
    early = [case.share for case in cases if case.layout != "codebook_major" and case.share is not None]
    print(json.dumps({
        "different": sum(case.different for case in cases),
        "share": max(early, default=None),
        "cases": [asdict(case) for case in cases],
    }))  # fmt: skip


def of_codecs(scratch: Path, full: bool) -> list[Case]:
    """Spans of all codecs in all layouts."""
    random = np.random.default_rng(0)
    weights, words = trained_mel(scratch / "mel")
    plugins: dict[str, tuple[str, dict[str, Any]]] = {
        "mel_rvq": ("speech", {"tokenizer": "mel_rvq"}),
        "speechtokenizer": ("speech", {"checkpoint": str(speechtokenizer(scratch / "speech", full))}),
        "encodec": ("music", {"checkpoint": str(encodec(scratch / "music", full))}),
    }
    cases = []
    for codec, (plugin, chosen) in plugins.items():
        for layout in LAYOUTS:
            model = model_of(plugin, {**chosen, "layout": layout}, weights if codec == "mel_rvq" else None)
            sizes = np.array(model.codecs.modalities[plugin].codebooks)[:, None]
            if codec == "mel_rvq":
                spans = [model.codecs.codes(media) for media in words]
                cases.append(measured("mel_rvq, words", layout, model, plugin, spans))
                print(cases[-1])
            spans = [random.integers(0, 1 << 30, (len(sizes), FRAMES)) % sizes for _ in range(2)]
            cases.append(measured(codec, layout, model, plugin, spans))
            print(cases[-1])
            asked = [engine_request(model, plugin, seed) for seed in range(16)]
            made = of_engine(f"{codec}, engine", layout, model, asked, plugin)
            cases.append(replace(made, share=None, most=None))
            print(cases[-1])
    return cases


def measured(codec: str, layout: str, model: Model, modality: str, spans: Sequence[Any]) -> Case:
    """Spans whose tokens come one by one, each the whole answer."""
    plan = SpanPlan.of(model.vocabulary, modality, GENERATE)
    request = engine_request(model, modality, 0)
    told = []
    for codes in spans:
        tokens = plan.span(codes).tolist()
        told.append(([Token(token) for token in tokens], AnswerTokens(tokens)))
    return compared(codec, layout, model, [(request, events, given) for events, given in told], "")


def compared(
    codec: str, layout: str, model: Model, told: Sequence[tuple[Request, list[Any], AnswerTokens]], output: str
) -> Case:
    """Answers in pieces beside the same as a whole. Each gives one item of sound, at least."""
    shares, frames, different, streamed, whole = [], [], 0, 0.0, 0.0
    read_answer(told[0][2], model.vocabulary, model.codecs, output)  # networks are loaded when they are first used
    for request, events, given in told:
        stream, pieces, first, span = AnswerStream(model, request, output), {}, 0, 0
        start = time.process_time()
        for number, event in enumerate(events, 1):
            for piece in stream.take(event):
                if isinstance(piece, MediaChunk):
                    first = first or number
                    pieces.setdefault(piece.part, []).append(piece.content[0])
        over = stream.take(Finished("stop"))[-1]
        streamed += time.process_time() - start
        start = time.process_time()
        answer = read_answer(given, model.vocabulary, model.codecs, output)
        whole += time.process_time() - start
        opening = next(place for place, token in enumerate(given.tokens) if token in model.grammar.opens)
        span = answer.codes[0].codes.size + 2
        shares.append((first - opening) / span)
        frames.append(answer.codes[0].codes.shape[1])
        for part, samples in pieces.items():
            expected = answer.parts[part][1][0]
            assert np.array_equal(over.answer.parts[part][1][0], np.concatenate(samples))
            joined = np.concatenate(samples)
            different += int((joined != expected).sum()) if joined.shape == expected.shape else len(expected)
    span = f"{min(frames)}..{max(frames)}" if min(frames) < max(frames) else str(max(frames))
    return Case(codec, layout, len(told), span, round(float(np.median(shares)), 4), round(max(shares), 4),
                round(streamed / whole, 2), different)  # fmt: skip


def of_engine(codec: str, layout: str, model: Model, asked: Sequence[Request], output: str) -> Case:
    """Answers that an engine makes, 8 at a time."""
    engine = model.engine(8, max(len(one.prompt.tokens) + one.budget for one in asked))
    events: dict[Ticket, list[Any]] = {}
    tickets = [engine.submit(one, lambda ticket, event: events.setdefault(ticket, []).append(event)) for one in asked]
    engine.run()
    told = [(ticket.request, events[ticket][:-1], ticket.answer) for ticket in tickets]
    return compared(codec, layout, model, told, output)


def engine_request(model: Model, modality: str, seed: int) -> Request:
    """A request of one item of sound."""
    decoding = Decoding(media_temperature=100, max_tokens=700)  # codes and an end are all as likely
    need = replace(need_of(modality, model.codecs.modalities, only=True), most=1)
    return Request(model.renderer.prompt(plain_document(["Say: "], [])), decoding, need, seed, decoding.max_tokens)


def of_run(folder: Path, task: str, items: int) -> Case:
    """Answers of a run to a task whose answers are of sound."""
    run = Run.open(folder, PluginManager.discover())
    model = Model.of(run)
    _, chosen = run.plugins.tasks()[task]
    data, template = run.recipe.data, CompiledTemplate(chosen.template, chosen.name)
    need = model.need(chosen.output, False, chosen.decoding)
    asked = []
    for seed, record in enumerate(chosen.records(items)):
        prompt = model.renderer.prompt(to_document(record, template, data.form, data.system, asked=True))
        prompt = prompt._replace(items=prepared(prompt.items, model.codecs))
        asked.append(model.request(prompt, chosen.decoding, need, seed))
    layout = model.codecs.modalities[chosen.output].layout
    return of_engine(f"{folder.name}, {task}", layout, model, asked, chosen.output)


def model_of(plugin: str, options: dict[str, Any], weights: Path | None) -> Model:
    """A small model of random weights, which opens a span of one modality wherever it may, and stops after it."""
    plugins = PluginManager.discover().enable({"text": {"tokenizer": "bytes"}, plugin: options})
    codecs = Codecs(plugins)
    if weights is not None:
        codecs.load(weights)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities())
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=1, heads=2, kv_heads=1, tied_embeddings=False, head_bias=True)
    transformer = Transformer(config, vocabulary.rows).eval()
    with torch.no_grad():
        transformer.head_bias[vocabulary.begin(plugin)] = 1e3
        transformer.head_bias[vocabulary.specials.eos] = 1e4
    recipe = Recipe(name="made", data=DataConfig(form="plain", packing=PackingConfig(context=1024)))
    renderer = Renderer(vocabulary, codecs, LossConfig())
    return Model(recipe, plugins, vocabulary, codecs, renderer, Path("made"), lambda: (transformer, Replicas(Ranks())))


def trained_mel(folder: Path) -> tuple[Path, list[Media]]:
    """Weights of `mel_rvq`, and recordings of voices that it was not trained on."""
    tokenizer = PluginManager.discover().enable({"text": {}, "speech": {"tokenizer": "mel_rvq"}}).tokenizer("speech")
    heard = clips("train")[::8]
    tokenizer.fit([Media("speech", (clip.samples, clip.rate), clip.key, clip.word) for clip in heard], 0)
    (folder / "speech").mkdir(parents=True)
    tokenizer.save_weights(folder / "speech")
    return folder, [Media("speech", (clip.samples, clip.rate), clip.key) for clip in clips("test")[::4]]


def speechtokenizer(folder: Path, full: bool) -> Path:
    """A checkpoint of SpeechTokenizer with random weights."""
    from speechtokenizer.model import SpeechTokenizer

    filters = 64 if full else 8
    config = SPEECHTOKENIZER | {"n_filters": filters, "dimension": 16 * filters, "semantic_dimension": 12 * filters}
    torch.manual_seed(0)
    folder.mkdir()
    torch.save(SpeechTokenizer(config).state_dict(), folder / "SpeechTokenizer.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def encodec(folder: Path, full: bool) -> Path:
    """A checkpoint of EnCodec with random weights."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    EncodecModel(EncodecConfig(**ENCODEC, num_filters=64 if full else 8)).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()

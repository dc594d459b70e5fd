"""Follows one record from its file to the loss and back, and draws what it is on the way.

    python docs/walk.py          writes docs/walk.svg

Every step is a call of the code that training and generation make, with what came out of it. The modality is that of
the worked example in docs/plugins.md.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mio import Codes, Decoding, Media
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.data.batch import assemble
from mio.core.data.plan import Plan
from mio.core.data.readers import open_reader
from mio.core.data.sources import build_streams, known_kinds, template_sets
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import Grammar, need_of
from mio.core.model.loss import linear_cross_entropy
from mio.core.model.transformer import Transformer
from mio.core.recipe.compose import compose
from mio.core.recipe.model import transformer_config
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule
from mio.core.training.optimizer import build_optimizer

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests/packages/mio-melody/mio_melody.py"
PICTURE = ROOT / "docs/walk.svg"
STEPS = 30
SONG = {"melody": "tune.txt", "notes": "do mi sol"}
RECIPE = """
name: walk
plugins: {text: {tokenizer: bytes}, melody: {}}
model: {width: 32, layers: 2, heads: 2}
data:
  groups:
    songs: {sources: {mine: {dataset: jsonl, options: {path: songs.jsonl}, templates: melody}}}
  packing: {context: 48}
mixture: {ratios: {songs: 1}}
train: {steps: 30, rows: 1, optimizer: {lr: 0.01, warmup: 0}}
"""


class Step(NamedTuple):
    """What happens, the function that does it, and what the record is then."""

    what: str
    call: Any
    now: str

    @property
    def folder(self) -> str:
        """Of `mio/core`."""
        return str(self.call.__module__.split(".")[2])

    @property
    def place(self) -> str:
        """File and function."""
        return f"{'/'.join(self.call.__module__.split('.')[2:])}: {self.call.__qualname__}"


def walk(folder: Path) -> Iterator[Step]:
    """The steps, with recipe and data in `folder`."""
    (folder / "walk.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "songs.jsonl").write_text(json.dumps(SONG), encoding="utf-8")
    (folder / SONG["melody"]).write_text(SONG["notes"], encoding="utf-8")
    torch.set_num_threads(1)

    manager = PluginManager([*discover(), local(f"melody={PLUGIN}")])
    path = f"data.groups.songs.sources.mine.options.path={folder}/songs.jsonl"
    recipe = compose([str(folder / "walk.yaml")], [path], manager)
    plugins = manager.enable(recipe.plugins)
    names = ", ".join(plugins.names)
    yield Step("files and overrides become a recipe", compose, f"{recipe.name}, with the plugins {names}")

    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    blocks = ", ".join(f"{block.start} {block.name}" for block in vocabulary.blocks)
    yield Step("all plugins' tokens become one vocabulary", Vocabulary.build, f"ids from {blocks}")

    options = recipe.data.groups["songs"].sources["mine"].options
    record = open_reader("jsonl", "train", options, known_kinds(plugins))[0]
    yield Step("a line of a file becomes a record", open_reader, shown(record))

    template = CompiledTemplate(template_sets(recipe, plugins)["melody"][1], "melody")  # from notes to a melody
    document = to_document(record, template, recipe.data.form, recipe.data.system)
    contents = [segment.content for segment in document.segments]
    yield Step("a template makes a document of it", to_document, " + ".join(map(shown, contents)))

    codes = codecs.codes(record["melody"])
    yield Step("the tokenizer turns media into codes", Codecs.codes, f"codes [Q, F] = {codes.tolist()}")

    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    rendered = renderer.render(document)
    ids = f"{len(rendered.tokens)} ids: ... {spelt(rendered.tokens[-6:], vocabulary)}"
    yield Step("the document becomes token ids", Renderer.render, ids)

    streams, _ = build_streams(recipe, plugins, renderer)
    plan = Plan(streams, recipe.mixture, recipe.data.packing)
    row = plan.next_row()
    entries = ", ".join(f"document {entry.n} of {streams[entry.stream].name}" for entry in row)
    yield Step("from lengths alone, the plan fills a row", Plan.next_row, entries)

    rendered_row = [(entry.stream, streams[entry.stream].document(entry.n)) for entry in row]
    batch = assemble([rendered_row], recipe.data.packing.context, vocabulary.specials.pad)
    grids = f"tokens, targets, weights [B, L] = {list(batch.tokens.shape)}"
    yield Step("a data worker makes a batch of rows", assemble, grids)

    module = MioModule(transformer_config(recipe, manager), vocabulary, recipe.train)
    module.transformer.reset_parameters(recipe.seed)
    weight = float(batch.weights.sum())
    total, nll, _ = module.loss_sum(batch, 1 / weight)
    hidden = [*nll.shape, module.model_config.width]
    yield Step("attention stays within documents", Transformer.forward, f"hidden states [B, L, D] = {hidden}")
    yield Step("the head, by slices of the vocabulary", linear_cross_entropy, f"loss {total.item():.1f} per token")

    optimizer, _ = build_optimizer(module.transformer, recipe.train.optimizer, vocabulary)
    for _ in range(STEPS):
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        total, *_ = module.loss_sum(batch, 1 / weight)
    yield Step("backward, and the optimizer", build_optimizer, f"loss {total.item():.1f} after {STEPS} steps")

    prompt = renderer.prompt(document)
    grammar = Grammar(vocabulary, codecs.modalities, vocabulary.specials.eos)
    need = need_of("melody", codecs.modalities, only=True)
    decoding = Decoding(temperature=0.0, media_temperature=0.0, max_tokens=12)
    [given] = generate_tokens(module.transformer.eval(), grammar, [prompt], decoding, need, [0])
    yield Step("a prompt is answered, by the grammar", generate_tokens, spelt(given.tokens, vocabulary))

    parts = parse_tokens(given.tokens, vocabulary, codecs.text).parts
    yield Step("the answer's ids become text and codes", parse_tokens, " + ".join(map(shown, parts)))

    [(name, tune)] = decode_answer(codecs, parts, "melody").parts
    saved = codecs.detokenizer(name).save(tune, folder / "answer")
    yield Step("the detokenizer turns codes into media", decode_answer, f"{saved.name}: {saved.read_text().strip()}")


def shown(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, dict):
        return ", ".join(f"{name} = {shown(content)}" for name, content in value.items())
    if isinstance(value, Media):
        return f"Media({Path(value.data).name})"
    if isinstance(value, Codes):
        return f"Codes({value.modality}, {value.codes.tolist()})"
    return repr(value) if isinstance(value, str) else str(getattr(value, "name", value))


def spelt(ids: Any, vocabulary: Vocabulary) -> str:
    """Token ids with their strings."""
    return " ".join(f"{vocabulary.token(int(index))}" for index in ids)


HEIGHT, WIDTH, LEFT, MIDDLE = 40, 980, 116, 420
SHADES = ("#e8eef7", "#f7f3e8")


def picture(steps: list[Step]) -> str:
    """The walk as SVG: one line per step, neighbours in the same folder together."""
    rows, shade, before = [], 0, ""
    for index, step in enumerate(steps):
        top = index * HEIGHT
        if step.folder != before:
            shade, before = 1 - shade, step.folder
            label = f'<text x="12" y="{top + 25}" class="folder">{step.folder}/</text>'
        else:
            label = ""
        rows.append(
            f'<rect y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="{SHADES[shade]}"/>{label}'
            f'<text x="{LEFT}" y="{top + 17}">{escape(step.what)}</text>'
            f'<text x="{LEFT}" y="{top + 32}" class="quiet">{escape(step.place)}</text>'
            f'<text x="{MIDDLE}" y="{top + 25}" class="code">{escape(step.now)}</text>'
        )
    style = (
        "text{font:13px sans-serif;fill:#191919}.folder{font-weight:bold}"
        ".quiet{font:11px monospace;fill:#6e6e6e}.code{font:12px monospace}"
    )
    height = HEIGHT * len(steps)
    body = "\n".join(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f"<style>{style}</style>\n{body}\n</svg>\n"
    )


def drawn() -> str:
    """The picture as the code makes it now."""
    with tempfile.TemporaryDirectory() as folder:
        return picture(list(walk(Path(folder))))


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")

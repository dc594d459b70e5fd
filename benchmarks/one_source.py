"""A recipe with one source of records, opened as `mio fit` opens it, for benchmarks that look at what is made of them.

The text tokenizer is that of bytes, so that an independent reading of tokens needs no more than a table of five names;
media are not tokenised: their files are compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Codes, Media, Record
from mio.core.data.plan import Plan
from mio.core.data.preflight import preflight
from mio.core.data.sources import OpenSource, build_streams
from mio.core.data.streams import RecordStream
from mio.core.recipe.compose import compose
from mio.core.recipe.schema import Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import Special
from mio.core.tokens.rendered import Rendered
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary

PLUGINS = {"text": {"tokenizer": "bytes"}, "image": {}, "speech": {}, "video": {}}


@cache
def manager() -> PluginManager:
    return PluginManager.discover()


@dataclass
class OneSource:
    """What a run would train on."""

    recipe: Recipe
    renderer: Renderer
    streams: list[RecordStream]
    source: OpenSource

    @property
    def record(self) -> Record:
        """The first record."""
        return self.source.records[0]

    def check(self) -> dict[str, Any]:
        """The report before training. Raises as `mio fit` does."""
        return preflight([self.source], self.streams, self.recipe.data.max_skipped)["g/s"]

    def contents(self, template: CompiledTemplate | None = None) -> list[tuple[str, list[str | bytes]]]:
        """(role, content) of the first record's turns, media by the bytes of their files."""
        form = self.recipe.data.groups["g"].sources["s"].form or self.recipe.data.form
        document = to_document(self.record, template, form, {})
        found: list[tuple[str, list[str | bytes]]] = []
        for segment in document.segments:
            content = segment.content
            if content is Special.IM_START:
                found.append(("", []))
            elif isinstance(content, Media):
                found[-1][1].append(Path(content.data).read_bytes())
            elif isinstance(content, Codes):
                found[-1][1].append(content.codes.tobytes())
            elif isinstance(content, str) and found:
                if not found[-1][0]:
                    found[-1] = (content.removesuffix("\n"), [])
                elif content:
                    found[-1][1].append(content)
        return [(role, parts[:-1]) for role, parts in found]  # a line feed ends each turn

    def rendered(self, record: int = 0) -> Rendered:
        """The document of a record in the first direction, as it is trained on. Raises what is wrong with it."""
        [stream] = self.streams[:1]
        place = next(n for n in range(len(stream)) if stream.order(n) == record)
        if stream.length(place) is None:
            raise LookupError(stream.reason(place))
        document = stream.document(place)
        assert isinstance(document, Rendered)
        return document

    def plan(self) -> Plan:
        return Plan(self.streams, self.recipe.mixture, self.recipe.data.packing)

    def spelled(self, tokens: list[int]) -> str:
        """Bytes of text as text, special tokens by their names in angle brackets."""
        specials = self.renderer.__reduce__()[1][0].specials
        names = {getattr(specials, special.value): f"<{special.value}>" for special in Special}
        text, run = "", b""
        for token in tokens:
            if token in names:
                text, run = text + run.decode() + names[token], b""
            else:
                run += bytes([token])
        return text + run.decode()


def open_one(
    folder: Path,
    rows: list[Any] | None = None,
    *,
    source: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    plugins: dict[str, Any] | None = None,
) -> OneSource:
    """Opens a source of `rows`, written as JSON Lines where they are not lines already.

    The further arguments go into the recipe: `source` into the source, the others into the section of their name.
    """
    settings: dict[str, Any] = {"dataset": "jsonl", "options": {"path": str(folder / "data.jsonl")}, **(source or {})}
    if rows is not None:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / "data.jsonl").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    content = {
        "name": "one",
        "plugins": plugins or PLUGINS,
        "model": {"width": 32, "layers": 1, "heads": 1},
        "data": {
            "packing": {"context": 2048, "window": 4},
            **(data or {}),
            "groups": {"g": {"sources": {"s": settings}}},
        },
        "mixture": {"ratios": {"g": 1.0}},
        "train": {"steps": 1, "rows": 1, **(train or {})},
    }
    (folder / "recipe.yaml").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    recipe = compose([str(folder / "recipe.yaml")], [], manager())
    enabled = manager().enable(recipe.plugins)
    codecs = Codecs(enabled)
    renderer = Renderer(
        Vocabulary.build(codecs.text, enabled.modalities(), enabled.control_tokens()), codecs, recipe.train.loss
    )
    streams, [opened] = build_streams(recipe, enabled, renderer)
    return OneSource(recipe, renderer, streams, opened)

"""The README of an export: what the Hub reads, and what a person needs to use the folder.

The front matter is that of model cards (https://huggingface.co/docs/hub/model-cards): library, task, licence, tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.core.exchange.networks import FILE as NETWORKS
from mio.core.files import write_text

README = "README.md"
_ONE = re.compile(r"[A-Za-z0-9.+-]+")
"""A licence that is one identifier: the Hub knows these in lower case, and no expressions of several."""


@dataclass(frozen=True)
class ModelCard:
    """What is said of an export."""

    name: str
    """Of its folder."""
    run: str
    """Name of the run."""
    family: str
    parameters: int
    license: str
    """SPDX identifier or expression; empty: nobody has said."""
    chat: bool
    """Whether the model was trained on conversations."""
    grammar: Mapping[str, Any]
    """Content of `grammar.json`."""
    grammar_file: str
    own: str
    """Folder that only mio reads."""
    tasks: Mapping[str, Mapping[str, Any]]
    """Held-out figures of the run's evaluation."""
    averaged: bool = False
    """Whether the figures are those of the average of the weights, and the folder holds the last ones too."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Content of `generation_config.json`."""
    networks: Sequence[str] = ()
    """Networks of plugins."""
    adapter: str = ""
    """Folder of adapters in PEFT's layout."""

    @property
    def read(self) -> dict[str, str]:
        """How each modality is carried where it is read."""
        return dict(_carriers(self.grammar, "read"))

    @property
    def written(self) -> dict[str, str]:
        """How each modality is carried where it is written."""
        return dict(_carriers(self.grammar, "written"))

    def write(self, folder: Path) -> None:
        """Writes it into the folder of an export."""
        parts = [self._head(), self._about(), self._networks(), self._transformers(), self._own_use(), self._vllm(),
                 self._figures()]  # fmt: skip
        write_text(folder / README, "\n".join(part for part in parts if part))

    def write_of_bundle(self, folder: Path, place: str, weights: bool, lock: bool) -> None:
        """Writes it into the folder of a bundle, which is called `place` for users; `weights` and `lock`, by which it
        is trained again, say whether these are in it."""
        use = self._bundle_use(place, weights, lock)
        parts = [self._head("mio"), self._about("in `tokenizers/`"), use, self._figures()]
        write_text(folder / README, "\n".join(part for part in parts if part))

    def _bundle_use(self, place: str, weights: bool, lock: bool) -> str:
        locked = "\n`training.lock` what it was trained with, from the first stage on," if lock else ""
        held = "" if weights else " Its weights are not in it: `mio fit` trains them."
        used = [f"mio fit {place}    # trains it again, bit for bit, or says what differs here"] if lock else []
        if weights:
            output = next((name for name in self.written if name != "text"), "text")
            used += [f'mio generate {place} "Hello" --output {output}', f"mio evaluate {place}"]
        commands = "\n".join(f"    {command}" for command in [*used, f"mio recipe diff {place} mine.yaml"])
        return f"""## In mio

This is a bundle: what `mio recipe bundle` packed of a run.{held} `recipe.yaml` is its recipe with every key,{locked}
and `bundle.json` names every file with its SHA-256.

{commands}
"""

    def _head(self, library: str = "transformers") -> str:
        lines = ["---", f"library_name: {library}", "pipeline_tag: any-to-any"]
        if self.license:
            lines += _license_lines(self.license)
        named = [name for name in dict.fromkeys((*self.read, *self.written)) if name != "text"]
        lines += ["tags:", *(f"- {tag}" for tag in ("mio", "multimodal", "text", *named)), "---", ""]
        return "\n".join(lines)

    def _about(self, where: str = "") -> str:
        unsaid = "" if self.license else " Its recipe names no licence."
        grammar = (
            f"""
`{self.grammar_file}` says which token may follow which, so that every span can be decoded."""
            if not where
            else ""
        )
        rows = "\n".join(
            f"| `{name}` | {self.read.get(name, '-')} | {self.written.get(name, '-')} |"
            for name in dict.fromkeys((*self.read, *self.written))
        )
        return f"""# {self.name}

The run `{self.run}` of mio: one causal transformer (`{self.family}`, {self.parameters:,} parameters) that reads and
writes all of its modalities as tokens of one vocabulary of {self.grammar["size"]} ids, in a context of
{self.grammar["context"]} positions.{unsaid}

| modality | in | out |
| --- | --- | --- |
{rows}

Media stand in a text as spans of token strings, `<begin> codes <end>`. mio's tokenizers, which make codes of media and
media of codes, are {where or f"in `{self.own}/`"}.{grammar}
"""

    def _networks(self) -> str:
        if not self.networks:
            return ""
        names = " and ".join(f"`{name}`" for name in self.networks)
        return f"""## Networks beside the language model

The model was trained together with networks of plugins, which transformers and programs that read its layout do not
open: {names}. What it answers without them is not what it was trained for.

- **The language model** (`config.json`, `*.safetensors`, the tokenizer) is whole. It reads and writes text and the
  codes in its vocabulary.
- **The networks** are in `{self.own}/{NETWORKS}`, by their names in the model. `encoders.MODALITY.` computes an
  embedding of the model's width for each position that an item takes. These embeddings stand in the prompt where the
  tokens' would; the padding token holds their places. `layers.LAYER.adapters.PLUGIN.` adds to the hidden states between
  the layer's attention and its feed-forward network. `heads.MODALITY.` makes media of hidden states. No class of
  transformers does that for this folder. A program of your own can: make the plugin's network (`mio.Encoder.module` and
  its like) and load these tensors. Where there are encoders alone, give the embeddings of the whole prompt to the
  language model as `inputs_embeds`.
- **`mio import`** restores the run, networks included, where the plugins that bring them are installed
  (`{self.own}/recipe.lock` names them).
"""

    def _transformers(self) -> str:
        opening, tokens = self._opening()
        made = f'"{opening}"' if opening else '"Hello"'
        load = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{self.name}")
model = AutoModelForCausalLM.from_pretrained("{self.name}")"""
        if self.adapter:
            load = load.replace("from transformers", "from peft import PeftModel\nfrom transformers", 1)
            load += f'\nmodel = PeftModel.from_pretrained(model, "{self.name}/{self.adapter}")'
        if self.chat:
            ask = """messages = [{"role": "user", "content": "Hello"}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")"""
        else:
            ask = f"""ids = tokenizer({made}, return_tensors="pt")"""
        note = (
            f"\n`{opening}` opens a span, which the model goes on with; a span of this modality has {tokens}."
            if opening and not self.chat
            else ""
        )
        return f"""## In transformers

```python
{load}
{ask}
print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))
```
{note}
`generation_config.json` {self._chosen()}. transformers does not follow the grammar: check spans before you decode them.
"""

    def _chosen(self) -> str:
        """How transformers chooses tokens."""
        if self.defaults.get("do_sample"):
            return f"draws tokens at temperature {self.defaults['temperature']:g}"
        beams = self.defaults.get("num_beams", 1)
        return f"searches with {beams} beams" if beams > 1 else "is greedy"

    def _opening(self) -> tuple[str, str]:
        """Token string that opens a span of codes, and how many tokens the span has from there on."""
        for span in self.grammar["spans"].values():
            if isinstance(span["written"], list):
                least, most = (len(span["written"]) * span["frames"][end] + 1 for end in ("minimum", "maximum"))
                return span["begin_token"], f"{least} tokens" if least == most else f"{least} to {most} tokens"
        return "", ""

    def _own_use(self) -> str:
        return f"""## In mio

    mio import {self.name} --name {self.run}
    mio generate runs/{self.run} "Hello" --output {next((n for n in self.written if n != "text"), "text")}

Media in a prompt are written `{{MODALITY:FILE}}`; those of the answer are saved as files.
"""

    def _vllm(self) -> str:
        merged = " Adapters have to be folded in for it: `mio export --merge`." if self.adapter else ""
        return f"""## In vLLM

With the package of mio's `examples/vllm`, whose logits processor follows the grammar:

    MIO_GRAMMAR={self.name}/{self.grammar_file} vllm serve {self.name} --logits-processors mio_vllm.v2:SpanGrammar
    mio-vllm {self.name} "Hello"

Without it, vLLM serves the language model as it is.{merged}
"""

    def _figures(self) -> str:
        rows = [row for name, one in self.tasks.items() for row in _figure_rows(name, one)]
        if not rows:
            return ""
        head = ["| task | figure | value | 95 % interval | items |", "| --- | --- | --- | --- | --- |"]
        of = ["They are those of the average of the weights (`--average`).", ""] if self.averaged else []
        return "\n".join(["## Held-out figures", "", *of, *head, *rows, ""])


def _figure_rows(task: str, figures: Mapping[str, Any]) -> Iterator[str]:
    for name, (low, high) in figures.get("intervals", {}).items():
        interval = f"{low:.3f} to {high:.3f}"
        yield f"| `{task}` | {name} | {figures[name]:.3f} | {interval} | {figures.get('n', '')} |"


def _license_lines(license: str) -> list[str]:
    if _ONE.fullmatch(license):
        return [f"license: {license.lower()}"]
    return ["license: other", f"license_name: {license}"]


def _carriers(grammar: Mapping[str, Any], view: str) -> Iterator[tuple[str, str]]:
    yield "text", "text"
    for name, span in grammar["spans"].items():
        if isinstance(span[view], list):
            yield name, f"codes of {len(span[view])} codebook{'s' if span[view][1:] else ''}"
        elif span[view] is not None:
            yield name, f"by the plugin's {span[view]}"
    for name, one in grammar["sequences"].items():
        if view == "read" or one["written"]:
            parts = ", ".join(f"`{part}`" for part in one["of"])
            several = f"one span each of {parts}"
            yield name, several if one["of"][1:] else f"{one['minimum']} to {one['maximum']} spans of {parts}"

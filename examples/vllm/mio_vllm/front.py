"""`mio-vllm`: prompts with media for a model that vLLM serves, and answers whose media are files.

Media are encoded and decoded here, on the CPU, by mio's tokenizers, which lie in the export. This is the one module
that needs mio: vLLM runs in another environment, and is asked over HTTP.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mio import UserError
from mio.core.contract.controls import CONTROL
from mio.core.contract.plugins import PluginManager
from mio.core.contract.tasks import Answer
from mio.core.contract.values import TEXT, Decoding
from mio.core.generation.answer import decode_answer
from mio.core.generation.defaults import decoding_for
from mio.core.generation.prompt import parse_prompt
from mio.core.generation.sampling import check_decoding
from mio.core.runs.run import Run
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import plain_document
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.templates import CHAT
from mio_vllm.completions import Server, ServerError
from mio_vllm.grammar import Grammar, GrammarError

OWN, GRAMMAR = "mio", "grammar.json"
"""Of an export: the folder that only mio reads, and the grammar."""


class Front:
    """An export, as far as prompts and answers need it: its weights are not read."""

    def __init__(self, export: Path) -> None:
        """Raises `UserError` where the folder is no export, and `GrammarError` where its grammar is missing."""
        if not (export / OWN).is_dir():
            raise UserError(f"{export}: is no export of mio: it has no folder `{OWN}`")
        self.grammar = Grammar.load(export / GRAMMAR)
        self.run = Run(export / OWN, PluginManager.discover())

    def prompt(self, typed: str, output: str = "") -> list[int]:
        """Token ids of a prompt as a person types it, with `{MODALITY:FILE}` where media go. Raises `UserError` for
        media that cannot be read, or that a network inside of the model reads."""
        values = parse_prompt(typed, self.run.codecs.modalities)
        data = self.run.recipe.data
        if data.form == CHAT:
            turns: list[dict[str, Any]] = [{"role": "user", "content": values}, {"role": "assistant", "content": []}]
            document = chat_document(turns, data.system, output)
        else:
            document = plain_document(values, [])
        prompt = self.run.renderer.prompt(document)
        if prompt.items:
            name = prompt.items[0].modality
            raise UserError(f"prompt: `{name}` is read by an encoder of the model, which only mio has: `mio generate`")
        return [int(token) for token in prompt.tokens]

    def answer(self, tokens: Sequence[int], output: str = "") -> Answer:
        """What an answer's tokens say, its media decoded."""
        codecs = self.run.codecs
        return decode_answer(codecs, parse_tokens(self._said(tokens), self.run.vocabulary, codecs.text).parts, output)

    def _said(self, tokens: Sequence[int]) -> Sequence[int]:
        """Without the token that ends an answer."""
        return tokens[:-1] if tokens and tokens[-1] in self._silent_ends else tokens

    @cached_property
    def _silent_ends(self) -> set[int]:
        """Tokens that end an answer and say nothing themselves, as control tokens do."""
        said = {index for control in self.grammar.controls.values() for index in control.ids}
        return set(self.grammar.ends) - said

    def save(self, answer: Answer, folder: Path) -> list[dict[str, Any]]:
        """Writes the media of an answer under the next free numbers. Returns parts as `mio generate --json` does."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for name, content in answer.parts:
            if name == TEXT:
                parts.append({"type": TEXT, "text": content})
            elif name == CONTROL:
                parts.append({"type": CONTROL, "name": content})
            else:
                path = self.run.codecs.saver(name).save(content, _free(folder, name))
                parts.append({"type": name, "path": str(path)})
        return parts


OPTIONS = ("max_tokens", "most", "temperature", "media_temperature", "top_k", "top_p")
"""What the command line may say of decoding; all else is the recipe's."""
UNHEARD = ("beams", "guidance", "steps")
"""What vLLM and the processor know nothing of."""


def request(decoding: Decoding, output: str, parts: str, seed: int, room: int) -> dict[str, Any]:
    """Keys of a request to vLLM.

    Where all is greedy the request is; otherwise its own temperature is 1, and those of text and media stand beside it.

    Args:
        output: modality of the answer, whose spans are those of `parts` where it has parts.
        room: tokens that the context has behind the prompt.
    """
    own = {name: decoding.by.get(name) or {} for name in (TEXT, parts or output)}
    text = own[TEXT].get("temperature", decoding.temperature)
    media = own[parts or output].get("temperature", decoding.media_temperature) if output != TEXT else 0.0
    greedy = not (text or media)
    asked = {"mio_output": output, "mio_most": decoding.most}
    temperatures = {} if greedy else {"mio_temperature": text, "mio_media_temperature": media}
    return {
        "max_tokens": max(1, min(decoding.max_tokens, room)),
        "temperature": 0.0 if greedy else 1.0,
        "top_k": decoding.top_k,
        "top_p": decoding.top_p,
        "min_p": decoding.min_p,
        "repetition_penalty": decoding.repetition_penalty,
        "stop": list(decoding.stop),
        "seed": seed,
        "skip_special_tokens": False,
        "vllm_xargs": {key: value for key, value in asked.items() if value} | temperatures,
    }


def notes(decoding: Decoding) -> Iterator[str]:
    """What of a decoding is left out."""
    default = Decoding()
    for name in UNHEARD:
        if getattr(decoding, name) != getattr(default, name):
            yield f"`{name}` of the recipe is left out: only mio knows it"
    if any(set(keys) - {"temperature"} for keys in decoding.by.values()):
        yield "`by` of the recipe is taken for temperatures alone: vLLM has one setting of the rest"


def _free(folder: Path, name: str) -> Path:
    """A path without suffix that no file has yet."""
    number = 0
    while list(folder.glob(f"{name}-{number}.*")):
        number += 1
    return folder / f"{name}-{number}"


def ask(front: Front, server: Server, typed: str, output: str, decoding: Decoding, seed: int) -> tuple[Answer, str]:
    """The answer to a prompt, and what a person should know about it. Raises `UserError`, `GrammarError` and
    `ServerError`."""
    need = front.grammar.need(output, True, decoding.most)
    tokens = front.prompt(typed, output)
    model, context = server.model()
    least, room = front.grammar.least(need), context - len(tokens)
    if room < least:
        raise UserError(
            f"the prompt has {len(tokens)} tokens and the shortest answer {least}; the server takes {context} in all"
        )
    parts = front.run.codecs.modalities[output].parts if output else ""
    found = server.complete(model, tokens, request(decoding, output, parts, seed, room))
    notice = f"the answer ends after {len(found.tokens)} tokens" if found.reason == "length" else ""
    return front.answer(found.tokens, output), notice


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="mio-vllm", description="A prompt with media, answered by a server of vLLM.")
    parser.add_argument("export", type=Path, help="folder that `mio export` wrote")
    parser.add_argument("prompt", help="text, with {MODALITY:FILE} where media go")
    parser.add_argument("--output", default="", help="modality of the answer; default: any")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for media of the answer")
    parser.add_argument("--json", action="store_true", help="print the answer's parts as JSON")
    parser.add_argument("--seed", type=int, default=0)
    for name in OPTIONS:
        kind = type(getattr(Decoding(), name))
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="default: the recipe's")
    given = parser.parse_args(arguments)
    said = {name: getattr(given, name) for name in OPTIONS if getattr(given, name) is not None}
    try:
        front = Front(given.export)
        decoding = decoding_for(front.run.recipe, given.output, **said)
        check_decoding(decoding, given.seed)
        for note in notes(decoding):
            print(note, file=sys.stderr)
        answer, notice = ask(front, Server.at(given.url), given.prompt, given.output, decoding, given.seed)
        parts = front.save(answer, given.out)
    except (UserError, GrammarError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if notice:
        print(notice, file=sys.stderr)
    if given.json:
        print(json.dumps({"parts": parts}, ensure_ascii=False))
    else:
        print("\n".join(str(part.get("text", part.get("path", f"<{part.get('name')}>"))) for part in parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

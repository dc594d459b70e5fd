"""A backbone's own text tokenizer, read from its Hugging Face files.

Two things change on reading, so that pieces of text add up: no space is added before a text or stripped from its ends
(SentencePiece's dummy prefix and trimming, which would act between any two pieces), and tokens with ids from `size` on
are dropped (codes of other modalities in an extended checkpoint, which their own plugins declare).
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mio import DataError, UserError
from mio.plugins.text.plain_text import text_only

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

_CONFIGURATIONS = ("special_tokens_map.json", "tokenizer_config.json")
CHAT_TOKENS = {"im_start": "<|im_start|>", "im_end": "<|im_end|>"}
_MOST = 1 << 26
"""Upper bound of ids."""
_USUAL = {
    "bos": ("<|startoftext|>", "<s>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("<|endoftext|>", "</s>", "<|end_of_text|>"),
    "pad": ("<pad>", "<unk>"),
}
"""Token strings to try in order if the tokenizer's configuration names none."""


class Definition(NamedTuple):
    """A tokenizer's files, taken apart."""

    content: dict[str, Any]
    """`tokenizer.json` with the changes made."""
    size: int
    specials: dict[str, int]
    """Ids of `pad`, `bos`, `eos` and, where the tokenizer has them, `im_start` and `im_end`."""


class PretrainedTokenizer:
    """`mio.TextTokenizer` of a Hugging Face fast tokenizer.

    Raises UserError when the files are missing, are not a tokenizer, or name no end-of-text token.
    """

    def __init__(self, path: str, size: int = 0) -> None:
        definition = read_definition(path, size)
        self._path = path
        self._content = definition.content
        self.size = definition.size
        self.specials = definition.specials
        meaning = {key: definition.content.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        meaning |= {"size": self.size, "specials": self.specials}
        self.fingerprint = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
        self._tokenizer = _opened(path, definition.content)
        for token in definition.content["added_tokens"]:
            # the library renumbers them after a gap
            if self._tokenizer.token_to_id(token["content"]) != token["id"]:
                raise UserError(
                    f"plugins.text.tokenizer: {path}: its ids have a gap before {token['id']} ({token['content']}); "
                    "a `size` that leaves out what comes after the gap may help"
                )
        special = [token["content"] for token in definition.content["added_tokens"] if token["special"]]
        special += [self.token(index) for index in self.specials.values()]
        self._encoder = _opened(path, text_only(definition.content, dict.fromkeys(special)))
        self._encoder.encode_special_tokens = True
        unknown = _unknown(definition.content["model"])
        reserved = {index for name, index in self.specials.items() if name != "pad"}
        self._forbidden = unknown if unknown in reserved else None

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no space is added before it. A special token's string inside it is plain text.

        Raises DataError for a text that the tokenizer has no tokens for.
        """
        try:
            ids = self._encoder.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"plugins.text.tokenizer: {self._path} cannot encode {text!r:.60}: {error}") from error
        if self._forbidden is not None and self._forbidden in ids:
            raise DataError(
                f"plugins.text.tokenizer: {self._path} has no token for a part of {text!r:.60}, and what it has for "
                f"unknown text, {self.token(self._forbidden)}, ends or begins a text"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def definition(self) -> dict[str, Any]:
        """Its `tokenizer.json` with the changes made on reading."""
        return copy.deepcopy(self._content)

    def token(self, index: int) -> str:
        """Token string; unused ids get `<unused_ID>`."""
        return str(self._tokenizer.id_to_token(index) or f"<unused_{index}>")


def missing_chat_tokens(path: str, size: int = 0) -> tuple[str, ...]:
    """Tokens of ChatML that the tokenizer lacks, to be declared as special tokens of the vocabulary."""
    known = read_definition(path, size).specials
    return tuple(token for name, token in CHAT_TOKENS.items() if name not in known)


def read_definition(path: str, size: int = 0) -> Definition:
    """Reads the folder of a tokenizer, or its `tokenizer.json`. Raises UserError when that does not work."""
    file = Path(path).expanduser()
    if file.is_dir():
        file /= "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"plugins.text.tokenizer: there is no {file}; give `bpe`, `bytes`, or a folder with the tokenizer.json "
            "of a fast tokenizer (transformers writes it: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER))"
        )
    beside = [file, *(file.with_name(name) for name in _CONFIGURATIONS)]
    changed = tuple(each.stat().st_mtime_ns for each in beside if each.is_file())
    return _read_definition(file.resolve(), size, changed)


@lru_cache(maxsize=4)
def _read_definition(file: Path, size: int, changed: tuple[int, ...]) -> Definition:
    del changed  # other files are read anew
    content = _read_json(file)
    ids, added = _tokens(file, content)
    own = max(ids.values()) + 1
    size = size or max([own, *(token["id"] + 1 for token in added)])
    if size < own:
        raise UserError(
            f"plugins.text.size: {size} cuts into the {own} tokens of {file}; it may only drop added tokens"
        )
    added = [token for token in added if token["id"] < size]
    ids = ids | {token["content"]: token["id"] for token in added}
    specials = _find_specials(file.parent, ids)
    if "eos" not in specials:
        raise UserError(f"plugins.text.tokenizer: {file.parent} names no eos_token in its tokenizer_config.json")
    reserved = set(specials.values())
    content["added_tokens"] = [
        token | {"special": bool(token.get("special")) or token["id"] in reserved} for token in added
    ]
    content |= {"post_processor": None, "truncation": None, "padding": None}
    for section in ("normalizer", "pre_tokenizer", "decoder"):
        content[section] = _piecewise(content.get(section))
    content["decoder"] = _with_letters(content["decoder"], content["added_tokens"])
    return Definition(content, size, specials)


def _tokens(file: Path, content: dict[str, Any]) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Ids of the model's own tokens, and the added ones. Raises UserError for anything but a string with a number."""
    model, added = content.get("model"), content.get("added_tokens") or []
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list) and all(isinstance(entry, list) and entry for entry in vocab):
        pairs = [(entry[0], index) for index, entry in enumerate(vocab)]
    elif isinstance(vocab, dict):
        pairs = list(vocab.items())
    else:
        raise UserError(f"plugins.text.tokenizer: {file} is not a tokenizer of the library `tokenizers`")
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise UserError(f"plugins.text.tokenizer: {file}: `added_tokens` is not a list of tokens")
    if not pairs:
        raise UserError(f"plugins.text.tokenizer: {file}: its vocabulary is empty")
    for string, index in [*pairs, *((token.get("content"), token.get("id")) for token in added)]:
        if not isinstance(string, str) or not isinstance(index, int) or not 0 <= index < _MOST:
            raise UserError(
                f"plugins.text.tokenizer: {file}: the token {string!r:.40} has the id {index!r:.40}; tokens are "
                f"strings, ids numbers from 0 to {_MOST}"
            )
    return dict(pairs), added


def _opened(path: str, content: dict[str, Any]) -> HuggingFaceTokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(content))
    except BaseException as error:  # plain Exception, or a panic of the library, a BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"plugins.text.tokenizer: {path}: the library `tokenizers` cannot read it: {reason}") from error


def _unknown(model: dict[str, Any]) -> int | None:
    """Id of the unknown token."""
    vocab = model["vocab"]
    index = vocab.get(model.get("unk_token")) if isinstance(vocab, dict) else model.get("unk_id")
    return index if isinstance(index, int) else None


def _find_specials(folder: Path, ids: dict[str, int]) -> dict[str, int]:
    named: dict[str, str] = {}
    for file in _CONFIGURATIONS:
        if (folder / file).is_file():
            for key, value in _read_json(folder / file).items():
                token = value.get("content") if isinstance(value, dict) else value
                if key.endswith("_token") and isinstance(token, str):
                    named[key.removesuffix("_token")] = token
    if "pad" not in named and "unk" in named:
        named["pad"] = named["unk"]
    specials = {}
    for name, usual in _USUAL.items():
        token = next((token for token in (named.get(name), *usual) if token in ids), None)
        if token is not None:
            specials[name] = ids[token]
    if "eos" in specials:  # as GPT-2 does it: the end of one text is the beginning of the next
        specials = {"bos": specials["eos"], "pad": specials["eos"]} | specials
    return specials | {name: ids[token] for name, token in CHAT_TOKENS.items() if token in ids}


def _piecewise(section: Any) -> Any:
    """A normalizer, pre-tokenizer or decoder without the steps that add or strip spaces at the ends of a text."""
    if not isinstance(section, dict):
        return section
    section = dict(section)
    kind = section.get("type")
    if kind == "Prepend" or (kind == "Strip" and section.get("start") and section.get("content") == " "):
        return None
    if kind == "Replace" and str(section.get("pattern", {}).get("Regex", "")).endswith(r"\z"):
        return None
    if kind == "Metaspace":
        section["prepend_scheme"] = "never"
        section.pop("add_prefix_space", None)
    elif kind == "ByteLevel":
        section["add_prefix_space"] = False
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in section:
            section[key] = [step for step in map(_piecewise, section[key]) if step is not None]
    return section


def _with_letters(decoder: Any, added: list[dict[str, Any]]) -> Any:
    """A byte-level decoder that keeps added tokens with letters beyond ASCII, which it would take for bytes."""
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        return decoder
    letters = {byte: chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))}
    letters |= {byte: chr(256 + place) for place, byte in enumerate(b for b in range(256) if b not in letters)}
    alphabet = set(letters.values())
    steps = [
        {
            "type": "Replace",
            "pattern": {"Regex": rf"\A{re.escape(token['content'])}\z"},
            "content": "".join(letters[byte] for byte in token["content"].encode()),
        }
        # the result of a step is longer, and may equal another token, whose step must come first
        for token in sorted(added, key=lambda token: -len(token["content"]))
        if not token["content"].isascii() and alphabet.issuperset(token["content"])
    ]
    return {"type": "Sequence", "decoders": [*steps, decoder]} if steps else decoder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"plugins.text.tokenizer: cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"plugins.text.tokenizer: {path} is not a mapping")
    return content

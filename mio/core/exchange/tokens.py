"""The token strings of a model's folder and their ids, from whichever tokenizer files it has."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.core.errors import DataError, UserError, nearest
from mio.core.exchange.huggingface_keys import LARGEST
from mio.core.exchange.model_files import AGAIN
from mio.core.exchange.sentencepiece import added_token, read_sentencepiece
from mio.core.files import read_json, write_json, write_text

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
ADDED = "added_tokens.json"
CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"


@dataclass(frozen=True)
class FolderTokens:
    """Token strings of a folder, and the definition of its text tokenizer."""

    folder: Path
    definition: dict[str, Any]
    """Content of `tokenizer.json`, converted from `tokenizer.model` if there is no other, with the tokens that other
    files add."""
    ids: dict[str, int]
    strings: dict[int, str]
    added: frozenset[str]
    """Tokens outside the text tokenizer's own model."""

    @classmethod
    def read(cls, folder: Path) -> FolderTokens:
        """Raises `UserError` when there is no tokenizer, `DataError` when one string has two ids or one id two strings.

        The files are `tokenizer.json` or else `tokenizer.model`, with what `added_tokens.json` and
        `tokenizer_config.json` add: slow tokenizers, which MIO and AnyGPT were trained with, keep added tokens there.
        """
        if (folder / TOKENIZER).is_file():
            origin, definition = folder / TOKENIZER, read_json(folder / TOKENIZER, AGAIN)
        elif (folder / SENTENCEPIECE).is_file():
            origin, definition = folder / SENTENCEPIECE, read_sentencepiece(folder / SENTENCEPIECE).definition()
        else:
            raise UserError(
                f"{folder}: holds neither {TOKENIZER} nor {SENTENCEPIECE}; transformers writes the first: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
            )
        own = _own_ids(origin, definition)
        entries = _added(origin, definition.get("added_tokens") or [])
        later = list(_later_files(folder))
        ids = dict(own)
        strings = {index: string for string, index in own.items()}
        known = [(origin, entry) for entry in entries]
        for file, entry in [*known, *later]:
            string, index = entry["content"], entry["id"]
            if ids.setdefault(string, index) != index:
                raise DataError(f"{file}: the token {string!r} has the id {index}, elsewhere it has {ids[string]}")
            if strings.setdefault(index, string) != string:
                raise DataError(f"{file}: {string!r} and {strings[index]!r} both have the id {index}")
        present = {entry["id"] for entry in entries}
        new = {entry["id"]: entry for _, entry in reversed(later) if entry["id"] not in present}
        entries = sorted([*entries, *new.values()], key=lambda entry: int(entry["id"]))
        return cls(folder, definition | {"added_tokens": entries}, ids, strings, frozenset(ids.keys() - own.keys()))

    def near(self, string: str) -> str:
        """`; it has X` for an added token that looks like `string`; empty without one."""
        plain = _visible(string)
        for other in self.added:
            if _visible(other) == plain:
                return f"; it has {other!a}, which looks the same and differs in invisible characters"
        return nearest(string, self.added).replace("did you mean", "it has").replace("?", "")

    def write_text(self, folder: Path, size: int) -> None:
        """Writes the files of the text tokenizer of the first `size` ids."""
        folder.mkdir(parents=True)
        text = [entry for entry in self.definition["added_tokens"] if entry["id"] < size]
        write_text(folder / TOKENIZER, json.dumps(self.definition | {"added_tokens": text}, ensure_ascii=False))
        named: dict[str, Any] = {}
        for file in (SPECIALS, CONFIG):
            if (self.folder / file).is_file():
                for key, value in read_json(self.folder / file, AGAIN).items():
                    token = value.get("content") if isinstance(value, dict) else value
                    if key.endswith("_token") and isinstance(token, str):
                        named[key] = token
        write_json(folder / CONFIG, named)


def _own_ids(origin: Path, definition: dict[str, Any]) -> dict[str, int]:
    """Ids by token string of the text tokenizer's own model."""
    model = definition.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        own = vocab
        for string, index in own.items():
            _check_id(origin, string, index)
    elif isinstance(vocab, list) and all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in vocab):
        own = {entry[0]: index for index, entry in enumerate(vocab)}
        for string, score in vocab:
            if isinstance(score, bool) or not isinstance(score, int | float):
                raise DataError(f"{origin}: the token {string!r} has the score {score!r:.40}, which is not a number")
        if len(own) < len(vocab):
            raise DataError(f"{origin}: {_twice([entry[0] for entry in vocab])!r} occurs twice among its tokens")
    else:
        raise DataError(
            f"{origin}: is not a tokenizer of the library `tokenizers`: `model.vocab` holds no tokens by id"
        )
    if not own:
        raise DataError(f"{origin}: its vocabulary is empty; {AGAIN}")
    if len(set(own.values())) < len(own):
        twice = _twice(list(own.values()))
        both = [string for string, index in own.items() if index == twice]
        raise DataError(f"{origin}: {both[0]!r} and {both[1]!r} both have the id {twice}")
    return own


def _twice(items: list[Any]) -> Any:
    return next(item for item, count in Counter(items).items() if count > 1)


def _added(origin: Path, entries: Any) -> list[dict[str, Any]]:
    """Entries of `added_tokens`, checked."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"{origin}: is not a tokenizer of the library `tokenizers`: `added_tokens` is not a list of tokens"
        )
    for entry in entries:
        _check_id(origin, entry.get("content"), entry.get("id"))
    return entries


def _check_id(file: Path, string: Any, index: Any) -> None:
    if not isinstance(string, str) or not string:
        raise DataError(f"{file}: a token is {string!r:.40}, not a string of characters")
    if not isinstance(index, int) or isinstance(index, bool):
        raise DataError(f"{file}: the token {string!r:.40} has the id {index!r:.40}, which is not a number")
    if not 0 <= index < LARGEST["vocab_size"]:
        raise DataError(f"{file}: the token {string!r:.40} has the id {index}, not from 0 to {LARGEST['vocab_size']}")


def _later_files(folder: Path) -> Iterable[tuple[Path, dict[str, Any]]]:
    """Added tokens of the other files, as entries of `added_tokens`; those with flags come last."""
    path = folder / ADDED
    if path.is_file():
        for string, index in read_json(path, AGAIN).items():
            _check_id(path, string, index)
            yield path, added_token(index, string, special=False)
    path = folder / CONFIG
    decoder = read_json(path, AGAIN).get("added_tokens_decoder") if path.is_file() else None
    if decoder is None:
        return
    if not isinstance(decoder, dict) or not all(isinstance(entry, dict) for entry in decoder.values()):
        raise DataError(f"{path}: `added_tokens_decoder` is damaged: it holds no tokens by id")
    for number, entry in decoder.items():
        index = int(number) if number.isdecimal() and len(number) < 12 else number
        _check_id(path, entry.get("content"), index)
        yield path, added_token(int(index), entry["content"], special=bool(entry.get("special")))


def _visible(string: str) -> str:
    """The string without variation selectors and joiners, which editors and shells add or drop."""
    return re.sub("[\ufe00-\ufe0f\u200b-\u200d\u2060]", "", string)

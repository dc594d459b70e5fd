"""The token strings of a model's folder: which id each has, from whichever tokenizer files there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.core.errors import DataError, UserError
from mio.core.exchange.json_files import read_json, write_json
from mio.core.exchange.sentencepiece import added_token, read_sentencepiece
from mio.core.suggest import nearest

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
    """Content of `tokenizer.json`, made of `tokenizer.model` where that is all there is; tokens added in other files
    included."""
    ids: dict[str, int]
    strings: dict[int, str]
    added: frozenset[str]
    """Tokens that are no part of the text tokenizer's own model."""

    @classmethod
    def read(cls, folder: Path) -> FolderTokens:
        """Raises `UserError` when there is no tokenizer, `DataError` when one string has two ids or one id two strings.

        The files are `tokenizer.json` or else `tokenizer.model`, with what `added_tokens.json` and
        `tokenizer_config.json` add: slow tokenizers, which MIO and AnyGPT were trained with, keep added tokens there.
        """
        if (folder / TOKENIZER).is_file():
            origin, definition = folder / TOKENIZER, read_json(folder / TOKENIZER)
        elif (folder / SENTENCEPIECE).is_file():
            origin, definition = folder / SENTENCEPIECE, read_sentencepiece(folder / SENTENCEPIECE).definition()
        else:
            raise UserError(
                f"{folder}: holds neither {TOKENIZER} nor {SENTENCEPIECE}; transformers writes the first: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
            )
        try:
            vocab = definition["model"]["vocab"]
            own = dict(vocab) if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
            entries = list(definition.get("added_tokens") or [])
            known = [(origin, entry["content"], entry["id"]) for entry in entries]
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{origin}: is no tokenizer of the library `tokenizers` ({error!r})") from error
        later = list(_later_files(folder))
        ids = dict(own)
        strings = {index: string for string, index in own.items()}
        for file, string, index in [*known, *((file, entry["content"], entry["id"]) for file, entry in later)]:
            if ids.setdefault(string, index) != index:
                raise DataError(f"{file}: the token {string!r} has the id {index}, elsewhere it has {ids[string]}")
            if strings.setdefault(index, string) != string:
                raise DataError(f"{file}: {string!r} and {strings[index]!r} both have the id {index}")
        present = {entry["id"] for entry in entries}
        new = {entry["id"]: entry for _, entry in reversed(later) if entry["id"] not in present}
        entries = sorted([*entries, *new.values()], key=lambda entry: int(entry["id"]))
        return cls(folder, definition | {"added_tokens": entries}, ids, strings, frozenset(ids.keys() - own.keys()))

    def near(self, string: str) -> str:
        """`; it has X` for an added token that looks like `string`, or nothing."""
        plain = _visible(string)
        for other in self.added:
            if _visible(other) == plain:
                return f"; it has {other!a}, which looks the same and differs in characters that are not seen"
        return nearest(string, self.added).replace("did you mean", "it has").replace("?", "")

    def write_text(self, folder: Path, size: int) -> None:
        """Writes the files of the text tokenizer of the first `size` ids."""
        folder.mkdir(parents=True)
        text = [entry for entry in self.definition["added_tokens"] if entry["id"] < size]
        (folder / TOKENIZER).write_text(
            json.dumps(self.definition | {"added_tokens": text}, ensure_ascii=False), encoding="utf-8"
        )
        named: dict[str, Any] = {}
        for file in (SPECIALS, CONFIG):
            if (self.folder / file).is_file():
                for key, value in read_json(self.folder / file).items():
                    token = value.get("content") if isinstance(value, dict) else value
                    if key.endswith("_token") and isinstance(token, str):
                        named[key] = token
        write_json(folder / CONFIG, named)


def _later_files(folder: Path) -> Iterable[tuple[Path, dict[str, Any]]]:
    """Added tokens of the other files, as entries of `added_tokens`; those with flags come last."""
    path = folder / ADDED
    if path.is_file():
        for string, index in read_json(path).items():
            if not isinstance(index, int):
                raise DataError(f"{path}: the token {string!r} has the id {index!r}, which is no number")
            yield path, added_token(index, string, special=False)
    path = folder / CONFIG
    decoder = read_json(path).get("added_tokens_decoder") if path.is_file() else None
    if decoder is None:
        return
    try:
        for index, entry in decoder.items():
            yield path, added_token(int(index), str(entry["content"]), special=bool(entry.get("special")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: `added_tokens_decoder` is damaged: {error!r}") from error


def _visible(string: str) -> str:
    """Without variation selectors and joiners, which editors and shells add or lose."""
    return re.sub("[\ufe00-\ufe0f\u200b-\u200d\u2060]", "", string)

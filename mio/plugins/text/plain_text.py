"""The definition of a tokenizer (`tokenizer.json`) changed so that a text never becomes a special token.

Many models' vocabularies hold their special tokens: unigrams and whole words match `</s>` in a text like any other
token, and so do merges that produce one. Here every special token gets a name that no text holds, under the same id;
its string in a text is encoded like any text without a token.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import Any

_BYTE = r"<(?=0x[0-9A-Fa-f]{2}>)"
"""Splits the names of byte tokens, so that no text matches them."""
_IS_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def text_only(content: dict[str, Any], specials: Collection[str]) -> dict[str, Any]:
    """`content` of a `tokenizer.json` in which no text matches the token strings `specials`."""
    secret = secrets.token_hex(16)
    names = {special: f"<{secret} {number}>" for number, special in enumerate(specials)}
    added = [token | {"content": names.get(token["content"], token["content"])} for token in content["added_tokens"]]
    model = _renamed(content["model"], names)
    changed = content | {"added_tokens": added, "model": model}
    if model.get("byte_fallback") and (model["type"] == "Unigram" or model.get("ignore_merges")):
        cut = {"type": "Split", "pattern": {"Regex": _BYTE}, "behavior": "Isolated", "invert": False}
        before = content.get("pre_tokenizer")
        changed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, *([before] if before else [])]}
    return changed


def _renamed(model: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    vocab = model["vocab"]
    if isinstance(vocab, list):
        return model | {"vocab": [[names.get(string, string), score] for string, score in vocab]}
    model = model | {"vocab": {names.get(string, string): index for string, index in vocab.items()}}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        bytewise = bool(model.get("byte_fallback"))
        model["merges"] = [merge for merge in model["merges"] if not _reserved(merge, names, bytewise)]
    return model


def _reserved(merge: Any, names: dict[str, str], bytewise: bool) -> bool:
    """Whether a merge produces a special token, produces a byte token from its name, or continues one."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    parts = (left, right, left + right)
    return any(part in names or (bytewise and _IS_BYTE.fullmatch(part) is not None) for part in parts)

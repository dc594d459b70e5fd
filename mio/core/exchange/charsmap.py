"""Normalisation rules of a SentencePiece model, as normalizers of the library `tokenizers`.

The rules are a double array (https://github.com/s-yata/darts-clone) of UTF-8 strings; sentencepiece applies the longest
that matches. The library's `Precompiled` reads the same bytes, but looks up single graphemes or characters: it may drop
the mark of a letter, and never matches anything longer. Rules derived from Unicode's normal forms (`nmt_nfkc` and the
like) map single characters, and letters followed by the marks of their canonical decomposition. So separators keep
characters apart while `Precompiled` maps them. Unicode's composition then joins the letters and marks that a rule
joins, and separators keep it from joining others.
"""

from __future__ import annotations

import base64
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

_COMPOSED = {"か\u3099": "が", "e\u0301": "é"}
"""Rules that every set derived from Unicode's normal forms has."""
_INSIDE, _BETWEEN = "\U0010fffe", "\U0010ffff"
"""Stand between characters that a rule joins, and between others."""
_MARK = r"[\p{M}\x{200c}\x{200d}\x{ff9e}\x{ff9f}\x{1f3fb}-\x{1f3ff}\x{e33}\x{eb3}]"
"""Characters that continue a grapheme."""
_LEADING = r"[\x{1100}-\x{1112}\x{3131}-\x{314e}\x{ffa1}-\x{ffbe}]"
_VOWEL = r"[\x{1161}-\x{1175}\x{314f}-\x{3163}\x{ffc2}-\x{ffdc}]"
_TRAILING = r"[\x{11a8}-\x{11c2}]"
_SYLLABLE = r"[\x{ac00}-\x{d7a3}]"
"""Hangul: rules join letters into a syllable, and nothing with an existing syllable."""
_MOST_RULES = 1000
_LARGEST = 1 << 16
"""Bytes of custom rules; rules derived from Unicode's forms have more."""


def rule_normalizers(charsmap: bytes) -> Iterator[dict[str, Any]]:
    """Normalizers that apply the rules; none for the identity."""
    if not charsmap:
        return
    precompiled = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    if not _composing(charsmap):
        for key in sorted(_long_rules(charsmap), key=len, reverse=True):
            yield {"type": "Replace", "pattern": {"String": key}, "content": _looked_up(charsmap, key)}
        yield precompiled
        return
    for pattern in (*_joins(charsmap), rf"{_LEADING}\K(?={_VOWEL})", rf"{_INSIDE}{_VOWEL}\K(?={_TRAILING})"):
        yield _inserting(pattern, _INSIDE)
    yield _inserting(rf"(?<=[^{_INSIDE}])(?={_MARK})|{_SYLLABLE}\K(?={_TRAILING})|\r\K(?=\n)", _BETWEEN)
    yield precompiled
    yield {"type": "Replace", "pattern": {"String": _INSIDE}, "content": ""}
    yield {"type": "NFC"}
    yield {"type": "Replace", "pattern": {"String": _BETWEEN}, "content": ""}


def _inserting(pattern: str, separator: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": separator}


@lru_cache(maxsize=2)
def _joins(charsmap: bytes) -> tuple[str, ...]:
    """Patterns of the places before the first, second and third mark of letters that rules join with their marks."""
    alike: dict[str, list[str]] = defaultdict(list)
    composed: list[str] = []
    for character in map(chr, range(sys.maxunicode + 1)):
        decomposed = unicodedata.normalize("NFD", character)
        if len(decomposed) > 1 and unicodedata.normalize("NFC", character) == character:
            composed.append(decomposed)
        if unicodedata.normalize("NFKC", character).casefold() != character:
            alike[_looked_up(charsmap, character) or ""].append(character)
    places: list[dict[str, set[str]]] = [defaultdict(set), defaultdict(set), defaultdict(set)]
    for decomposed in composed:
        letter, marks = decomposed[0], decomposed[1:]
        if not all(unicodedata.category(mark).startswith("M") for mark in marks):
            continue  # Hangul
        before = [_any_of([mark, *alike[mark]]) for mark in marks]
        for place in range(min(len(marks), len(places))):
            follows = f"{_INSIDE}".join(["", *before[:place]]) + rf"\K(?={before[place]})"
            places[place][follows].update([letter, *alike[letter]])
    ahead = rf"(?=[\s\S]{_INSIDE}?{_MARK})"
    return tuple(
        ahead + "(?:" + "|".join(f"{_any_of(letters)}{follows}" for follows, letters in sorted(place.items())) + ")"
        for place in places
        if place
    )


def _any_of(characters: Iterable[str]) -> str:
    """A class of a regular expression."""
    ranges: list[list[int]] = []
    for code in sorted(set(map(ord, characters))):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{a:x}}}" + (rf"-\x{{{b:x}}}" if b > a else "") for a, b in ranges) + "]"


def rule_problem(charsmap: bytes) -> str:
    """Why the rules cannot be applied; empty if they can."""
    try:
        if not charsmap or _composing(charsmap):
            return ""
        rules = _long_rules(charsmap)
    except (IndexError, ValueError):
        return "the normalisation rules of this SentencePiece model are damaged; copy it again"
    if len(rules) > _MOST_RULES:
        return f"this SentencePiece model has {len(rules)} normalisation rules of its own, more than {_MOST_RULES}"
    for key in rules:
        value = _looked_up(charsmap, key) or ""
        if any(_looked_up(charsmap, letter) not in (None, letter) for letter in value):
            return f"the normalisation rule {key!r} -> {value!r} has a result that another rule changes; not supported"
    return ""


def _composing(charsmap: bytes) -> bool:
    return len(charsmap) > _LARGEST and all(_looked_up(charsmap, key) == value for key, value in _COMPOSED.items())


def _long_rules(charsmap: bytes) -> list[str]:
    """The strings of several characters that rules replace."""
    units, _ = _parts(charsmap)
    keys: list[str] = []
    nodes = [(_child(units, 0), b"")]
    while nodes:
        node, key = nodes.pop()
        for letter in range(1, 256):
            at = node ^ letter
            if at < len(units) and units[at] & 0x800000FF == letter:
                longer = key + bytes([letter])
                if units[at] >> 8 & 1:
                    keys.append(longer.decode())
                nodes.append((_child(units, at), longer))
    return [key for key in keys if len(key) > 1]


def _looked_up(charsmap: bytes, key: str) -> str | None:
    """The result of the rule for exactly this text; None without such a rule."""
    units, strings = _parts(charsmap)
    node, leaf = _child(units, 0), False
    for letter in key.encode():
        at = node ^ letter
        if units[at] & 0x800000FF != letter:
            return None
        leaf = bool(units[at] >> 8 & 1)
        node = _child(units, at)
    if not leaf:
        return None
    start = units[node] & 0x7FFFFFFF
    return strings[start : strings.index(b"\0", start)].decode()


def _parts(charsmap: bytes) -> tuple[memoryview, bytes]:
    """Units of the double array, and the strings that its values point into."""
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 0 < size <= len(charsmap) - 4:
        raise ValueError("the double array is cut off")
    return memoryview(charsmap)[4 : 4 + size].cast("I"), charsmap[4 + size :]


def _child(units: memoryview, at: int) -> int:
    unit = units[at]
    return at ^ (unit >> 10 << ((unit & 0x200) >> 6))

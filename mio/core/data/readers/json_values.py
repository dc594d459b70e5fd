"""JSON of records, and what its values are called. Free of torch."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from typing import Any

from mio.core.errors import DataError
from mio.core.files import unique_keys

_DIGITS = 4000
"""Digits up to which whole numbers become numbers: Python makes none of more than 4,300."""
_NAMES = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "list",
    tuple: "list",
    dict: "object",
    bytes: "bytes",
    datetime.datetime: "date",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "duration",
    decimal.Decimal: "number",
    type(None): "null",
}


def parse_json(content: bytes | str, where: str) -> Any:
    """The value that JSON text holds; numbers that are too long for Python stay text.

    Raises `DataError`, naming `where`, for text that is no JSON or no UTF-8, and for an object with a key twice.
    """
    try:
        text = content.decode(json.detect_encoding(content)) if isinstance(content, bytes) else content
        return json.loads(text, object_pairs_hook=unique_keys, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON: no {error.encoding} ({error.reason} at byte {error.start})"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None


def parse_object(content: bytes | str, where: str) -> dict[str, Any]:
    """The record that JSON text holds. Raises `DataError` as `parse_json` does, and for what is no object."""
    value = parse_json(content, where)
    if not isinstance(value, dict):
        raise DataError(f"{where}: a record is a JSON object, this is {a_json_type(value)}")
    return value


def json_type(value: Any) -> str:
    """What JSON calls a value, or the nearest word for what it does not have."""
    for known in type(value).__mro__:
        if known in _NAMES:
            return _NAMES[known]
    return type(value).__name__


def text_of(value: Any, where: str) -> str:
    """A value as text: strings as they are, numbers and truth values as JSON writes them.

    Raises `DataError` for what is no text, for a number that is none (NaN, infinities), and for half a surrogate pair.
    """
    if isinstance(value, str):
        if not value.isascii():
            check_text(value, where)
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(
            f"{where} is {json.dumps(value)}, which is no number that can be learnt; give a number, or null"
        )
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, decimal.Decimal) and value.is_finite():
        return str(value)
    raise DataError(f"{where} must be text, this is {a_json_type(value)}")


def check_text(text: str, where: str) -> None:
    """Raises `DataError` for text that no file can hold: with half a surrogate pair, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise DataError(
            f"{where} holds half a surrogate pair ({half} at character {error.start}); write it anew"
        ) from None


def a_json_type(value: Any) -> str:
    """`json_type` as a sentence has it: `a date`, `bytes`, `null`."""
    noun = json_type(value)
    return noun if noun in ("bytes", "null") else f"a {noun}"


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits

"""Numbers as people read them."""

from __future__ import annotations

import math

from mio.report.reading import number

_MILLION, _BILLION = 10**6, 10**9


def plain_number(value: float | None, digits: int = 4) -> str:
    """A number without an exponent: `1,092`, `0.0005`, `1.287`; `not a number`, `infinite`, and a dash for none."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if value == int(value) and abs(value) < 10**15:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.1f}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(places, 12)}f}".rstrip("0").rstrip(".") or "0"


def fixed(value: float | None, places: int = 3) -> str:
    """A figure of a table: all of a column have as many places."""
    finite = number(value)
    if finite is None:
        return "–" if value is None else plain_number(value)
    return f"{finite:,.{places}f}"


def percent(value: float | None, places: int = 1) -> str:
    finite = number(value)
    return "–" if finite is None else f"{100 * finite:.{places}f} %"


def p_value(value: float | None) -> str:
    """`0.031`, `< 0.0001`."""
    finite = number(value)
    if finite is None:
        return "–"
    return "< 0.0001" if finite < 1e-4 else plain_number(finite, 2)


def count(value: float | None) -> str:
    """A large number with its unit: `951,680`, `4.09 M`, `1.20 B`."""
    finite = number(value)
    if finite is None:
        return "–"
    if abs(finite) >= _BILLION:
        return f"{finite / _BILLION:.2f} B"
    if abs(finite) >= _MILLION:
        return f"{finite / _MILLION:.2f} M"
    return f"{round(finite):,}"


def duration(seconds: float | None) -> str:
    """`45 s`, `5 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    finite = number(seconds)
    if finite is None:
        return "–"
    if finite < 60:
        return f"{finite:.0f} s" if finite >= 10 else f"{finite:.1f} s"
    whole = round(finite)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{days} d" * bool(days), f"{hours} h" * bool(hours), f"{minutes} min" * bool(minutes), f"{left} s"]
    return " ".join([part for part in parts if part][:2])


def size(count_of_bytes: int) -> str:
    """`830 B`, `12.4 kB`, `4.1 MB`, in powers of ten."""
    if count_of_bytes < 1000:
        return f"{count_of_bytes} B"
    unit = "kB" if count_of_bytes < _MILLION else "MB"
    return f"{count_of_bytes / (1000 if unit == 'kB' else _MILLION):.1f} {unit}"

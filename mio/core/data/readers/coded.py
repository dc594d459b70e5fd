"""Code tokens written out in text, as AnyGPT's published corpora have them, to codes.

`<sosp><🗣️12><🗣️7><eosp>` is a span of the modality that declares these tokens; a run of its code tokens without the
borders is one as well. Numbers run on through the codebooks, codes stand in the order of the modality's layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from mio.core.contract.values import Codes, Modality
from mio.core.errors import DataError
from mio.core.tokens.layouts import layout


class CodedText:
    """Finds the spans of some modalities in text."""

    def __init__(self, modalities: Iterable[Modality]) -> None:
        self._modalities = [declared for declared in modalities if declared.codebooks and declared.code_token]
        self._numbers = {
            declared.name: re.compile("([0-9]+)".join(map(re.escape, declared.code_token.split("{}"))))
            for declared in self._modalities
        }
        spans = []
        for place, declared in enumerate(self._modalities):
            token = "[0-9]+".join(map(re.escape, declared.code_token.split("{}")))
            run = f"(?:{token})(?:\\s?{token})*"
            begin, end = re.escape(declared.begin), re.escape(declared.end)
            spans.append(f"(?P<m{place}>(?:{begin}\\s?)?{run}(?:\\s?{end})?)")
        self._spans = re.compile("|".join(spans)) if spans else None

    def parse(self, text: str, where: str) -> list[str | Codes]:
        """Text and items of codes in order. Raises `DataError`, naming `where`, for codes that are no whole grid."""
        try:
            return list(self._pieces(text))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def _pieces(self, text: str) -> Iterator[str | Codes]:
        at = 0
        for match in self._spans.finditer(text) if self._spans else ():
            if match.start() > at:
                yield text[at : match.start()]
            assert match.lastgroup is not None
            declared, span = self._modalities[int(match.lastgroup[1:])], match.group()
            if span.startswith(declared.begin) != span.endswith(declared.end):
                raise DataError(f"a span of `{declared.name}` has only one of `{declared.begin}` and `{declared.end}`")
            yield self._codes(declared, span)
            at = match.end()
        if at < len(text) or not at:
            yield text[at:]

    def _codes(self, declared: Modality, span: str) -> Codes:
        written = [number.lstrip("0") or "0" for number in self._numbers[declared.name].findall(span)]
        ends = np.cumsum(declared.codebooks)
        for number in written:
            if len(number) > len(str(ends[-1])) or int(number) >= ends[-1]:
                raise DataError(f"code token {number:.20} of `{declared.name}`, which has {ends[-1]} codes")
        numbers = np.array(list(map(int, written)), dtype=np.int64)
        codebook = np.searchsorted(ends, numbers, side="right")
        starts = ends - np.array(declared.codebooks)
        grid = layout(declared.layout).parse(codebook, numbers - starts[codebook], len(declared.codebooks))
        return Codes(declared.name, grid)

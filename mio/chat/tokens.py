"""The tokens of a conversation as HTML: what the model has seen and written, coloured by modality and codebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np

from mio.core.contract.span_table import span_table
from mio.core.contract.values import TEXT
from mio.core.generation.model import Model
from mio.core.terminal import printable
from mio.core.tokens.rendered import Prompt

MOST = 6000
"""Tokens that are shown: the last of more."""
COLOURS = 8
"""Colours of modalities; further ones begin anew."""
_UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class TokenSpan:
    """Tokens that belong together."""

    modality: str
    """`text`, or the modality whose codes, positions or borders they are."""
    codebook: int
    """-1: no codes."""
    first: int
    """Place of the first."""
    ids: tuple[int, ...]
    written: bool
    """Whether the model has written them."""
    network: bool = False
    """Whether a network reads media in their positions, where padding stands."""
    special: bool = False
    """Whether it is a token of the form, or one that opens or closes a span."""


def token_spans(model: Model, prompt: Prompt, answer: Sequence[int] = ()) -> list[TokenSpan]:
    """The tokens of a prompt and its answer, cut where modality, codebook or author change."""
    vocabulary = model.vocabulary
    tokens = np.concatenate([np.asarray(prompt.tokens, np.int64), np.asarray(answer, np.int64)]).astype(np.int64)
    blocks = [vocabulary.blocks[index] for index in vocabulary.block_of[tokens]]
    borders = {name: one.name for one in vocabulary.modalities for name in (one.begin, one.end) if name}
    network = {place: item.modality for item in prompt.items for place in range(item.first, item.end)}
    specials = set(vars(vocabulary.specials).values())
    begun, opened = len(prompt.tokens), TEXT
    kinds: list[tuple[str, int, bool, bool, bool]] = []
    for place, (token, block) in enumerate(zip(tokens.tolist(), blocks, strict=True)):
        written = place >= begun
        if block.name in borders:
            opened = borders[block.name]
            kinds.append((opened, -1, written, False, True))
        elif block.modality:
            kinds.append((block.modality, block.codebook, written, False, False))
        elif place in network:
            kinds.append((network[place], -1, written, True, False))
        elif token == vocabulary.specials.pad and written:  # what a head has made, as it is read again
            kinds.append((opened, -1, written, True, False))
        else:
            kinds.append((TEXT, -1, written, False, token in specials or block.kind == "special"))
    spans = []
    for (modality, codebook, written, by_network, special), places in groupby(range(len(tokens)), lambda i: kinds[i]):
        own = list(places)
        ids = tuple(tokens[own].tolist())
        spans.append(TokenSpan(modality, codebook, own[0], ids, written, by_network, special))
    return spans


def code_states(model: Model, spans: Sequence[TokenSpan]) -> dict[int, str]:
    """Names of the states in which codes stand, by place, of modalities with an automaton. Of a span that its automaton
    does not accept, as far as it goes."""
    names: dict[int, str] = {}
    at: dict[str, int | None] = {}
    """Places in the modalities' tables."""
    for span in spans:
        declared = model.codecs.modalities.get(span.modality)
        table = span_table(declared) if declared is not None else None
        if table is None:
            continue
        if span.special:
            at[span.modality] = 0
        elif span.codebook >= 0:
            start = model.vocabulary.code_ids(span.modality, span.codebook).start
            for place, token in enumerate(span.ids, span.first):
                here = at.get(span.modality)
                if here is None:
                    break
                names[place] = table.name(here)
                try:
                    at[span.modality] = table.steps[here][token - start]
                except KeyError:
                    at[span.modality] = None
    return names


def tokens_html(model: Model, prompt: Prompt, answer: Sequence[int] = ()) -> str:
    """Tokens with their names and places on hover, under a legend that counts them."""
    spans = token_spans(model, prompt, answer)
    colours = {name: number % COLOURS for number, name in enumerate(model.codecs.modalities)}
    hidden = max(0, len(prompt.tokens) + len(answer) - MOST)
    pieces, states = [_legend(model, spans, colours)], code_states(model, spans)
    if hidden:
        pieces.append(f'<p class="mio-quiet">The first {hidden} tokens are not shown.</p>')
    for written, own in groupby(spans, lambda span: span.written):
        shown = "".join(_span(model, span, colours, states, hidden) for span in own)
        name = "written by the model" if written else "read by the model"
        pieces.append(f'<h4>{name}</h4><div class="mio-tokens{" mio-written" if written else ""}">{shown}</div>')
    return f'<div class="mio-token-page">{"".join(pieces)}</div>'


def _legend(model: Model, spans: Sequence[TokenSpan], colours: Mapping[str, int]) -> str:
    counts: Counter[tuple[str, bool]] = Counter()
    for span in spans:
        counts[span.modality, span.written] += len(span.ids)
    rows = []
    for name in dict.fromkeys(span.modality for span in spans):
        declared = model.codecs.modalities.get(name)
        books = "".join(
            f'<i class="mio-tok mio-c{colours.get(name, 0)}" style="--q:{book}" title="codebook {book}">{book}</i>'
            for book in range(len(declared.codebooks) if declared is not None else 0)
        )
        chip = books or f'<i class="mio-tok mio-c{colours.get(name, 0)}">&nbsp;</i>'
        told = f"{counts[name, False]} read, {counts[name, True]} written"
        rows.append(f"<span>{chip} <b>{escape(name)}</b> {told}</span>")
    return f'<div class="mio-legend">{"".join(rows)}</div>'


def _span(model: Model, span: TokenSpan, colours: Mapping[str, int], states: Mapping[int, str], hidden: int) -> str:
    colour = f"mio-c{colours.get(span.modality, 0)}"
    if span.network:
        last = span.first + len(span.ids) - 1
        title = escape(f"{span.modality}, read by a network \u00b7 positions {span.first} to {last}", quote=True)
        return f'<span class="mio-tok mio-network {colour}" title="{title}">{len(span.ids)} positions</span>'
    shown = []
    for place, token in enumerate(span.ids, span.first):
        if place < hidden:
            continue
        name = model.vocabulary.token(token)
        where = f" \u00b7 {span.modality}"
        text = _text(model, token, name, span)
        if span.codebook >= 0:
            block = model.vocabulary.block(f"{span.modality}/codebook{span.codebook}")
            where += f" \u00b7 codebook {span.codebook}, code {token - block.start}"
            where += f" \u00b7 in state {states[place]}" if place in states else ""
            text = str(token - block.start)
        title = escape(printable(f"{name} \u00b7 id {token}{where} \u00b7 position {place}"), quote=True)
        kind = " mio-special" if span.special else ""
        style = f' style="--q:{span.codebook}"' if span.codebook > 0 else ""
        shown.append(f'<span class="mio-tok {colour}{kind}"{style} title="{title}">{escape(text)}</span>')
    return "".join(shown)


def _text(model: Model, token: int, name: str, span: TokenSpan) -> str:
    """What is shown of a token of text: what it says, with visible white space; its name where that is nothing."""
    if span.special or span.modality != TEXT or token >= model.vocabulary.blocks[0].size:
        return name
    said = model.codecs.text.decode([token])
    if not said or _UNKNOWN in said:
        return name
    return printable(said.replace("\n", "\u21b5").replace(" ", "\u00b7"))

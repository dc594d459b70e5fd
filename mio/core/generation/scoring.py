"""How likely documents are to a model: log-likelihoods of tokens, and losses of what heads would make of media.

n tokens of a document, of which the first is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mio.core.data.batch import Batch, assemble
from mio.core.data.made import prepared_document
from mio.core.errors import DataError, UserError
from mio.core.generation.continuations import Branches, Continuation, of_tokens
from mio.core.generation.model import Model
from mio.core.generation.sampling import not_finite
from mio.core.tokens.documents import Document, Special
from mio.core.tokens.rendered import Rendered
from mio.core.tokens.spans import TokenArray


class ScoredItem(NamedTuple):
    """An item that a head would learn to make."""

    modality: str
    opening: int
    """Place of the token that opens its span."""
    loss: float
    """The head's own: no likelihood."""


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Of one document."""

    tokens: TokenArray
    """int32 `[n]`."""
    log_likelihoods: npt.NDArray[np.float32]
    """float32 `[n]`: natural logarithm of the probability of each token after those before it, among all tokens of the
    vocabulary. NaN where nothing is predicted: at the first, at positions that an encoder reads and at a head's own."""
    learnt: npt.NDArray[np.bool_]
    """bool `[n]`: what the run's training would learn of it."""
    segments: npt.NDArray[np.int32]
    """int32 `[n]`: index of each token's segment in the document."""
    items: tuple[ScoredItem, ...] = ()
    """What heads would learn of it, in order."""


def score_documents(
    model: Model, documents: Sequence[Document], seed: int = 0, beyond_context: bool = False
) -> list[TokenScores]:
    """Scores documents, those that hold nothing that a head would make together. What one gets does not depend on the
    others (see `mio.core.generation.continuations`).

    Args:
        seed: of the noise by which heads are asked about media. Their conditions are never left out, as training does
            now and then.
        beyond_context: whether they may have more positions than the model was trained on.

    Raises:
        UserError: media cannot be read or do not fit their declaration, a document is too long, the model's scores are
            not finite; where there are several documents, with the number of the one.
    """
    rendered = [_rendered(model, document, beyond_context, number, len(documents))
                for number, document in enumerate(documents)]  # fmt: skip
    alone = [number for number, one in enumerate(rendered) if one.made]
    if alone and model.replicas.size > 1:
        raise UserError(
            "documents with media that a head would make are scored by a model that is whole on one device; open the "
            "run on one"
        )
    together = [number for number, one in enumerate(rendered) if not one.made]
    likelihoods: dict[int, npt.NDArray[np.float32]] = {}
    losses: dict[int, list[float]] = {}
    branches = [Branches([Continuation(rendered[number].tokens, rendered[number].items, 1)], 0) for number in together]
    for number, [found] in zip(together, model.log_likelihoods(branches), strict=True):
        likelihoods[number] = found
    for number in alone:
        likelihoods[number], losses[number] = _pass(model, rendered[number], seed)
    return [
        _scores(model, document, rendered[number], likelihoods[number], losses.get(number, []))
        for number, document in enumerate(documents)
    ]


def _rendered(model: Model, document: Document, beyond_context: bool, number: int, count: int) -> Rendered:
    try:
        rendered = prepared_document(model.renderer.render(document), model.codecs)
        context, length = model.recipe.data.packing.context, len(rendered) - 1
        if length < 1:
            raise DataError("the document has one token, which is given: there is nothing to score")
        if length > context and not beyond_context:
            raise DataError(
                f"the document has {length + 1} tokens; they do not fit the {context} positions that the model was "
                "trained on; shorten it, or let it go beyond the context"
            )
    except DataError as error:
        raise error if count == 1 else DataError(f"document {number}: {error}") from None
    return rendered


def _scores(
    model: Model, document: Document, rendered: Rendered, found: npt.NDArray[np.float32], losses: Sequence[float]
) -> TokenScores:
    if not np.isfinite(found).all():
        raise not_finite()
    likelihoods = np.concatenate([[np.float32(np.nan)], found])
    for first, end in _given(rendered):
        likelihoods[first:end] = np.nan
    return TokenScores(
        rendered.tokens,
        likelihoods,
        (rendered.weights > 0) & np.isfinite(likelihoods),
        _segments(model, document),
        tuple(ScoredItem(one.modality, one.opening, loss) for one, loss in zip(rendered.made, losses, strict=True)),
    )


@torch.inference_mode()
def _pass(model: Model, document: Rendered, seed: int) -> tuple[npt.NDArray[np.float32], list[float]]:
    """Log-likelihoods of all tokens but the first of a document with items that heads make, and these items' losses, in
    order."""
    transformer = model.transformer
    device = transformer.head_weight.device
    windows = transformer.windows if device.type == "cuda" else ()
    pad = model.vocabulary.specials.pad
    batch = assemble([[(0, document)]], len(document) - 1, pad, windows, model.codecs, [seed])
    batch = _conditioned(batch).to(device)
    # of rows that are one document, attention needs to know groups alone
    mask = None if batch.mask.together is None else batch.mask
    with torch.autocast(device.type, enabled=False):
        output = transformer(batch.tokens, batch.positions, mask, items=batch.items, made=batch.made)
        found = of_tokens(transformer, output.hidden[0], document.tokens[1:], model.vocabulary.size)
    counts = dict.fromkeys(batch.made, 0)
    losses = []
    for one in document.made:
        losses.append(float(output.losses[one.modality][counts[one.modality]]))
        counts[one.modality] += 1
    return found, losses


def _conditioned(batch: Batch) -> Batch:
    """The batch without dummies, and with all conditions of what heads make."""
    items = {name: one for name, one in batch.items.items() if not one.dummy}
    made = {
        name: replace(one, input=one.input._replace(dropped=torch.zeros_like(one.input.dropped)))
        for name, one in batch.made.items()
        if not one.dummy
    }
    return replace(batch, items=items, made=made)


def _given(document: Rendered) -> list[tuple[int, int]]:
    """First position and end of what is not predicted: positions that encoders read, and heads' own."""
    own = [(one.opening + 1, one.end) for one in document.made]
    return [*((item.first, item.end) for item in document.items), *own]


def _segments(model: Model, document: Document) -> npt.NDArray[np.int32]:
    """Index of each token's segment: segments are rendered one by one, whatever is beside them."""
    sizes = [len(model.renderer.render(Document((segment,), 0))) for segment in document.segments]
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def contents(document: Document, given: Sequence[int]) -> list[int]:
    """Indices of the segments that are what somebody said, and not the form that it is said in.

    Args:
        given: how many values each turn has that somebody gave; before the first there may be a system prompt of the
            recipe. Does not matter in plain form.
    """
    begins = [index + 2 for index, one in enumerate(document.segments) if one.content is Special.IM_START]
    if not begins:
        return [index for index, one in enumerate(document.segments) if not isinstance(one.content, Special)]
    turns = zip(begins[len(begins) - len(given) :], given, strict=True)
    return [begin + place for begin, count in turns for place in range(count)]

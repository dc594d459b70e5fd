"""Beam search: of so many sequences at a time, the likeliest answer of text.

As transformers' `generate` has it with `num_beams`, `length_penalty` 1 and `early_stopping` False (5.24,
`generation/utils.py`, `_beam_search`): a sequence's score is the sum of the log-probabilities of its tokens, among all
of the vocabulary; that of one that has ended is divided by the number of these tokens, the stop token included. The
search is over when so many have ended and no running one would have a better score if it ended now. Nothing is drawn.
What the grammar does not allow is left out; what it inserts costs and counts nothing.

N beams, D width, V size of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mio.core.contract.controls import ENDS
from mio.core.errors import UserError
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need
from mio.core.generation.requests import FAILED, Request, Ticket
from mio.core.generation.rows import NoRoom, Rows
from mio.core.generation.sampling import Settings, not_finite, penalise
from mio.core.generation.states import Inserted, State
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs


@dataclass(frozen=True)
class _Beam:
    """A sequence that goes on."""

    answer: AnswerGrammar
    tokens: tuple[int, ...]
    score: float
    chosen: int
    """Tokens that were not inserted."""

    @property
    def mean(self) -> float:
        return self.score / max(self.chosen, 1)


class _Ended(NamedTuple):
    """A sequence that is an answer."""

    score: float
    tokens: tuple[int, ...]


class _Candidate(NamedTuple):
    """A beam and the token that would be its next."""

    score: float
    parent: int
    token: int


def text_alone(request: Request) -> Request:
    """The request of an answer by beam search, which is text alone. Raises `UserError` where media are asked for."""
    if request.need.least:
        raise UserError(
            f"sampling: `beams` is {request.decoding.beams}: beam search is for answers of text, and `"
            f"{request.need.modality}` is asked for; leave `beams` out"
        )
    return replace(request, need=Need(only=True))


class BeamSearch:
    """The search for one answer, step by step.

    Raises:
        NoRoom: keys and values of all beams do not fit into memory.
    """

    def __init__(self, transformer: Transformer, grammar: Grammar, codecs: Codecs | None, request: Request) -> None:
        self._transformer, self._grammar = transformer, grammar
        self._text = codecs.text if codecs is not None else None
        self._settings, self._stop = Settings.of(request.decoding), request.decoding.stop
        self._most = request.decoding.beams
        ending = [token for token in grammar.vocabulary.controls.tokens.values() if token.action in ENDS]
        self._looked_at = (2 + len(ending)) * self._most
        """Candidates of a step: as many as may end, and then so many that go on."""
        rows = Rows(transformer, codecs, 1, len(request.prompt.tokens) + request.budget)
        rows.read(0, [request.prompt])
        self._cache, self._hidden = rows.cache, rows.hidden
        self._beams = [_Beam(grammar.answer(request.need, request.budget), (), 0.0, 0)]
        self._ended: list[_Ended] = []
        """The best of them, the best first."""
        self.done = False

    @property
    def tokens(self) -> list[int]:
        """Tokens of the best sequence, the stop token included where it was chosen."""
        return list(self._ended[0].tokens if self._ended else self._beams[0].tokens)

    def step(self) -> None:
        """Gives every beam its next token. Raises `UserError` where scores are not finite, and `NoRoom`."""
        candidates = self._candidates()
        beams: list[_Beam] = []
        parents: list[int] = []
        for rank, (score, parent, token) in enumerate(candidates):
            last = self._beams[parent]
            answer, inserted = last.answer.copy(), isinstance(last.answer.state(), Inserted)
            answer.advance(token)
            beam = _Beam(answer, (*last.tokens, token), score, last.chosen + (not inserted))
            if answer.done or answer.budget <= 1 or self._says_stop(beam.tokens):
                if rank < self._most:
                    self._ended.append(_Ended(beam.mean, beam.tokens))
            elif len(beams) < self._most:
                beams.append(beam)
                parents.append(parent)
        self._ended = sorted(self._ended, key=lambda one: -one.score)[: self._most]
        self._beams = beams or self._beams
        self.done = not beams or (len(self._ended) == self._most and beams[0].mean <= self._ended[-1].score)
        if not self.done:
            self._feed(parents)

    def _candidates(self) -> list[_Candidate]:
        """The likeliest continuations of all beams, the likeliest first."""
        size = self._grammar.vocabulary.size
        chances = self._transformer.logits(self._hidden, size).log_softmax(-1)  # [N, V]
        if not bool(chances.isfinite().any(-1).all()):
            raise not_finite()
        if self._settings.repetition_penalty != 1:
            text = self._grammar.vocabulary.blocks[0].ids
            said = [np.array([one for one in set(beam.tokens) if one in text], np.int64) for beam in self._beams]
            penalise(chances, [self._settings] * len(said), said)
        scores = torch.full_like(chances, -torch.inf)
        for row, beam in enumerate(self._beams):
            state = beam.answer.state()
            if isinstance(state, Inserted):
                scores[row, state.token] = beam.score
            else:
                ids = self._ids(state)
                scores[row, ids] = chances[row, ids] + beam.score
        best, places = scores.view(-1).topk(min(self._looked_at, scores.numel()))
        found = zip(best.tolist(), places.tolist(), strict=True)
        return [_Candidate(score, *divmod(place, size)) for score, place in found if score > -torch.inf]

    def _ids(self, state: State) -> Tensor:
        """int64: ids that may come in a state."""
        place, key = self._grammar.place(state), ("ids", self._hidden.device)
        ids: Tensor | None = place.kept.get(key)
        if ids is None:
            with torch.inference_mode(False):
                ids = place.kept[key] = torch.tensor(place.ids(), device=self._hidden.device)
        return ids

    def _says_stop(self, tokens: tuple[int, ...]) -> bool:
        if not self._stop or self._text is None:
            return False
        text = self._text.decode(tokens)
        return any(string in text for string in self._stop)

    def _feed(self, parents: list[int]) -> None:
        """Computes the last token of each beam, behind what its parent's row holds."""
        device = self._hidden.device
        if parents != list(range(len(self._cache.lengths))):
            try:
                self._cache.keep(torch.tensor(parents, device=device))
            except RuntimeError as error:  # torch's error for too little memory
                raise NoRoom from error
        tokens = torch.tensor([[beam.tokens[-1]] for beam in self._beams], device=device)
        self._hidden = self._transformer(tokens, self._cache.positions(1), cache=self._cache).hidden[:, 0]
        self._cache.advance(1)


class Searches:
    """Searches that go on beside each other, a step at a time.

    Args:
        most: beams of all together; one search may have more.
    """

    def __init__(self, transformer: Transformer, grammar: Grammar, codecs: Codecs | None, most: int) -> None:
        self._transformer, self._grammar, self._codecs, self._most = transformer, grammar, codecs, most
        self._of: dict[Ticket, BeamSearch] = {}

    @property
    def tickets(self) -> list[Ticket]:
        return list(self._of)

    def fits(self, request: Request) -> bool:
        """Whether a request is one of beam search, and its search may begin."""
        beams = request.decoding.beams
        together = beams + sum(one.request.decoding.beams for one in self._of)
        return beams > 1 and (together <= self._most or not self._of)

    def begin(self, ticket: Ticket) -> None:
        """Reads the prompt of a ticket, which fails where memory does not suffice."""
        try:
            self._of[ticket] = BeamSearch(self._transformer, self._grammar, self._codecs, ticket.request)
        except NoRoom:
            ticket.finish(FAILED, _no_room(ticket.request))

    def step(self) -> list[tuple[Ticket, list[int]]]:
        """Has all searches go on that are not paused. Returns those that are over, with the tokens that they have
        found; those that have failed are finished."""
        over: list[tuple[Ticket, list[int]]] = []
        for ticket, search in list(self._of.items()):
            if ticket.paused:
                continue
            try:
                search.step()
            except (UserError, NoRoom) as error:
                self.drop(ticket)
                ticket.finish(FAILED, error if isinstance(error, UserError) else _no_room(ticket.request))
                continue
            if search.done:
                self.drop(ticket)
                over.append((ticket, search.tokens))
        return over

    def drop(self, ticket: Ticket) -> None:
        self._of.pop(ticket, None)

    def clear(self) -> None:
        self._of.clear()


def _no_room(request: Request) -> UserError:
    length = len(request.prompt.tokens) + request.budget
    return UserError(
        f"{request.decoding.beams} beams of up to {length} tokens with their prompt do not fit into memory; take fewer "
        "`beams`, or allow fewer tokens"
    )

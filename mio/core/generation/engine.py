"""Continuous batching: answers to any number of requests, which come and go, from one key-value cache.

Every step gives each answer that is being made its next token: the tokens are chosen, told, and computed together. A
request that waits is taken in where a row is free; its prompt begins with what a row holds of it already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mio.core.contract.values import Decoding
from mio.core.data.items import prepared
from mio.core.distributed.work import Channel
from mio.core.errors import DataError, UserError
from mio.core.generation import requests
from mio.core.generation.beams import Searches, text_alone
from mio.core.generation.choosing import choose
from mio.core.generation.grammar import Grammar, Need
from mio.core.generation.growing import AnswerTokens, GrowingAnswer
from mio.core.generation.guidance import UnaskedSpans
from mio.core.generation.making import Making
from mio.core.generation.requests import Event, MadeMedia, Request, Ticket, Token, unheard
from mio.core.generation.rows import NoRoom, Rows, arranged
from mio.core.generation.sampling import check_decoding, is_guided, not_finite
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Item, Prompt

PREFILL = 8192
"""Most tokens of prompts, padding included, that one step reads beside a first prompt: answers that are being made wait
for them."""


def answer_room(prompt: int, context: int, least: int = 1) -> int:
    """Most tokens of an answer, its stop token included, that fit `context` positions behind `prompt` tokens. Raises
    `DataError` if there are fewer than `least`."""
    room = context + 1 - prompt
    if room < least:
        raise DataError(
            f"the prompt has {prompt} tokens and the shortest answer {least}; they do not fit the {context} positions "
            "that the model was trained on; shorten the prompt"
        )
    return room


class Engine:
    """Answers requests with one transformer.

    An answer depends on its request, not on the others, but for what another shape of the same matrix products may
    change in their last bits. Computes and keeps keys and values in the dtype of the weights.

    `submit` and `cancel` may be called from any thread, the rest from one. Where the transformer's matrices are split
    over devices (see `decoding_copy`), one rank is asked and the others `follow` it.

    Args:
        rows: answers that are made together; further ones wait.
        capacity: positions of each, prompt and answer.
        codecs: what prepares media for encoders, and what heads make media for.
        followers: to those that hold the transformer with this rank.

    Raises:
        UserError: memory does not suffice.
    """

    def __init__(
        self,
        transformer: Transformer,
        grammar: Grammar,
        rows: int,
        capacity: int,
        codecs: Codecs | None = None,
        followers: Channel | None = None,
    ) -> None:
        self.transformer, self.grammar, self.codecs = transformer, grammar, codecs
        self.capacity = capacity
        self.steps = 0
        """Steps so far."""
        try:
            with torch.inference_mode():
                self.rows = Rows(transformer, codecs, rows, capacity)
        except NoRoom as error:
            raise _no_room(rows, capacity) from error
        self._followers = followers
        self._text = codecs.text if codecs is not None else None
        self._making = Making(transformer, grammar.vocabulary, codecs) if codecs is not None else None
        self._spans: UnaskedSpans | None = None
        self._arrivals: deque[Ticket] = deque()
        self._cancelled: deque[Ticket] = deque()
        self._waiting: deque[Ticket] = deque()
        self._tickets: list[Ticket | None] = [None] * rows
        """By row."""
        self._searches = Searches(transformer, grammar, codecs, rows)
        """Answers by beam search, which have caches of their own."""

    # what is asked

    def submit(self, request: Request, tell: Callable[[Ticket, Event], None] = unheard, order: int = 0) -> Ticket:
        """Has a request answered, as soon as there is a row for it.

        Args:
            tell, order: see `Ticket`.

        Raises:
            DataError: media of the prompt cannot be read, or prompt and answer do not fit the capacity.
            UserError: its options are invalid, or the budget cannot hold what is needed.
        """
        check_decoding(request.decoding, request.seed, self.grammar.chosen)
        prompt, budget = request.prompt, request.budget
        if len(prompt.tokens) + budget > self.capacity + 1:
            raise DataError(
                f"the prompt has {len(prompt.tokens)} tokens and its answer up to {budget}; together they do not fit "
                f"{self.capacity} positions"
            )
        if self.codecs is not None:
            request = replace(request, prompt=prompt._replace(items=prepared(prompt.items, self.codecs)))
        if request.decoding.beams > 1:
            request = text_alone(request)
        growing = GrowingAnswer(self.grammar, request.need, budget, request.seed, request.decoding, self._text)
        ticket = Ticket(request, growing, tell, order)
        self._arrivals.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Calls an answer off; what there is of it stays. Within a step, before its token is computed."""
        self._cancelled.append(ticket)

    @property
    def waiting(self) -> int:
        """Requests that no row was free for yet."""
        return len(self._arrivals) + len(self._waiting)

    @property
    def running(self) -> list[Ticket]:
        """Those that are being answered, or paused."""
        return [*self._on_rows, *self._searches.tickets]

    @property
    def _on_rows(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if ticket is not None]

    @property
    def busy(self) -> bool:
        """Whether a step would do something."""
        going = any(not ticket.paused for ticket in self.running)
        return going or bool(self._arrivals or self._cancelled or (self._waiting and None in self._tickets))

    # what is done

    @torch.inference_mode()
    def step(self) -> None:
        """Takes in what waits, and gives every answer that goes on its next token."""
        self.steps += 1
        # whoever is called off has arrived before that, and may have been called off within the last step
        cancelled = [self._cancelled.popleft() for _ in range(len(self._cancelled))]
        arrived = [self._arrivals.popleft() for _ in range(len(self._arrivals))]
        arrived = [ticket for ticket in arrived if ticket.finished is None]
        if self._followers is not None:
            known = [*self._waiting, *self.running, *arrived]
            off = [known.index(ticket) for ticket in cancelled if ticket in known]
            self._followers.send({"new": [one.request.to_json() for one in arrived], "off": off})
        self._waiting.extend(arrived)
        self._call_off(cancelled)
        with torch.autocast(self.rows.device.type, enabled=False):
            self._admit()
            going = self._going()
            if going:
                self._advance(going)
            for ticket, tokens in self._searches.step():
                for token in [*tokens, self.grammar.stop]:
                    if ticket.finished is None:
                        self._take(ticket, token)

    def run(self) -> None:
        """Steps until everything is answered."""
        while self.busy:
            self.step()

    @torch.inference_mode()
    def abandon(self, error: UserError) -> None:
        """Ends all answers, those that wait too, where a step has failed: what rows hold is not to be trusted."""
        tickets = [*self.running, *self._waiting]
        tickets += [self._arrivals.popleft() for _ in range(len(self._arrivals))]
        self._waiting.clear()
        for row in range(len(self.rows)):
            self._tickets[row] = None
            self.rows.clear(row)
        self._searches.clear()
        for ticket in tickets:
            if ticket.finished is None:
                ticket.finish(requests.FAILED, error)

    def follow(self, message: Mapping[str, Any]) -> None:
        """Does the step of another rank's engine, which is like this one, of its `message`."""
        for content in message["new"]:
            self.submit(Request.from_json(content))
        known = [*self._waiting, *self.running, *self._arrivals]
        for index in message["off"]:
            self.cancel(known[index])
        self.step()

    def _call_off(self, cancelled: Sequence[Ticket]) -> None:
        for ticket in cancelled:
            if ticket.finished is None:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                self._release(ticket)
                ticket.finish(requests.CANCELLED)

    def _release(self, ticket: Ticket) -> None:
        """Its row is free. What the row holds stays, for prompts that begin with it."""
        if ticket in self._tickets:
            self._tickets[self._tickets.index(ticket)] = None
        self._searches.drop(ticket)

    def _arrange(self, tickets: Sequence[Ticket]) -> None:
        """Brings the rows of these tickets to the front."""

        def swapped(first: int, second: int) -> None:
            both = self._tickets[first], self._tickets[second]
            self._tickets[second], self._tickets[first] = both
            if self._spans is not None:
                self._spans.swap(first, second)

        arranged(self.rows, [self._tickets.index(ticket) for ticket in tickets], swapped)

    def _going(self) -> list[Ticket]:
        """The tickets that go on, in the order of their rows, which are the first."""
        going = [ticket for ticket in self._tickets if ticket is not None and not ticket.paused]
        self._arrange(going)
        return [ticket for ticket in self._tickets[: len(going)] if ticket is not None]

    def _admit(self) -> None:
        """Reads prompts that wait into the rows that are free."""
        self._begin_searches()
        if not self._waiting or None not in self._tickets:
            return
        occupied = self._on_rows
        self._arrange(occupied)
        start = first = len(occupied)
        counts: list[int] = []
        held: list[int] = []
        while self._waiting and first < len(self.rows) and self._waiting[0].request.decoding.beams == 1:
            prompt = self._waiting[0].request.prompt
            source, kept = self.rows.best(prompt)
            counts.append(len(prompt.tokens) - kept)
            held.append(kept)
            # what is read together is as long as the longest of it, behind what each row holds
            too_long = max(counts) * len(counts) > PREFILL or max(held) + max(counts) > self.capacity
            if len(counts) > 1 and too_long:
                break
            ticket = self._waiting.popleft()
            # of what is free, the row that holds the beginning itself, or else what nobody has asked for the longest
            target = source if source >= first and kept else self.rows.oldest(first)
            self._swap_free(first, target)
            self.rows.begin(first, first if source == target else source, kept)
            self._tickets[first] = ticket
            if is_guided(ticket.request.decoding) and self.grammar.spans and self._spans is None:
                self._spans = UnaskedSpans(self.transformer, self.grammar, len(self.rows), self.capacity)
            first += 1
            self._begin_searches()
        new = [ticket for ticket in self._tickets[start:first] if ticket is not None]
        if new:
            self.rows.read(start, [ticket.request.prompt for ticket in new])

    def _begin_searches(self) -> None:
        """Begins those that wait and are next, as far as there is room for their beams."""
        while self._waiting and self._searches.fits(self._waiting[0].request):
            self._searches.begin(self._waiting.popleft())

    def _swap_free(self, first: int, second: int) -> None:
        self.rows.swap(first, second)
        if self._spans is not None:
            self._spans.swap(first, second)

    def _advance(self, going: list[Ticket]) -> None:
        answers = [ticket.growing for ticket in going]
        unasked = self._spans.hidden[: len(going)] if self._spans is not None else None
        chosen = choose(self.transformer, answers, self.rows.hidden[: len(going)], unasked)
        for ticket, token in sorted(zip(going, chosen, strict=True), key=lambda pair: pair[0].order):
            if ticket.finished is None:
                self._take(ticket, token)
        if self._followers is None:  # they would go on with what is called off between two messages
            self._call_off([self._cancelled.popleft() for _ in range(len(self._cancelled))])
        token_of = dict(zip(going, chosen, strict=True))
        left = [ticket for ticket in going if ticket.finished is None]  # paused by now or not: it was given its token
        if not left:
            return
        self._arrange(left)
        left = [ticket for ticket in self._tickets[: len(left)] if ticket is not None]
        tokens = [token_of[ticket] for ticket in left]
        self.rows.feed(tokens)
        if self._spans is not None:
            self._spans.step([ticket.growing for ticket in left], tokens)
        if opened := {row: ticket for row, ticket in enumerate(left) if ticket.growing.grammar.opened}:
            self._make(opened, len(left))

    def _take(self, ticket: Ticket, token: int) -> None:
        """Gives an answer the token that was chosen."""
        if token < 0:
            self.rows.clear(self._tickets.index(ticket))
            self._release(ticket)
            ticket.finish(requests.FAILED, not_finite())
            return
        growing = ticket.growing
        said = growing.advance(token)
        ticket.tell(ticket, Token(token, said))
        if growing.done and ticket.finished is None:
            self._release(ticket)
            ticket.finish(_reason(growing, said is not None))

    def _make(self, opened: dict[int, Ticket], count: int) -> None:
        """Has heads make the media of the spans that answers have opened."""
        assert self._making is not None
        before = {row: len(ticket.growing.tokens) for row, ticket in opened.items()}
        answers = {row: ticket.growing for row, ticket in opened.items()}
        for row, state in self._making.make(answers, self.rows.cache.sequences(0, count)).items():
            self.rows.hidden[row] = state
        for row, ticket in opened.items():
            media, padding = ticket.growing.made[-1], ticket.growing.tokens[before[row] :]
            if padding:
                first = len(self.rows.held[row].tokens)
                self.rows.extend(row, Item(media.modality, first, len(padding), media), padding)
        for ticket in opened.values():
            ticket.tell(ticket, MadeMedia(ticket.growing.made[-1]))


def _reason(growing: GrowingAnswer, said: bool) -> str:
    """Why an answer is over, with the token of a control token or another."""
    if growing.stopped:
        return requests.STOP
    return requests.CONTROL if said else requests.LENGTH if growing.grammar.budget <= 0 else requests.STOP


def _no_room(rows: int, capacity: int) -> UserError:
    return UserError(
        f"{rows} answers of up to {capacity} tokens with their prompts do not fit into memory; decode fewer together "
        "(`evaluate.batch`), or allow fewer tokens"
    )


def generate_tokens(
    transformer: Transformer,
    grammar: Grammar,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    need: Need,
    seeds: Sequence[int],
    context: int = 0,
    codecs: Codecs | None = None,
) -> list[AnswerTokens]:
    """Answers to `prompts`, made together by an engine of their own.

    Args:
        seeds: one per prompt.
        context: positions that a prompt and its answer may take together; 0: no limit.
        codecs: what prepares media for encoders, and what heads make media for.

    Raises:
        UserError: the token budget or the context cannot hold what is needed, options of `decoding` are invalid, memory
            does not suffice, or the model's scores are not finite.
    """
    for seed in seeds:
        check_decoding(decoding, seed)
    least = grammar.least(need)
    budgets = [
        min(decoding.max_tokens, answer_room(len(prompt.tokens), context, least)) if context else decoding.max_tokens
        for prompt in prompts
    ]
    asked = [
        Request(prompt, decoding, need, seed, budget)
        for prompt, seed, budget in zip(prompts, seeds, budgets, strict=True)
    ]
    capacity = max(len(one.prompt.tokens) + one.budget for one in asked)
    return answer_all(Engine(transformer, grammar, len(asked), capacity, codecs), asked)


def answer_all(engine: Engine, asked: Sequence[Request]) -> list[AnswerTokens]:
    """Answers to all of these requests. Raises as `Engine.submit`, and `UserError` if memory does not suffice, or the
    model's scores are not finite."""
    tickets = [engine.submit(request) for request in asked]
    try:
        engine.run()
    except (torch.OutOfMemoryError, NoRoom) as error:
        raise _no_room(len(engine.rows), engine.capacity) from error
    for ticket in tickets:
        if ticket.finished is not None and ticket.finished.error is not None:
            raise ticket.finished.error
    return [ticket.answer for ticket in tickets]

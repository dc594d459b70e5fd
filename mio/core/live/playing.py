"""Media of answers: spans decoded, media that heads have made, text said, and how long that plays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from mio.core.contract.heads import Head
from mio.core.contract.sessions import SessionPolicy, Synthesiser
from mio.core.contract.values import Codes, Detokenizer, Media
from mio.core.errors import DataError, UserError
from mio.core.generation.chunks import GrowingMedia
from mio.core.generation.model import Model
from mio.core.live import events

Made = tuple[str, Any]
"""Kind of an event, and media."""


@dataclass
class Span:
    """Media of one span while it is written."""

    media: GrowingMedia
    damaged: bool = False
    """Whether a part of it could not be decoded: the rest is left out."""


@dataclass
class _Entry:
    """Something that is told when its turn comes."""

    query: int
    kind: str
    fields: dict[str, Any]
    modality: str = ""
    work: Future[list[Made]] | None = None
    """What makes media, in place of one event."""


class Player:
    """Makes the media of answers, and tells what answers consist of in the order in which it was said. What cannot be
    made is told and left out.

    Args:
        tell: called with kind, number of the query and further fields of each event.
        workers: where media are made, one after the other, so that nobody waits for that; None: where they are asked
            for.
        told: called when a worker has made some.

    Raises:
        UserError: the policy has text said, and no plugin supplies what says it.
    """

    def __init__(
        self,
        model: Model,
        policy: SessionPolicy,
        tell: Callable[..., None],
        workers: Executor | None = None,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._codecs, self._vocabulary, self._policy, self._tell = model.codecs, model.vocabulary, policy, tell
        self._workers, self._told = workers, told
        self._synthesiser = model.plugins.synthesiser(policy.speaks) if policy.speaks else None
        if policy.speaks and self._synthesiser is None:
            raise UserError(
                f"no plugin of the run supplies a synthesiser of `{policy.speaks}`; leave the option `speaks` out"
            )
        self._entries: deque[_Entry] = deque()
        self.until = 0.0
        """When everything that was made has been played."""

    # what an answer consists of

    def tell(self, kind: str, query: int, **fields: Any) -> None:
        """Tells an event of an answer, behind what is being made of it."""
        if self._entries:
            self._entries.append(_Entry(query, kind, fields))
        else:
            self._tell(kind, query, **fields)

    def say(self, query: int, text: str, now: float) -> None:
        """Has a piece of an answer's text said, where the policy wants that."""
        if self._synthesiser is not None:
            self._make(query, self._policy.speaks, partial(_said, self._synthesiser, text), now)

    def open(self, modality: str) -> Span:
        """A span of an answer begins."""
        return Span(GrowingMedia(self._codecs, self._vocabulary, modality))

    def grow(self, query: int, span: Span, token: int, now: float) -> None:
        """Takes the next token of a span, and gives what is known of its media then."""
        self._make(query, span.media.modality, partial(_grown, span, token), now)

    def close(self, query: int, span: Span, codes: Codes, now: float) -> None:
        """Gives the media of a span that is whole."""
        self._make(query, span.media.modality, partial(_closed, span, codes), now)

    def show(self, query: int, media: Media, now: float) -> None:
        """Gives media of an answer that a head has made."""
        self._make(query, media.modality, lambda: [(events.MEDIA, media.data)], now)

    def stop(self, query: int) -> None:
        """An answer is stopped: what is being made of it is left out, and nothing is played any more."""
        self._entries = deque(entry for entry in self._entries if entry.query != query)
        self.until = 0.0

    # what workers make

    @property
    def pending(self) -> bool:
        """Whether something is not told yet."""
        return bool(self._entries)

    @property
    def ready(self) -> bool:
        """Whether `flush` would tell something."""
        return bool(self._entries) and (self._entries[0].work is None or self._entries[0].work.done())

    def flush(self, now: float) -> None:
        """Tells what has been made."""
        while self.ready:
            entry = self._entries.popleft()
            if entry.work is None:
                self._tell(entry.kind, entry.query, **entry.fields)
            else:
                self._give(entry.query, entry.modality, entry.work.result, now)

    def wait(self) -> None:
        """Waits for what is made next."""
        wait([entry.work for entry in self._entries if entry.work is not None][:1])

    def _make(self, query: int, modality: str, make: Callable[[], list[Made]], now: float) -> None:
        if self._workers is None:
            self._give(query, modality, make, now)
            return
        work = self._workers.submit(make)
        self._entries.append(_Entry(query, "", {}, modality, work))
        work.add_done_callback(lambda _: self._told())

    def _give(self, query: int, modality: str, make: Callable[[], list[Made]], now: float) -> None:
        try:
            made = make()
        except DataError as error:
            self._tell(events.IGNORED, query, reason=str(error))
            return
        chunked = len(made) > 1
        for kind, content in made:
            if content is None:
                continue
            self._tell(kind, query, modality=modality, content=content)
            whole_after_pieces = chunked and kind == events.MEDIA
            seconds = self._policy.seconds(modality, content) if self._policy.seconds else 0.0
            self.until = max(self.until, now) + (0.0 if whole_after_pieces else seconds)

    def saver(self, modality: str) -> Detokenizer | Head | Synthesiser:
        """What writes media of a modality to files."""
        if modality == self._policy.speaks and self._synthesiser is not None:
            return self._synthesiser
        return self._codecs.saver(modality)


def _said(synthesiser: Synthesiser, text: str) -> list[Made]:
    return [(events.MEDIA, synthesiser.say(text))]


def _grown(span: Span, token: int) -> list[Made]:
    if span.damaged:
        return []
    try:
        return [(events.CHUNK, span.media.push(token))]
    except DataError:
        span.damaged = True
        raise


def _closed(span: Span, codes: Codes) -> list[Made]:
    """The whole; behind the last piece, which may be None, where there were pieces."""
    if span.damaged:
        return []
    last, whole = span.media.close(codes)
    return [(events.CHUNK, last), (events.MEDIA, whole)] if span.media.given else [(events.MEDIA, whole)]

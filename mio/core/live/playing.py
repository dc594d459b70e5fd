"""Media of answers: spans decoded, media that heads have made, text said, and how long that plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mio.core.contract.heads import Head
from mio.core.contract.sessions import SessionPolicy, Synthesiser
from mio.core.contract.values import Codes, Detokenizer, Media
from mio.core.errors import DataError, UserError
from mio.core.generation.model import Model
from mio.core.live import events


class Player:
    """Makes the media of answers. What cannot be made is told and left out.

    Args:
        tell: called with kind, number of the query and further fields of each event.

    Raises:
        UserError: the policy has text said, and no plugin supplies what says it.
    """

    def __init__(self, model: Model, policy: SessionPolicy, tell: Callable[..., None]) -> None:
        self._codecs, self._policy, self._tell = model.codecs, policy, tell
        self._synthesiser = model.plugins.synthesiser(policy.speaks) if policy.speaks else None
        if policy.speaks and self._synthesiser is None:
            raise UserError(
                f"no plugin of the run supplies a synthesiser of `{policy.speaks}`; leave the option `speaks` out"
            )
        self.until = 0.0
        """When everything that was made has been played."""

    def say(self, query: int, text: str, now: float) -> None:
        """Has a piece of an answer's text said, where the policy wants that."""
        if self._synthesiser is not None:
            self._make(query, self._policy.speaks, self._synthesiser.say, text, now)

    def decode(self, query: int, codes: Codes, now: float) -> None:
        """Decodes a span of an answer."""
        books = self._codecs.modalities[codes.modality].view("generate")
        self._make(query, codes.modality, lambda span: self._codecs.decode(codes.modality, span.of(books)), codes, now)

    def show(self, query: int, media: Media, now: float) -> None:
        """Gives media of an answer that a head has made."""
        self._make(query, media.modality, lambda made: made.data, media, now)

    def stop(self) -> None:
        """What is playing is stopped."""
        self.until = 0.0

    def _make(self, query: int, modality: str, make: Callable[[Any], Any], source: Any, now: float) -> None:
        try:
            content = make(source)
        except DataError as error:
            self._tell(events.IGNORED, query, reason=str(error))
            return
        if content is None:
            return
        self._tell(events.MEDIA, query, modality=modality, content=content)
        seconds = self._policy.seconds(modality, content) if self._policy.seconds else 0.0
        self.until = max(self.until, now) + seconds

    def saver(self, modality: str) -> Detokenizer | Head | Synthesiser:
        """What writes media of a modality to files."""
        if modality == self._policy.speaks and self._synthesiser is not None:
            return self._synthesiser
        return self._codecs.saver(modality)

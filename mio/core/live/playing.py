"""Media of answers: spans decoded, media that heads have made, text said, and how long that plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mio.core.contract.heads import Head
from mio.core.contract.sessions import SessionPolicy, Synthesiser
from mio.core.contract.values import Codes, Detokenizer, Media
from mio.core.errors import DataError, UserError
from mio.core.generation.chunks import GrowingMedia
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
        self._codecs, self._vocabulary, self._policy, self._tell = model.codecs, model.vocabulary, policy, tell
        self._synthesiser = model.codecs.synthesiser(policy.speaks) if policy.speaks else None
        if policy.speaks and self._synthesiser is None:
            raise UserError(
                f"no plugin of the run supplies a synthesiser of `{policy.speaks}`; leave the option `speaks` out"
            )
        self.until = 0.0
        """When everything that was made has been played."""

    def say(self, query: int, text: str, now: float) -> None:
        """Has a piece of an answer's text said, where the policy wants that."""
        if self._synthesiser is None:
            return
        try:
            content = self._synthesiser.say(text)
        except DataError as error:
            self._tell(events.IGNORED, query, reason=str(error))
            return
        if content is not None:
            self._give(events.MEDIA, query, self._policy.speaks, content, now)

    def open(self, modality: str) -> GrowingMedia:
        """A span of an answer begins."""
        return GrowingMedia(self._codecs, self._vocabulary, modality)

    def grow(self, query: int, media: GrowingMedia, token: int, now: float) -> bool:
        """Takes the next token of a span, and gives what is known of its media then. Returns whether they go on."""
        try:
            piece = media.push(token)
        except DataError as error:
            self._tell(events.IGNORED, query, reason=str(error))
            return False
        if piece is not None:
            self._give(events.CHUNK, query, media.modality, piece, now)
        return True

    def close(self, query: int, media: GrowingMedia, codes: Codes, now: float) -> None:
        """Gives the media of a span that is whole."""
        try:
            last, whole = media.close(codes)
        except DataError as error:
            self._tell(events.IGNORED, query, reason=str(error))
            return
        if last is not None:
            self._give(events.CHUNK, query, media.modality, last, now)
        if media.given:  # they have been counted as they came
            self._tell(events.MEDIA, query, modality=media.modality, content=whole)
        else:
            self._give(events.MEDIA, query, media.modality, whole, now)

    def show(self, query: int, media: Media, now: float) -> None:
        """Gives media of an answer that a head has made."""
        self._give(events.MEDIA, query, media.modality, media.data, now)

    def stop(self) -> None:
        """What is playing is stopped."""
        self.until = 0.0

    def _give(self, kind: str, query: int, modality: str, content: Any, now: float) -> None:
        self._tell(kind, query, modality=modality, content=content)
        seconds = self._policy.seconds(modality, content) if self._policy.seconds else 0.0
        self.until = max(self.until, now) + seconds

    def saver(self, modality: str) -> Detokenizer | Head | Synthesiser:
        """What writes media of a modality to files."""
        if modality == self._policy.speaks and self._synthesiser is not None:
            return self._synthesiser
        return self._codecs.saver(modality)

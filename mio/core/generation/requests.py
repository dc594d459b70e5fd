"""What the engine is asked, and what it tells while it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mio.core.contract.controls import ControlToken
from mio.core.contract.values import Decoding, Media
from mio.core.data.items import items_from_json, items_to_json
from mio.core.errors import UserError
from mio.core.generation.grammar import Need
from mio.core.generation.growing import AnswerTokens, GrowingAnswer
from mio.core.tokens.rendered import Prompt

STOP, LENGTH, CONTROL, CANCELLED, FAILED = "stop", "length", "control", "cancelled", "failed"
"""Why an answer is over: the model has ended it; its tokens are used up; a control token has ended it; it was called
off; it could not go on."""


@dataclass(frozen=True)
class Request:
    """An answer that is wanted."""

    prompt: Prompt
    decoding: Decoding
    need: Need
    seed: int
    """What is drawn depends on it alone, not on the answers beside."""
    budget: int
    """Tokens that the answer may have, the stop token included."""

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold, for ranks that decode together. Media of the prompt must be prepared."""
        tokens, items = self.prompt.tokens.tolist(), items_to_json(self.prompt.items)
        return {"tokens": tokens, "items": items, "decoding": asdict(self.decoding), "need": asdict(self.need),
                "seed": self.seed, "budget": self.budget}  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Request:
        """What `to_json` has made."""
        prompt = Prompt(np.array(content["tokens"], np.int32), items_from_json(content["items"]))
        decoding, need = Decoding(**content["decoding"]), Need(**content["need"])
        return cls(prompt, decoding, need, content["seed"], content["budget"])


@dataclass(frozen=True)
class Token:
    """The next token was chosen. The stop token is none of the answer's."""

    id: int
    control: ControlToken | None = None
    """The control token that it completes."""


@dataclass(frozen=True)
class MadeMedia:
    """A head has made the media of the span that the last token opened."""

    media: Media


@dataclass(frozen=True)
class Finished:
    """The answer is over."""

    reason: str
    error: UserError | None = None
    """Why it could not go on."""


Event = Token | MadeMedia | Finished


def unheard(ticket: Ticket, event: Event) -> None:
    """Tells nobody."""


@dataclass(eq=False)
class Ticket:
    """A request that the engine has taken."""

    request: Request
    growing: GrowingAnswer
    tell: Callable[[Ticket, Event], None] = unheard
    """Called in the thread that steps, with each event as it happens."""
    order: int = 0
    """Of the tickets of a step, those of a lower number are told first: what they say may call off others."""
    paused: bool = False
    """Whether it keeps its place without going on."""
    finished: Finished | None = field(default=None, init=False)

    @property
    def answer(self) -> AnswerTokens:
        """What there is of the answer."""
        return self.growing.given

    def finish(self, reason: str, error: UserError | None = None) -> None:
        """The answer is over, and whoever waits for it is told."""
        self.finished = Finished(reason, error)
        self.tell(self, self.finished)

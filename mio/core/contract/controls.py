"""Control tokens: what a model says about the conversation itself, before or within an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mio.core.contract.ranges import number, one_of

if TYPE_CHECKING:
    from mio.core.contract.values import Record, Value

GO_ON, SILENCE, STOP, INTERRUPT, INSERT = "go_on", "silence", "stop", "interrupt", "insert"
ENDS = (SILENCE, STOP)
"""Actions that end an answer."""

CONTROL = "control"
"""What parts of messages, parts of answers and templates call a control token. No modality has this name."""


@dataclass(frozen=True, kw_only=True)
class ControlToken:
    """Declaration of one control token."""

    name: str
    """Unique, lower case: what records, templates and answers call it."""
    token: str
    """Its token string: `<1>`."""
    plain_text: bool = False
    """Whether it is written as ordinary text, in the text tokenizer's own tokens. Otherwise it has an id of its own."""
    anywhere: bool = False
    """Whether the model may say it between any two pieces of an answer. Otherwise it comes at the beginning, before
    anything but control tokens. One of plain text always does: anywhere else it would be text."""
    action: str = one_of(GO_ON, GO_ON, SILENCE, STOP, INTERRUPT, INSERT)
    """What decoding does when the model has said it: `go_on`; `silence`: the answer ends here, nothing of it is meant
    for anybody; `stop`: the answer ends here; `interrupt`: go on, and an answer that is being given elsewhere in the
    conversation stops; `insert`: go on behind `insert`, as if the model had said that too. An answer that has to hold a
    span cannot end before it, so it does not begin with what would end it."""
    insert: str = ""
    """Text of the action `insert`."""
    weight: float = number(1.0, 0, 1e6)
    """Factor on its weight in the loss (`train.loss.control`)."""


def special_control(token: str) -> ControlToken:
    """A further special token of a modality: called by its string, said anywhere, and it does nothing."""
    return ControlToken(name=token, token=token, anywhere=True)


@dataclass(frozen=True)
class Control:
    """A control token as a piece of content."""

    name: str


@dataclass(frozen=True)
class Turn:
    """An answer that a rule labels."""

    record: Record
    number: int
    """Place among the answers of the record, from 0."""
    prompt: Sequence[Value]
    """What it answers: the content of the turn before it, or of the template's prompt."""


@dataclass(frozen=True, kw_only=True)
class ControlTokens:
    """A plugin's control tokens, and its rule for them."""

    tokens: Sequence[ControlToken] = ()
    label: Callable[[Turn], str] | None = None
    """Name of the control token that an answer begins with in training, of this plugin or of another one of the recipe,
    or the empty string. A function of the turn alone. Answers whose record says itself what they begin with are not
    asked about. Of several plugins' rules, the first one that names a token counts, in the recipe's order."""

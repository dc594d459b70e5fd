"""How much a request may ask for, and how long a client may take."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What the server refuses to exceed. Each is an option of `mio serve`."""

    body: int = 32 * MEGABYTE
    """Bytes of a request's body."""
    media: int = 32
    """Media in a request."""
    messages: int = 256
    """Messages in a request."""
    pixels: int = 16_000_000
    """Width times height of a picture, or of the frames of a video."""
    seconds: float = 120.0
    """Of a recording or a video."""
    max_tokens: int = 4096
    """Tokens of an answer; what the model's context leaves room for is a limit as well."""
    choices: int = 8
    """Answers to one request (`n`)."""
    waiting: int = 128
    """Answers that wait for their turn; further requests are refused with 429."""
    connections: int = 512
    """Connections that are open at a time."""
    header_timeout: float = 10.0
    """Seconds for the head of a request, from its connection or first byte on."""
    body_timeout: float = 30.0
    """Seconds for the body of a request."""
    write_timeout: float = 30.0
    """Seconds that a client may leave what was sent to it unread."""
    answer_timeout: float = 600.0
    """Seconds for an answer, its wait for a turn included."""
    grace: float = 30.0
    """Seconds that answers have to end in when the server is stopped."""

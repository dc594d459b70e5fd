"""What comes out of a live conversation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEARD, IGNORED, CONTROL, SILENCE = "heard", "ignored", "control", "silence"
TEXT, CHUNK, MEDIA = "text", "chunk", "media"
INTERRUPTED, DONE, FAILED = "interrupted", "done", "failed"
KINDS = (HEARD, IGNORED, CONTROL, SILENCE, TEXT, CHUNK, MEDIA, INTERRUPTED, DONE, FAILED)
"""Kinds of events, each described in docs/live.md."""


@dataclass(frozen=True)
class SessionEvent:
    """Something that happened in a conversation. Fields that do not concern its kind are as they are by default."""

    kind: str
    """One of `KINDS`."""
    time: float
    """Seconds since the session began."""
    step: int
    """Steps of the engine so far."""
    query: int
    """Number of the query that it belongs to, from 0."""
    text: str = ""
    """Of `text`: the next piece of the answer."""
    control: str = ""
    """Of `control`: name of the control token that the model has said."""
    modality: str = ""
    """Of `media` and `chunk`: what they are."""
    content: Any = None
    """Of `media`: decoded, or as the synthesiser made them; of `chunk` a piece of that."""
    start: float = 0.0
    end: float = 0.0
    """Of `heard`, and of `ignored` where it is about an utterance: where it is in its stream, in seconds."""
    reason: str = ""
    """Of `ignored`: why something is left out. Of `failed`: why the answer cannot go on."""
    by: int = -1
    """Of `interrupted`: number of the query that the answer makes room for; -1: it was called off."""

    def to_json(self, path: Path | None = None) -> dict[str, Any]:
        """The event with those of its fields that concern its kind; `path` is where its media are."""
        shown: dict[str, Any] = {"event": self.kind, "time": round(self.time, 3), "step": self.step}
        shown["query"] = self.query
        if self.kind == HEARD or (self.kind == IGNORED and self.end):
            shown |= {"start": round(self.start, 3), "end": round(self.end, 3)}
        own = {
            TEXT: "text",
            CONTROL: "control",
            IGNORED: "reason",
            FAILED: "reason",
            MEDIA: "modality",
            INTERRUPTED: "by",
        }
        if self.kind in own:
            shown[own[self.kind]] = getattr(self, own[self.kind])
        if path is not None:
            shown["path"] = str(path)
        return shown

"""Answers as Python programs get them: media as objects, to be shown, saved, and given again in a further turn."""

from __future__ import annotations

import base64
import mimetypes
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mio.api import forms
from mio.api.display import html, summary
from mio.api.running import Pending
from mio.core.contract.controls import CONTROL
from mio.core.contract.tasks import Answer
from mio.core.contract.values import TEXT, Codes, Value
from mio.core.generation.answer import written_part
from mio.core.generation.model import Model
from mio.core.generation.saving import save_beside
from mio.core.generation.stopping import before_stop
from mio.core.generation.streaming import Usage
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.tokenised import CodedMedia

_NOTHING = Usage({}, {})


@dataclass(frozen=True, eq=False, repr=False)
class Reply(Answer):
    """An answer of `mio.load(...).generate(...)`.

    Beside what every `mio.Answer` has: it shows itself in notebooks, and may stand in a later message, with the codes
    that it was written as.
    """

    reason: str = ""
    """Why it ends: `stop` (the model, or a string of `stop`), `length` (the token budget or the context), `control` (a
    control token)."""
    usage: Usage = _NOTHING
    """Tokens of the prompt and of the answer, by modality."""
    tokens: tuple[int, ...] = ()
    """Ids in the run's vocabulary, without the stop token."""
    notice: str = ""
    """What a person should know about it, such as that the context cut it off."""
    written: tuple[Value, ...] = ()
    """The answer as the model wrote it: text with its tokens, codes, control tokens, media that heads made."""
    codecs: Codecs | None = field(default=None, compare=False)
    """What saves its media."""
    media_types: dict[str, str] = field(default_factory=dict, compare=False)
    """By modality."""

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """Content for a further turn. Codes of a modality that an encoder reads bring their media."""
        assert self.codecs is not None
        return tuple(_readable(value, self.codecs) for value in self.written)

    @property
    def images(self) -> list[Any]:
        """All media of type `image`, as Pillow has them."""
        return [forms.to_pillow(content) for name, content in self.parts if self.media_types.get(name) == forms.IMAGE]

    def save(self, folder: str | Path = ".", prefix: str = "") -> list[Path]:
        """Writes the media into a folder, as `MODALITY-NUMBER` with the format's suffix and `prefix` before it, beside
        what is there; returns the paths, one per media part in order.

        Raises:
            OSError, UserError: the folder cannot be written, a plugin cannot save its media.
        """
        assert self.codecs is not None
        return [
            save_beside(self.codecs.saver(name), content, Path(folder), f"{prefix}{name}", number)
            for number, (name, content) in enumerate(self.parts)
            if name not in (TEXT, CONTROL)
        ]

    def to_json(self, folder: str | Path | None = None, prefix: str = "") -> dict[str, Any]:
        """`parts`, in order: `{"type": "text", "text": ...}`, `{"type": "control", "name": ...}`, and of media
        `{"type": MODALITY, "path": ...}`, saved into `folder`, or without one `{"type": MODALITY, "url": "data:..."}`;
        and `silent` if it is. A prompt may hold these parts again."""
        places = iter(
            [{"path": str(path)} for path in self.save(folder, prefix)] if folder is not None else self._urls()
        )
        parts = [written_part(name, content) or {"type": name, **next(places)} for name, content in self.parts]
        return {"parts": parts} | ({"silent": True} if self.silent else {})

    def _urls(self) -> list[dict[str, str]]:
        return [{"url": self._url(name, content)} for name, content in self.parts if name not in (TEXT, CONTROL)]

    def _url(self, name: str, content: Any) -> str:
        """RFC 2397, of a file that the modality's plugin reads."""
        assert self.codecs is not None
        with tempfile.TemporaryDirectory(prefix="mio-") as scratch:
            path = self.codecs.saver(name).save(content, Path(scratch) / name)
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"

    def __repr__(self) -> str:
        return f"Reply({summary(self.parts, self.media_types)})"

    def _repr_html_(self) -> str:
        return html(self.parts, self.media_types)


def reply(pending: Pending, model: Model, media_types: dict[str, str]) -> Reply:
    """The answer to a question that is answered. Raises its error if it could not go on, or cannot be read."""
    over = pending.over
    if pending.problem is not None:
        raise pending.problem
    assert over is not None
    if over.error is not None:
        raise over.error
    answer, count = over.answer, over.usage.answer_tokens
    return Reply(
        answer.parts,
        answer.codes,
        answer.silent,
        reason=over.reason,
        usage=over.usage,
        tokens=tuple(pending.ticket.answer.tokens[:count]),
        notice=pending.asked.notice(over.reason, count, model.recipe.data.packing.context),
        written=tuple(before_stop(pending.stream.values, pending.asked.question.decoding.stop)),
        codecs=model.codecs,
        media_types=media_types,
    )


def _readable(value: Value, codecs: Codecs) -> Value:
    if not isinstance(value, Codes) or value.modality not in codecs.readers:
        return value
    name = value.modality
    media = codecs.decode(name, value.of(codecs.modalities[name].view("generate")))
    return CodedMedia(name, media, forms.key_of_content(media), codes=value)

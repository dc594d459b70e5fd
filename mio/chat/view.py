"""A conversation as HTML. Nothing that somebody or the model says is markup: text is escaped, media are files."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from mio.api import forms
from mio.chat.conversation import Conversation, Exchange, Growing, Said, Shown
from mio.chat.media import MODELS, PICTURES, SOUNDS, VIDEOS, MediaFile
from mio.core.terminal import printable

LEAST_SIDE = 112
"""Pixels that the shorter side of a picture has on a screen, by whole factors."""
FILES = "gradio_api/file="
"""Beginning of addresses of files."""
_NOTHING = '<p class="mio-empty">Ask something, or take an example.</p>'
_REASONS = {"length": "ends at its limit", "control": "ended by a control token", "cancelled": "stopped"}


def conversation_html(conversation: Conversation) -> str:
    """All turns, the answer that is being given, and what went wrong."""
    turns = [_exchange(one, conversation) for one in conversation.exchanges]
    if conversation.problem:
        turns.append(f'<div class="mio-problem" role="alert">{escape(printable(conversation.problem))}</div>')
    return f'<div class="mio-turns" role="log" aria-live="polite">{"".join(turns) or _NOTHING}</div>'


def status_line(conversation: Conversation) -> str:
    """How much of the context the last question and its answer take, and how the answer was made."""
    last = conversation.last
    if last is None or last.seen is None:
        return f'<div class="mio-status">context of {conversation.host.context} tokens</div>'
    prompt = len(last.seen.request.prompt.tokens)
    written = len(last.pending.ticket.answer.tokens) if last.pending is not None else 0
    share = min(100.0, 100.0 * (prompt + written) / conversation.host.context)
    told = [f"{prompt} tokens read, {written} written, of {conversation.host.context}"]
    if last.reply is not None:
        told += [f"{last.seconds:.1f} s", f"seed {last.settings.seed}"]
    meter = f'<span class="mio-meter"><span style="width:{share:.1f}%"></span></span>'
    line = " \u00b7 ".join(told)
    return f'<div class="mio-status">{meter}<span>{line}</span></div>'


def _exchange(one: Exchange, conversation: Conversation) -> str:
    asked = "".join(map(part_html, one.asked))
    user = f'<div class="mio-turn mio-user"><div class="mio-bubble">{asked}</div></div>'
    waits = conversation.answering and one is conversation.last
    answer = "".join(map(part_html, one.answer))
    if waits and not (one.answer and isinstance(one.answer[-1], Growing)):
        answer += '<span class="mio-waits" aria-label="answering"></span>'
    if not answer and not waits:
        answer = '<span class="mio-quiet">(nothing)</span>' if one.reply is not None else ""
    if note := _note(one):
        answer += f'<div class="mio-note">{escape(note)}</div>'
    return user + (f'<div class="mio-turn mio-model"><div class="mio-bubble">{answer}</div></div>' if answer else "")


def _note(one: Exchange) -> str:
    """What one should know of an answer that is over."""
    if one.reply is None:
        return ""
    silent = "not meant for the model" if one.reply.silent else ""
    return ", ".join(filter(None, (silent, "" if silent else _REASONS.get(one.reply.reason, ""))))


def part_html(part: Shown) -> str:
    """A piece of a question or an answer."""
    if isinstance(part, str):
        return f'<span class="mio-text">{escape(part)}</span>'
    if isinstance(part, Said):
        return f'<code class="mio-said" title="control token">{escape(part.name)}</code>'
    if isinstance(part, Growing):
        told = f"{escape(part.modality)} \u00b7 {part.tokens} tokens"
        return f'<span class="mio-growing">{told}</span>'
    return media_html(part)


def media_html(media: MediaFile, controls: bool = True) -> str:
    """A picture, a player, a model to turn, or a file to save."""
    address = escape(address_of(media.shown), quote=True)
    title = escape(f"{media.modality}: {media.path.name}", quote=True)
    suffix = media.shown.suffix.lower()
    if suffix in PICTURES:
        return f'<img class="mio-picture" title="{title}" alt="{title}" src="{address}"{_sides(media.shown)}>'
    if suffix in SOUNDS or media.media_type == forms.AUDIO:
        return f'<audio class="mio-sound" controls preload="metadata" title="{title}" src="{address}"></audio>'
    if suffix in VIDEOS:
        shown = " controls" if controls else ""
        return f'<video class="mio-video"{shown} loop muted playsinline title="{title}" src="{address}"></video>'
    link = f'<a class="mio-file" download href="{address}">{escape(media.path.name)}</a>'
    if suffix in MODELS and media.media_type == forms.MODEL:
        return f'<mio-model title="{title}" src="{address}">{link}</mio-model>'
    return link


def address_of(path: Path) -> str:
    """Where a browser gets a file."""
    return f"{FILES}{quote(str(path))}"


@lru_cache(4096)
def _sides(path: Path) -> str:
    """Attributes for the size of a picture on a screen: small ones are enlarged by whole factors, pixel by pixel."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    factor = max(1, -(-LEAST_SIDE // min(width, height)))
    style = ' style="image-rendering: pixelated"' if factor > 1 else ""
    return f' width="{width * factor}" height="{height * factor}"{style}'

"""The page: a conversation, what its answers are to be, its tokens, and examples. Made of gradio's components."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mio.api import forms
from mio.chat.composing import Composed
from mio.chat.controls import BEFORE, Controls
from mio.chat.conversation import Conversation
from mio.chat.examples import Examples
from mio.chat.export import export_zip
from mio.chat.host import Host
from mio.chat.live_page import live_tab
from mio.chat.tokens import COLOURS, tokens_html
from mio.chat.view import conversation_html, status_line
from mio.core.errors import UserError

CHOICE = """
const choose = (event) => {
  if (event.target.closest('audio, video, a')) return;
  const card = event.target.closest('[data-number]');
  if (card) trigger('click', {number: Number(card.dataset.number)});
};
element.addEventListener('click', choose);
element.addEventListener('keydown', (event) => { if (event.key === 'Enter') choose(event); });
"""
"""Tells which card was taken."""
FOLLOW = """
const box = element.closest('#mio-view');
let follows = true;
const down = () => { if (follows) box.scrollTop = box.scrollHeight; };
box.addEventListener('scroll', () => { follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40; });
element.addEventListener('load', down, true);
let turns = 0;
new MutationObserver(() => {
  const now = element.querySelectorAll('.mio-user').length;
  follows = follows || now > turns;
  turns = now;
  down();
}).observe(element, {childList: true, subtree: true, characterData: true});
"""
"""Shows the end of the conversation while it grows, unless somebody has scrolled up."""
MODELS = Path(__file__).with_name("models.js")
"""Shows models, everywhere in the page."""
DARK = "() => { document.documentElement.classList.toggle('dark'); document.body.classList.toggle('dark'); }"


class Page:
    """The page of a host.

    Args:
        live: whether the run has live conversations.
    """

    def __init__(self, host: Host, examples: Examples, live: bool) -> None:
        self._host, self._examples, self._live = host, examples, live

    def blocks(self) -> gr.Blocks:
        """What gradio serves."""
        # no figures of use, and no question for a newer version
        page: gr.Blocks
        with gr.Blocks(title=f"{self._host.name} \u00b7 mio", analytics_enabled=False, fill_width=True) as page:
            state = gr.State(None, delete_callback=_close)
            self._header()
            with gr.Tabs(elem_id="mio-tabs"):
                with gr.Tab("Chat", elem_id="mio-chat"):
                    self._chat(state)
                with gr.Tab("Tokens", elem_id="mio-token-tab") as tab:
                    tokens = gr.HTML(self._tokens(None), elem_id="mio-tokens")
                if self._live:
                    with gr.Tab("Live talk", elem_id="mio-live-tab"):
                        live_tab(self._host)
            tab.select(self._tokens, state, tokens, show_progress="hidden", api_visibility="private")
            page.load(lambda: Conversation(self._host), None, state, show_progress="hidden", api_visibility="private")
        page.queue(default_concurrency_limit=None, api_open=False)
        return page

    def _header(self) -> None:
        host = self._host
        kinds = "".join(
            f'<span class="mio-kind mio-c{number % COLOURS}" title="{_can(host, name)}">{escape(name)}</span>'
            for number, name in enumerate(host.run.modalities)
            if name == "text" or name in host.suffixes or name in host.writes
        )
        with gr.Row(elem_id="mio-header"):
            gr.HTML(f'<div class="mio-title"><h1>{escape(host.name)}</h1><div class="mio-kinds">{kinds}</div></div>')
            dark = gr.Button("\u25d0", elem_id="mio-dark", size="sm", scale=0, min_width=40)
            dark.click(None, js=DARK, api_visibility="private")

    # the conversation

    def _chat(self, state: gr.State) -> None:
        host = self._host
        with gr.Row(elem_id="mio-columns"):
            with gr.Column(scale=7, min_width=320, elem_id="mio-main"):
                view = gr.HTML(_EMPTY, elem_id="mio-view", js_on_load=FOLLOW + MODELS.read_text(encoding="utf-8"))
                status = gr.HTML("", elem_id="mio-under")
                composer = gr.MultimodalTextbox(
                    sources=["upload", "microphone"] if host.of_type(forms.AUDIO) else ["upload"],
                    file_count="multiple",
                    placeholder=_hint(host),
                    show_label=False,
                    max_lines=6,
                    max_plain_text_length=1_000_000,
                    autofocus=True,
                    elem_id="mio-composer",
                )
                with gr.Row(elem_id="mio-actions"):
                    again = gr.Button("\u21bb Regenerate", size="sm", min_width=60)
                    edit = gr.Button("\u270e Edit last", size="sm", min_width=60)
                    undo = gr.Button("\u21b6 Undo", size="sm", min_width=60)
                    new = gr.Button("+ New", size="sm", min_width=60)
                    save = gr.Button("\u2913 Export", size="sm", min_width=60, elem_id="mio-export")
                    saved = gr.DownloadButton(visible="hidden", elem_id="mio-saved")
            with gr.Column(scale=3, min_width=300, elem_id="mio-side"):
                controls = Controls(host)
                if host.of_type(forms.IMAGE) or host.of_type(forms.VIDEO):
                    self._camera(composer)
                self._example_list(composer, controls)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        changed = [view, status, composer]
        asking = [state, composer, controls.place, *controls.inputs]
        # at rest only once gradio takes the answer for over: until then it ignores another question
        composer.submit(self._ask(controls), asking, changed, **quiet).then(_rested, state, composer, **quiet)
        composer.stop(lambda one: one.stop() if one else None, state, None, queue=False, **quiet)
        regenerated = again.click(self._again(controls), [state, *controls.inputs], changed, **quiet)
        regenerated.then(_rested, state, composer, **quiet)
        edit.click(self._edit, [state], changed, **quiet)
        undo.click(self._undo, [state], changed, **quiet)
        new.click(self._new, [state], changed, **quiet)
        save.click(self._export, [state], [saved, view], **quiet).then(
            None, saved, None, js="(file) => { if (file) document.querySelector('#mio-saved').click(); }", **quiet
        )

    def _ask(self, controls: Controls) -> Any:
        def ask(one: Conversation, composed: Any, place: str, *values: Any) -> Iterator[Any]:
            question = Composed(composed["text"], tuple(map(Path, composed["files"])))
            try:
                settings = controls.settings(values)
            except UserError as error:
                one.problem = str(error)
                yield conversation_html(one), status_line(one), gr.skip()
                return
            yield from _followed(one, one.ask(question, settings, place == BEFORE))

        return ask

    def _again(self, controls: Controls) -> Any:
        def again(one: Conversation, *values: Any) -> Iterator[Any]:
            try:
                settings = controls.settings(values)
            except UserError as error:
                one.problem = str(error)
                yield conversation_html(one), status_line(one), gr.skip()
                return
            if one.last is None or one.answering:
                yield gr.skip(), gr.skip(), gr.skip()
                return
            yield from _followed(one, one.regenerate(settings), keeps=True)

        return again

    def _edit(self, one: Conversation) -> Any:
        if one.last is None or one.answering:
            return gr.skip(), gr.skip(), gr.skip()
        composed = one.undo()
        return conversation_html(one), status_line(one), _value(composed)

    def _undo(self, one: Conversation) -> Any:
        one.undo()
        return conversation_html(one), status_line(one), gr.skip()

    def _new(self, one: Conversation) -> Any:
        one.clear()
        return conversation_html(one), status_line(one), gr.skip()

    def _export(self, one: Conversation) -> Any:
        try:
            path = export_zip(one)
        except UserError as error:
            one.problem = str(error)
            return None, conversation_html(one)
        return str(path), gr.skip()

    def _tokens(self, one: Conversation | None) -> str:
        seen = one.last.seen if one is not None and one.last is not None else None
        if one is None or one.last is None or seen is None:
            return '<p class="mio-empty">The tokens of the conversation will be here.</p>'
        pending = one.last.pending
        written = pending.ticket.answer.tokens if pending is not None else []
        return tokens_html(self._host.run.model, seen.request.prompt, written)

    # what helps composing

    def _camera(self, composer: gr.MultimodalTextbox) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        mirror = gr.WebcamOptions(mirror=False)
        with gr.Accordion("Camera", open=False, elem_id="mio-camera"):
            if self._host.of_type(forms.IMAGE):
                photo = gr.Image(
                    sources=["webcam"], type="filepath", label="Picture", webcam_options=mirror, height=220
                )
                photo.input(_added, [composer, photo], [composer, photo], **quiet)
            if self._host.of_type(forms.VIDEO):
                video = gr.Video(sources=["webcam"], label="Video", webcam_options=mirror, height=220)
                video.stop_recording(_added, [composer, video], [composer, video], **quiet)

    def _example_list(self, composer: gr.MultimodalTextbox, controls: Controls) -> None:
        tasks = self._examples.tasks
        if not tasks:
            return
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        with gr.Accordion("Held-out examples", elem_id="mio-examples"):
            task = gr.Dropdown(tasks, value=tasks[0], label="Task", filterable=True)
            cards = gr.HTML(self._cards(tasks[0]), js_on_load=CHOICE, elem_id="mio-cards")
        task.change(self._cards, task, cards, **quiet)

        def taken(name: str, event: gr.EventData) -> Any:
            found = self._examples.of(name)
            number = event._data.get("number", -1) if isinstance(event._data, dict) else -1
            if not isinstance(number, int) or not 0 <= number < len(found):
                return gr.skip(), *(gr.skip() for _ in controls.updates)
            one = found[number]
            return _value(one.composed), *controls.of_output(one.output)

        cards.click(taken, task, [composer, *controls.updates], **quiet)

    def _cards(self, task: str) -> str:
        made = self._examples.of(task)
        if not made:
            reason = self._examples.left_out.get(task, "it has none")
            return f'<p class="mio-quiet">No example of this task: {escape(reason)}</p>'
        cards = "".join(
            f'<div class="mio-card" role="button" tabindex="0" data-number="{number}">{one.html}</div>'
            for number, one in enumerate(made)
        )
        return f'<div class="mio-cards">{cards}</div>'


_EMPTY = '<div class="mio-turns"><p class="mio-empty">Ask something, or take an example.</p></div>'


def _followed(one: Conversation, steps: Iterator[None], keeps: bool = False) -> Iterator[Any]:
    """What the page shows while an answer is given. `keeps`: what is being composed stays."""
    busy: dict[str, Any] = {"submit_btn": False, "stop_btn": True}
    yield gr.skip(), gr.skip(), gr.update(**busy) if keeps else _value(Composed(), **busy)
    for _ in steps:
        yield conversation_html(one), status_line(one), gr.skip()
    yield conversation_html(one), status_line(one), gr.skip()


def _rested(one: Conversation) -> Any:
    """What the composer is when an answer is over: for the next question, or with the one that was refused."""
    if one.answering:
        return gr.skip()
    refused, one.refused = one.refused, None
    idle: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
    return gr.update(**idle) if refused is None else _value(refused, **idle)


def _value(composed: Composed, **more: Any) -> Any:
    return gr.update(value={"text": composed.text, "files": [str(path) for path in composed.files]}, **more)


def _added(composed: Any, path: str | None) -> Any:
    """A file that was just recorded, behind those that are there."""
    if not path:
        return gr.skip(), gr.skip()
    value = composed or {"text": "", "files": []}
    return {"text": value["text"], "files": [*value["files"], path]}, None


def _close(one: Conversation | None) -> None:
    if one is not None:
        one.close()


def _can(host: Host, name: str) -> str:
    does = [word for word, there in (("reads", name in host.suffixes), ("writes", name in host.writes)) if there]
    return " and ".join(does if name != "text" else ["reads", "writes"])


def _hint(host: Host) -> str:
    if not host.suffixes:
        return "Write a message"
    return "Write, drop or paste files; {1} is where the first one goes"

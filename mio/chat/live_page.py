"""The part of the page in which one talks to the model while it listens."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from mio.api import forms
from mio.chat.host import Host

SCRIPT = Path(__file__).with_name("live.js")


def live_tab(host: Host) -> None:
    """Makes the tab's content, which `live.js` moves."""
    sounds = [name for name in host.writes if host.media_types.get(name) == forms.AUDIO]
    outputs = "".join(
        f'<option value="{escape(name, quote=True)}">{escape(told)}</option>'
        for name, told in (("", "answers as it likes"), *((name, f"answers with {name}") for name in sounds))
    )
    shows = ",".join(sorted({suffix for endings in host.suffixes.values() for suffix in endings}))
    gr.HTML(
        f"""
        <div class="mio-live">
          <div class="mio-live-bar">
            <button type="button" class="mio-talk" aria-pressed="false">Start talking</button>
            <span class="mio-level" aria-hidden="true"><span></span></span>
            <span class="mio-live-state" role="status">The microphone is off.</span>
            <label class="mio-show" tabindex="0">Show a file<input type="file" accept="{shows}" hidden></label>
            <select class="mio-live-output" aria-label="Answers">{outputs}</select>
          </div>
          <div class="mio-turns mio-live-log" role="log" aria-live="polite">
            <p class="mio-empty">Talk, show, or type: the model listens while it answers,
            and stops when something new is meant for it.</p>
          </div>
          <form class="mio-live-form">
            <input type="text" placeholder="Or type" aria-label="Or type" autocomplete="off">
            <button type="submit">Send</button>
          </form>
        </div>
        """,
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        elem_id="mio-live",
    )

"""The server of the page: gradio within an application of our own, on this machine alone unless told otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

# read when gradio is imported: no figures of use, no question for a newer version
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mio.chat.examples import Examples
from mio.chat.host import Host
from mio.chat.live import Lives
from mio.chat.page import Page
from mio.core.contract.sessions import SessionPolicy

FONTS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "Noto Sans", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
"""Fonts of the system: none is fetched."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
CSS = Path(__file__).with_name("page.css")
STREAM = Path(__file__).with_name("stream.js")
"""Sees to it that the page reads what becomes of every event."""
LARGEST = "256mb"
"""Of a file that is given."""
_SWITCH = 5e-4
"""Seconds after which a thread gives the interpreter to another, as in `mio serve`."""


def application(host: Host, policy: SessionPolicy | None = None, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The page as an application.

    Args:
        policy: how live conversations go; None: there are none.
        hosts: names by which it may be called, so that no other page reaches it by a name of its own; empty: any.
    """
    lives = Lives(host, policy)
    app = FastAPI(title="mio chat", docs_url=None, redoc_url=None, openapi_url=None)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.include_router(lives.router())
    page = Page(host, Examples(host, host.new_folder()), policy is not None).blocks()
    served: FastAPI = gr.mount_gradio_app(
        app,
        page,
        "/",
        footer_links=[],
        run_history=False,
        allowed_paths=[str(host.folder)],
        show_error=True,
        max_file_size=LARGEST,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=CSS.read_text(encoding="utf-8"),
        head=f"<script>{STREAM.read_text(encoding='utf-8')}</script>",
    )
    return served


def _theme() -> gr.themes.Base:
    plain: Any = gr.themes.Base(
        primary_hue="indigo",
        secondary_hue="slate",
        neutral_hue="slate",
        radius_size="lg",
        font=FONTS,
        font_mono=MONOSPACE,
    )
    theme: gr.themes.Base = plain.set(
        body_background_fill="*neutral_50",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        checkbox_label_background_fill="*neutral_100",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_background_fill_hover="*neutral_200",
        checkbox_label_background_fill_hover_dark="*neutral_700",
        checkbox_label_background_fill_selected="*primary_100",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_text_size="*text_sm",
        block_label_text_size="*text_xs",
        block_title_text_size="*text_sm",
    )
    return theme


class Server(uvicorn.Server):
    """Serves the page until it is told to stop.

    Args:
        started: called when it takes requests.
    """

    def __init__(self, app: FastAPI, started: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws_max_size=64 << 20,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._told = started
        self.interrupted = False
        """Whether it was stopped by Ctrl-C."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True
        self.interrupted = sig == signal.SIGINT

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()


def run(server: Server, sock: socket.socket) -> None:
    """Serves until it is stopped."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        asyncio.run(server.serve(sockets=[sock]))
    finally:
        sys.setswitchinterval(before)

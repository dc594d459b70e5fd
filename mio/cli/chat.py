"""`mio chat`: a page to talk to a trained model."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mio.cli.addresses import is_loopback
from mio.cli.devices import Devices, listening, start_processes
from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Policy,
    Precision,
    RunFolder,
    SessionOptions,
    device_and_precision,
    refuse_no_run,
    session_options,
)
from mio.core.errors import Interrupted, UserError

if TYPE_CHECKING:
    from mio.core.distributed.ranks import Ranks


def chat(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine reach 0.0.0.0.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Answers that are made together; others wait.")] = 8,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Of all answers; default: a new one for each.", show_default=False),
    ] = None,
    options: SessionOptions = [],
    policy: Policy = "",
    average: Average = False,
    device: Device = "auto",
    devices: Devices = 1,
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Talk to a trained model in a browser, until Ctrl-C. Nothing leaves the machine.

    mio chat runs/stage4
    """
    refuse_no_run(run)
    kind, dtype = device_and_precision(device, precision)
    local, changed = is_loopback(host), session_options(options)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mio-chat-")))
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "given")  # read when gradio is imported
        try:
            from mio.chat.live import live_policy
            from mio.chat.server import LOOPBACK, Server, application
            from mio.chat.server import run as run_server
        except ModuleNotFoundError as error:
            raise UserError(f"`mio chat` needs the package {error.name}: `pip install 'mio[chat]'`") from error
        from mio.api.loaded import Loaded
        from mio.chat.host import Host

        start_processes(devices)

        def opened(ranks: Ranks | None) -> Loaded:
            return Loaded.open(run, kind, dtype, average=average, plugins=plugin, rows=rows, ranks=ranks)

        with listening(devices, kind, opened, host, port) as place:
            if place is None:
                return
            if not local:
                typer.echo(f"warning: anybody who reaches {host} can use the model and its page", err=True)
            shared = Host(place.loaded, folder / "conversations", run.resolve().name, seed)
            app = application(shared, live_policy(shared, policy, changed), LOOPBACK if local else ())
            server = Server(app, lambda: typer.echo(f"{shared.name}: {place.url}/", err=True))
            run_server(server, place.sock)
    if server.interrupted:
        raise Interrupted("the page is closed")

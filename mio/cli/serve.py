"""`mio serve`: a trained model behind HTTP."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mio.cli.addresses import is_loopback
from mio.cli.devices import Devices, listening, start_processes
from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Precision,
    RunFolder,
    decoding_option,
    device_and_precision,
    refuse_no_run,
)
from mio.core.errors import Interrupted, UserError

if TYPE_CHECKING:
    from mio.core.distributed.ranks import Ranks

KEY = "MIO_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine reach 0.0.0.0.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model; default: the folder's name.")] = "",
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Answers that are made together; others wait.")] = 16,
    template: Annotated[
        list[str],
        typer.Option(
            metavar="speech|transcription|image=PROMPT",
            help="How it is asked: SET/DIRECTION, or text with one field in braces. Default: as it was trained.",
            show_default=False,
        ),
    ] = [],
    media_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder whose files requests may name.", show_default=False)
    ] = None,
    allow_origin: Annotated[
        list[str], typer.Option(metavar="ORIGIN", help="Web pages that may ask: https://HOST.", show_default=False)
    ] = [],
    allow_host: Annotated[
        list[str], typer.Option(metavar="NAME", help="A name that the server is called by.", show_default=False)
    ] = [],
    max_body: Annotated[int, typer.Option(min=1, max=4096, help="Megabytes of a request.")] = 32,
    max_media: Annotated[int, typer.Option(min=0, max=10_000, help="Media in a request.")] = 32,
    max_pixels: Annotated[int, typer.Option(min=1, help="Width times height of a picture or frame.")] = 16_000_000,
    max_seconds: Annotated[float, typer.Option(min=0.01, max=86_400, help="Of a recording or video.")] = 120.0,
    max_tokens: Annotated[int, decoding_option("max_tokens", "Of an answer.")] = 4096,
    max_choices: Annotated[int, typer.Option(min=1, max=1000, help="Answers to one request.")] = 8,
    max_waiting: Annotated[int, typer.Option(min=0, max=100_000, help="Answers that wait; beyond: 429.")] = 128,
    max_connections: Annotated[int, typer.Option(min=1, max=100_000, help="Open connections.")] = 512,
    timeout: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds for an answer.")] = 600.0,
    client_timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that a client may take to send, or to read.")
    ] = 30.0,
    grace: Annotated[float, typer.Option(min=0, max=3600, help="Seconds for answers to end in, when stopped.")] = 30.0,
    average: Average = False,
    device: Device = "auto",
    devices: Devices = 1,
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Serve a trained model by OpenAI's API, until Ctrl-C or SIGTERM. The environment variable MIO_API_KEY holds the
    key that clients have to give.

    mio serve runs/stage4 --port 8000
    """
    templates = _templates(template)
    if media_folder is not None and not media_folder.is_dir():
        raise UserError(f"--media-folder {media_folder}: is no folder")
    key = os.environ.get(KEY, "")
    refuse_no_run(run)
    kind, dtype = device_and_precision(device, precision)
    try:
        from mio.serve.limits import MEGABYTE, Limits
        from mio.serve.server import Server
        from mio.serve.server import run as run_server
        from mio.serve.service import Service, Settings
    except ModuleNotFoundError as error:
        raise UserError(f"`mio serve` needs the package {error.name}: `pip install 'mio[serve]'`") from error
    from mio.api.loaded import Loaded

    limits = Limits(
        body=max_body * MEGABYTE,
        media=max_media,
        pixels=max_pixels,
        seconds=max_seconds,
        max_tokens=max_tokens,
        choices=max_choices,
        waiting=max_waiting,
        connections=max_connections,
        header_timeout=min(10.0, client_timeout),
        body_timeout=client_timeout,
        write_timeout=client_timeout,
        answer_timeout=timeout,
        grace=grace,
    )
    local = is_loopback(host)
    settings = Settings(
        name=name,
        rows=rows,
        limits=limits,
        key=key,
        folder=media_folder,
        templates=templates,
        origins=tuple(allow_origin),
        hosts=(*(_LOOPBACK if local and not key else ()), *allow_host),
    )
    start_processes(devices)

    def opened(ranks: Ranks | None) -> Loaded:
        return Loaded.open(run, kind, dtype, average=average, plugins=plugin, rows=rows, ranks=ranks)

    with listening(devices, kind, opened, host, port) as place:
        if place is None:
            return
        if not local and not key:
            typer.echo(f"warning: anybody who reaches {host} can use the model; set {KEY} to a key", err=True)
        model = place.loaded.model
        settings = replace(settings, name=name or model.recipe.name)  # bundles lie under other names
        told = f"{settings.name}: {place.url}/v1"
        server = Server(Service(model, settings), lambda: typer.echo(told, err=True))
        code = run_server(server, place.sock)
    if code:
        raise Interrupted("the server has stopped")


def _templates(given: list[str]) -> dict[str, str]:
    templates = {}
    for one in given:
        kind, equals, text = one.partition("=")
        if not equals or not text:
            raise typer.BadParameter(f"--template {one}: write KIND=PROMPT, as in speech='Say this: {{text}}'")
        templates[kind] = text
    return templates

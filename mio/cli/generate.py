"""`mio generate`: one answer from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Precision,
    RunFolder,
    device_and_precision,
    finite,
    open_run,
    writable_folder,
)


def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Argument(help="Text, with media as {MODALITY:FILE}.", show_default=False)],
    output: Annotated[str, typer.Option(metavar="MODALITY", help="Modality that the answer is to have.")] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the answer's media.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer's parts as JSON.")] = False,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, callback=finite, help="Temperature of text; 0 is greedy.")
    ] = 0.0,
    media_temperature: Annotated[
        float, typer.Option(min=0, max=100, callback=finite, help="Temperature of codes.")
    ] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Nucleus that codes and text are drawn from.")
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most tokens of the answer.")] = 256,
    most: Annotated[
        int, typer.Option(min=0, help="Most media of each modality; 0: any number, or one of --output.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=0, max=10_000, help="Steps in which a head makes media; 0: its own.")] = 0,
    guidance: Annotated[
        float,
        typer.Option(
            min=0, max=1000, callback=finite, help="Guidance of media by what is asked; 1: none; 0: a head's own."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = 0,
    beyond_context: Annotated[
        bool, typer.Option("--beyond-context", help="Prompt and answer may be longer than what the model has seen.")
    ] = False,
    average: Average = False,
    device: Device = "auto",
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Answer a prompt of text and media; the answer's media land as files, beside those that are there.

    mio generate runs/stage4 "Please generate an image according to the given description. seven" --output image
    """
    if output or out != Path():  # an answer of text needs no folder
        writable_folder("--out", out)
    trained = open_run(run, plugin, average=average)
    kind, dtype = device_and_precision(device, precision)

    from mio.core.contract.controls import CONTROL
    from mio.core.contract.values import Decoding
    from mio.core.generation.generate import generate as answer_prompt
    from mio.core.generation.model import Model
    from mio.core.terminal import json_text, plain

    decoding = Decoding(
        temperature=temperature,
        media_temperature=media_temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        most=most,
        steps=steps,
        guidance=guidance,
    )
    made = answer_prompt(Model.of(trained, kind, dtype), prompt, output, out, decoding, seed, beyond_context)
    if made.notice:
        typer.echo(made.notice, err=True)
    content = made.to_json()
    if as_json:
        typer.echo(json_text(content))
        return
    for part in content["parts"]:
        typer.echo(plain(f"[{part['name']}]" if part["type"] == CONTROL else part.get("text", part.get("path"))))

"""`mio generate`: answers from a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mio.cli.devices import Devices, held_together, start_processes
from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Precision,
    RunFolder,
    decoding_option,
    device_and_precision,
    refuse_no_run,
    writable_folder,
)
from mio.core.errors import MOST_LISTED, UserError

if TYPE_CHECKING:
    from mio.api import AnswerEvent, Loaded
    from mio.core.distributed.ranks import Ranks


def generate(
    run: RunFolder,
    prompt: Annotated[
        str | None, typer.Argument(help="Text, with media as {MODALITY:FILE}; or --prompts.", show_default=False)
    ] = None,
    output: Annotated[str, typer.Option(metavar="MODALITY", help="Modality that the answer is to have.")] = "",
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A prompt a line: as typed, or in a file .jsonl strings and objects."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for answers to --prompts and for media.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer's parts as JSON.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it comes.")] = False,
    temperature: Annotated[float | None, decoding_option("temperature", "Temperature of text; 0 is greedy.")] = None,
    media_temperature: Annotated[float | None, decoding_option("media_temperature", "Temperature of codes.")] = None,
    top_p: Annotated[float | None, decoding_option("top_p", "Nucleus that codes and text are drawn from.")] = None,
    top_k: Annotated[int | None, decoding_option("top_k", "Draw from so many of the likeliest tokens; 0: all.")] = None,
    min_p: Annotated[
        float | None, decoding_option("min_p", "Leave out what is less likely than this share of the best.")
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        decoding_option("repetition_penalty", "Above 1: what was said is less likely to come again."),
    ] = None,
    beams: Annotated[int | None, decoding_option("beams", "Beam search of an answer of text, among so many.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Text that ends the answer; may be given several times.")
    ] = None,
    max_tokens: Annotated[int | None, decoding_option("max_tokens", "Most tokens of the answer.")] = None,
    most: Annotated[
        int | None, decoding_option("most", "Most media of each modality; 0: any number, or one of --output.")
    ] = None,
    steps: Annotated[int | None, decoding_option("steps", "Steps in which a head makes media; 0: its own.")] = None,
    guidance: Annotated[
        float | None,
        decoding_option("guidance", "Guidance of media by what is asked; 1: none; 0: a head's own."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = 0,
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Answers to --prompts that are made together.")] = 16,
    beyond_context: Annotated[
        bool, typer.Option("--beyond-context", help="Prompt and answer may be longer than what the model has seen.")
    ] = False,
    average: Average = False,
    devices: Devices = 1,
    device: Device = "auto",
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Answer a prompt of text and media; the answer's media land as files, beside those that are there.

    mio generate runs/stage4 "Please generate an image according to the given description. seven" --output image

    mio generate runs/stage4 --prompts prompts.jsonl --out answers
    """
    if (prompt is None) == (prompts is None):
        given = "one of them, not both" if prompt is not None else "one of them"
        raise typer.BadParameter(f"a prompt or --prompts FILE: give {given}")
    if prompts is not None and out == Path() and not as_json:
        raise typer.BadParameter("--prompts needs --out DIR, where the answers are kept, or --json, which prints them")
    if stream and (as_json or prompts is not None):
        raise typer.BadParameter("--stream prints one answer as it comes: leave out --json and --prompts")
    if output or out != Path():  # an answer of text needs no folder
        writable_folder("--out", out)
    refuse_no_run(run)
    kind, dtype = device_and_precision(device, precision)
    options: dict[str, Any] = {
        "temperature": temperature,
        "media_temperature": media_temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "beams": beams,
        "stop": stop or None,
        "max_tokens": max_tokens,
        "most": most,
        "steps": steps,
        "guidance": guidance,
    }

    start_processes(devices)
    chosen = {name: value for name, value in options.items() if value is not None}
    from mio.api.loaded import Loaded

    def opened(ranks: Ranks | None) -> Loaded:
        together = rows if prompts is not None else 1
        return Loaded.open(run, kind, dtype, average=average, plugins=plugin, rows=together, ranks=ranks)

    with held_together(devices, kind, opened, lambda made: made.model) as loaded:
        if loaded is None:
            return
        if prompts is not None:
            _answer_file(loaded, prompts, out, as_json, (output, seed, beyond_context), chosen)
            return
        question = {"output": output, "seed": seed, "beyond_context": beyond_context, **chosen}
        _answer(loaded, prompt or "", out, as_json, stream, question)


def _answer(run: Loaded, prompt: str, out: Path, as_json: bool, stream: bool, question: dict[str, Any]) -> None:
    """Answers a prompt as it is typed."""
    from mio.api.prompt_file import typed_prompt
    from mio.core.terminal import json_text, plain

    content = typed_prompt(run, prompt)
    if stream:
        _print(run.generate(content, stream=True, **question), run, out)
        return
    answer = run.generate(content, **question)
    if answer.notice:
        typer.echo(answer.notice, err=True)
    told = answer.to_json(out)
    if as_json:
        typer.echo(json_text(told))
        return
    for part in told["parts"]:
        typer.echo(plain(f"[{part['name']}]" if part["type"] == "control" else part.get("text", part.get("path"))))


def _print(events: Iterator[AnswerEvent], run: Loaded, folder: Path) -> None:
    """Prints an answer as it comes: pieces of text, paths of media once they are complete."""
    from mio import api
    from mio.core.generation.saving import save_beside
    from mio.core.terminal import plain

    line = ""
    """What the line that is being written ends with."""
    for event in events:
        if isinstance(event, api.TextPiece):
            line = plain(event.text)
            typer.echo(line, nl=False)
            continue
        told = ""
        if isinstance(event, api.SaidControl):
            told = f"[{event.name}]"
        elif isinstance(event, api.WholeMedia):
            saver = run.model.codecs.saver(event.modality)
            told = str(save_beside(saver, event.content, folder, event.modality, event.part))
        elif not isinstance(event, api.Over):
            continue
        if line:
            typer.echo()
            line = ""
        if told:
            typer.echo(plain(told))
        if isinstance(event, api.Over) and isinstance(event.answer, api.Reply) and event.answer.notice:
            typer.echo(event.answer.notice, err=True)


def _answer_file(
    run: Loaded, prompts: Path, out: Path, as_json: bool, asked: tuple[str, int, bool], options: dict[str, Any]
) -> None:
    """Answers the prompts of a file; output, seed and whether they may go beyond the context are what was `asked`.
    Raises `UserError` if some have no answer."""
    from mio.api.answer_file import ANSWERS, AnswerFile
    from mio.api.answer_prompts import PromptAnswering
    from mio.api.prompt_file import read_prompts
    from mio.core.generation.generate import Question
    from mio.core.terminal import Progress, console, json_text, plain

    output, seed, beyond_context = asked
    question = Question(content=(), output=output, seed=seed, beyond_context=beyond_context)
    lines = read_prompts(run, prompts, question, options)
    if not lines:
        raise UserError(f"{prompts}: holds no prompts")
    file = AnswerFile(out, lines, run.identity) if out != Path() else None
    with Progress(console(stderr=True), str(prompts), len(lines), "answers") as progress:

        def tell(number: int, answer: dict[str, Any]) -> None:
            if as_json:
                typer.echo(json_text({"line": number, **answer}))
            progress.tick()

        progress.skip(len(file.kept) if file else 0)
        problems = PromptAnswering(run, out, file, tell).answer(lines)
    for number, problem in list(problems.items())[:MOST_LISTED]:
        typer.echo(plain(f"{prompts}, line {number}: {problem}"), err=True)
    if file and not as_json:
        typer.echo(str(out / ANSWERS))
    if problems:
        raise UserError(
            f"{prompts}: {len(problems)} of {len(lines)} prompts have no answer; correct them, and give the same "
            "command again"
        )

"""`mio generate`: answers from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Precision,
    RunFolder,
    device_and_precision,
    finite,
    refuse_no_run,
    writable_folder,
)
from mio.core.errors import MOST_LISTED, UserError

if TYPE_CHECKING:
    from mio.api.loaded import Loaded


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
    temperature: Annotated[
        float | None, typer.Option(min=0, max=100, callback=finite, help="Temperature of text; 0 is greedy.")
    ] = None,
    media_temperature: Annotated[
        float | None, typer.Option(min=0, max=100, callback=finite, help="Temperature of codes.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, callback=finite, help="Nucleus that codes and text are drawn from.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Most tokens of the answer.")] = None,
    most: Annotated[
        int | None, typer.Option(min=0, help="Most media of each modality; 0: any number, or one of --output.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, max=10_000, help="Steps in which a head makes media; 0: its own.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0, max=1000, callback=finite, help="Guidance of media by what is asked; 1: none; 0: a head's own."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = 0,
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Answers to --prompts that are made together.")] = 16,
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

    mio generate runs/stage4 --prompts prompts.jsonl --out answers
    """
    if (prompt is None) == (prompts is None):
        raise typer.BadParameter("give a prompt, or --prompts FILE")
    if prompts is not None and out == Path() and not as_json:
        raise typer.BadParameter("--prompts needs --out DIR, where the answers are kept, or --json, which prints them")
    if output or out != Path():  # an answer of text needs no folder
        writable_folder("--out", out)
    refuse_no_run(run)
    kind, dtype = device_and_precision(device, precision)
    options = {
        "temperature": temperature,
        "media_temperature": media_temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "most": most,
        "steps": steps,
        "guidance": guidance,
    }

    chosen = {name: value for name, value in options.items() if value is not None}
    import mio
    from mio.api.prompt_file import typed_prompt
    from mio.core.terminal import json_text, plain

    loaded = mio.load(run, kind, dtype, average=average, plugins=plugin, rows=rows if prompts is not None else 1)
    if prompts is not None:
        _answer_file(loaded, prompts, out, as_json, (output, seed, beyond_context), chosen)
        return
    content = typed_prompt(loaded, prompt or "")
    answer = loaded.generate(content, output, seed=seed, beyond_context=beyond_context, **chosen)
    if answer.notice:
        typer.echo(answer.notice, err=True)
    told = answer.to_json(out)
    if as_json:
        typer.echo(json_text(told))
        return
    for part in told["parts"]:
        typer.echo(plain(f"[{part['name']}]" if part["type"] == "control" else part.get("text", part.get("path"))))


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

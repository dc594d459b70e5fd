"""`mio talk`: a live conversation with a trained model."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Policy,
    Precision,
    RunFolder,
    SessionOptions,
    device_and_precision,
    open_run,
    refuse_no_run,
    session_options,
    writable_folder,
)
from mio.core.errors import Interrupted, UserError

if TYPE_CHECKING:
    from mio.core.live.events import SessionEvent
    from mio.core.live.realtime import Put
    from mio.core.live.session import Session


def talk(
    run: RunFolder,
    recording: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Recording to listen to; default: text that is typed."),
    ] = None,
    shown: Annotated[
        list[str],
        typer.Option("--show", metavar="MODALITY:FILE", help="Media that questions are about. Repeatable."),
    ] = [],
    image: Annotated[list[Path], typer.Option(metavar="FILE", help="The same as --show image:FILE.")] = [],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for media of answers.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="Listen to the recording as long as it lasts; default: simulated time.")
    ] = False,
    step: Annotated[float, typer.Option(min=1e-6, max=60, help="Seconds that a token takes in simulated time.")] = 0.02,
    options: SessionOptions = [],
    policy: Policy = "",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = 0,
    average: Average = False,
    device: Device = "auto",
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Talk to a model: it listens while it answers, and stops when something new is meant for it.

    Text is typed, a line at a time; media in it are written {MODALITY:FILE}. Ctrl-D ends the conversation.

    mio talk runs/vita --input questions.wav --image three.png --json
    """
    refuse_no_run(run)
    writable_folder("--out", out)
    items = [*(_named(one) for one in shown), *(("image", path) for path in image)]
    changed = session_options(options)
    if recording is None and sys.stdin is None:
        raise UserError("standard input is closed: there is nothing to answer; give a recording with --input")
    trained = open_run(run, plugin, average=average)
    kind, dtype = device_and_precision(device, precision)

    from mio.core.generation.model import Model
    from mio.core.live.clock import RealClock, SimulatedClock
    from mio.core.live.session import Session

    typing = recording is None and sys.stdin.isatty()
    clock = RealClock() if real_time or typing else SimulatedClock(step)
    session = Session(Model.of(trained, kind, dtype), policy, changed, clock=clock, seed=seed)
    printer = _Printer(session, out, as_json)
    chunks = None if recording is None else _chunks(session, recording)
    for modality, path in items:
        _show(session, modality, path)
    try:
        if chunks is None:
            _typed(session, printer, typing)
        else:
            _recorded(session, printer, chunks, real_time)
    except KeyboardInterrupt:
        printer.close()
        raise Interrupted(f"the conversation ends here; {printer.summary}") from None
    printer.close()
    if chunks is not None and not printer.heard:
        typer.echo(f"{recording}: nothing was heard in it that is a query", err=True)


def _named(text: str) -> tuple[str, Path]:
    modality, colon, path = text.partition(":")
    if not colon or not modality or not path:
        raise typer.BadParameter(f"--show {text}: must be MODALITY:FILE, as in image:three.png")
    return modality, Path(path)


def _show(session: Session, modality: str, path: Path) -> None:
    from mio.core.files import regular_file

    regular_file(path, f"{path}")
    media = session.media(modality, path)
    session.model.codecs.opened(media)
    session.show(modality, path)


def _chunks(session: Session, path: Path) -> Iterator[tuple[float, Any]]:
    """The chunks of a recording, of which the first is read: a file that is none is told at once."""
    from itertools import chain

    from mio.core.files import regular_file

    stream = session.policy.stream
    if stream is None:
        raise UserError(f"--input {path}: this conversation listens to nothing; type, or choose another --policy")
    regular_file(path, f"--input {path}")
    chunks = iter(stream.open(path))
    first = next(chunks, None)
    if first is None:
        raise UserError(f"--input {path}: holds nothing to listen to")
    return chain([first], chunks)


def _recorded(session: Session, printer: _Printer, chunks: Iterator[tuple[float, Any]], real_time: bool) -> None:
    if not real_time:
        end = 0.0
        for end, chunk in chunks:
            session.push(chunk, end)
            printer.tell_all(session.advance(end))
        session.end(end)
        printer.tell_all(session.finish())
        return
    from mio.core.live.realtime import converse
    from mio.core.live.session import Session

    def feed(put: Put) -> None:
        began = time.monotonic()
        for end, chunk in chunks:
            time.sleep(max(0.0, began + end - time.monotonic()))
            put(partial(Session.push, chunk=chunk))
        put(Session.end)

    converse(session, feed, printer.tell)


def _typed(session: Session, printer: _Printer, terminal: bool) -> None:
    """Lines of standard input: those of a terminal interrupt what is being said, those of a pipe wait for it."""
    if not terminal:
        for line in sys.stdin:
            if values := _values(session, line):
                session.say(*values)
                printer.tell_all(session.finish())
        return
    from mio.core.live.realtime import converse

    def feed(put: Put) -> None:
        for line in sys.stdin:
            put(partial(_say, line=line))

    def _say(session: Session, line: str) -> None:
        try:
            if values := _values(session, line):
                session.say(*values)
        except UserError as error:  # a wrong name ends no conversation
            typer.echo(f"error: {error}", err=True)

    converse(session, feed, printer.tell)


def _values(session: Session, line: str) -> list[Any]:
    from mio.core.generation.prompt import parse_prompt

    text = line.rstrip("\r\n")
    return parse_prompt(text, session.model.codecs.modalities) if text.strip() else []


class _Printer:
    """Prints events as they happen, and writes their media."""

    def __init__(self, session: Session, folder: Path, as_json: bool) -> None:
        self._session, self._folder, self._as_json = session, folder, as_json
        self._open = False
        """Whether the cursor stands behind a piece of text."""
        self.heard = self.answered = self.files = 0

    @property
    def summary(self) -> str:
        """What there is of the conversation."""
        return f"{self.answered} answers were given whole, {self.files} files are in {self._folder.resolve()}"

    def tell_all(self, events: Sequence[SessionEvent]) -> None:
        for event in events:
            self.tell(event)

    def tell(self, event: SessionEvent) -> None:
        from mio.core.live import events
        from mio.core.terminal import json_text

        if event.kind == events.CHUNK:
            return  # of media that follow as a whole
        self.heard += event.kind in (events.HEARD, events.IGNORED)
        self.answered += event.kind == events.DONE
        path = self._write(event) if event.kind == events.MEDIA else None
        if self._as_json:
            typer.echo(json_text(event.to_json(path)))
        elif event.kind == events.TEXT:
            self._text(event.text)
        elif line := _line(event, path):
            self.close()
            typer.echo(line)
        elif event.kind == events.DONE:
            self.close()
        sys.stdout.flush()

    def _text(self, text: str) -> None:
        from mio.core.terminal import plain

        typer.echo(plain(text), nl=False)
        self._open = True

    def close(self) -> None:
        """Ends the line that text has begun."""
        if self._open:
            typer.echo()
        self._open = False

    def _write(self, event: SessionEvent) -> Path:
        from mio.core.generation.saving import save_beside

        self.files += 1
        return save_beside(self._session.saver(event), event.content, self._folder, event.modality, self.files - 1)


def _line(event: SessionEvent, path: Path | None) -> str:
    """A line about an event that is no text."""
    from mio.core.live import events
    from mio.core.terminal import plain

    where = f" {event.start:.2f}-{event.end:.2f} s" if event.end else ""
    lines = {
        events.HEARD: f"[heard{where}]",
        events.IGNORED: f"[ignored{where}: {plain(event.reason)}]",
        events.FAILED: f"[failed: {plain(event.reason)}]",
        events.SILENCE: "[silence]",
        events.INTERRUPTED: "[interrupted]",
        events.MEDIA: f"[{event.modality}: {plain(str(path))}]",
    }
    return lines.get(event.kind, "")

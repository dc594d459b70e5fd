"""The command `mio`: its subcommands, and how mistakes, interruptions and defects end it.

Exit codes: 0 done; 2 a mistake in the arguments or files, or a refusal of the system, in one line; 130 interrupted; 1 a
defect, with a traceback.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

import mio
from mio.cli import chat, evaluate, export, fit, generate, import_, plan, plugins, recipe, report, serve, talk, tokenize
from mio.cli.deferred import defer_metrics
from mio.cli.failures import explained, passes
from mio.cli.plugin_commands import WithPlugins, advice
from mio.cli.threads import settle_threads
from mio.core.distributed.ranks import launched
from mio.core.errors import Interrupted, PeerFailed, UserError
from mio.core.terminal import plain

INTERRUPTED = 130
GO_ON, ANEW = "give the same command again to go on", "the same command starts over"
_KEEPS = ("fit", "tokenize", "evaluate")
"""Commands that go on where they were interrupted."""

app = typer.Typer(
    name="mio",
    cls=WithPlugins,
    help="Trains any-to-any multimodal foundation models from recipes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("fit")(fit.fit)
app.command("tokenize")(tokenize.tokenize)
app.command("generate")(generate.generate)
app.command("talk")(talk.talk)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("plan")(plan.plan)
app.add_typer(plugins.app, name="plugins")
app.add_typer(recipe.app, name="recipe")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mio {mio.__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show it.")) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits. `arguments` default to those of the process."""
    settle_threads()
    defer_metrics()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character ends nothing
    code = run(sys.argv[1:] if arguments is None else arguments)
    if launched():
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """Ends one of several ranks. A thread of gloo that wakes up while the interpreter is taken down aborts the process,
    and a launcher would take a finished run for a failed one: the interpreter is not taken down."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit code. Defects are raised."""
    try:
        code = app(list(arguments), prog_name="mio", standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message().rstrip(".")
        if not message:  # a group without a command has printed its help
            return error.exit_code
        hint = "" if "--help" in message else "; `mio --help` lists what there is"
        return _fail(f"{message}{advice(arguments, _own(), message) or hint}", error.exit_code)
    except UserError as error:
        return _fail(str(error), 2)
    except PeerFailed as error:
        return error.code
    except Interrupted as error:
        return _fail(str(error), INTERRUPTED, "interrupted")
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except BrokenPipeError:  # the reader of the output has left, as `head` does
        sys.stderr.close()
        return 0
    except Exception as error:
        message = explained(error)
        if not message:
            raise
        return _fail(message, 1 if launched() and passes(error) else 2)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code
        return _interrupted(arguments)
    return code if isinstance(code, int) else 0


def _own() -> list[str]:
    """Names of mio's own commands."""
    return [*(str(one.name) for one in app.registered_commands), *(str(one.name) for one in app.registered_groups)]


def _interrupted(arguments: Sequence[str]) -> int:
    return _fail(GO_ON if arguments and arguments[0] in _KEEPS else ANEW, INTERRUPTED, "interrupted")


def _fail(message: str, code: int, word: str = "error") -> int:
    print(f"{word}: {plain(' '.join(message.split()))}", file=sys.stderr)
    return code

"""The command line. Commands hold no logic of their own and import what they run when they run it."""

import sys


def main() -> None:
    """Runs the command line, and says in one line that it was interrupted also while it is imported."""
    try:
        from mio.cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted: nothing was begun", file=sys.stderr)
        sys.exit(130)
    run()

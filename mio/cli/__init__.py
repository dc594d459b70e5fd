"""The command line. Commands hold no logic of their own and import what they run when they run it."""

from mio.cli.app import main

__all__ = ["main"]

"""Loading checkpoints of transformers from local folders, without a word and without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mio import UserError
from mio.plugins.benchmarks.options import WANTED

T = TypeVar("T")

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""What every loading function is given: nothing is fetched, and no code that comes with a checkpoint runs."""


def loaded(option: str, folder: Path, load: Callable[[], T]) -> T:
    """What `load` gives. Raises `UserError` where the folder does not hold it, or transformers is not installed."""
    try:
        from transformers.utils import logging
    except ImportError:
        raise UserError(f"plugins.benchmarks: `{option}` needs transformers: pip install 'mio[benchmarks]'") from None
    shows = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"plugins.benchmarks: `{option}`: {folder}: {line}; name {WANTED[option]}") from error
    finally:
        if shows:
            logging.enable_progress_bar()

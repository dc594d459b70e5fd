"""Loading checkpoints of transformers from local folders, without a word and without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mio import UserError
from mio.plugins.benchmarks.options import WANTED

T = TypeVar("T")


def loaded(option: str, folder: Path, load: Callable[[], T]) -> T:
    """What `load` makes of a folder. Raises `UserError` where it does not hold that, or transformers is missing."""
    try:
        from transformers.utils import logging as transformers_logging
    except ImportError:
        raise UserError(f"plugins.benchmarks: `{option}` needs transformers: pip install 'mio[benchmarks]'") from None
    logging: Any = transformers_logging  # which has no types
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

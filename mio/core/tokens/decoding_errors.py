"""Errors of detokenizers: a person is told of which modality."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mio.core.errors import DataError, MioError


@contextlib.contextmanager
def naming_modality(modality: str) -> Iterator[None]:
    """Where a detokenizer of this modality is at work. `DataError` says that codes mean nothing, other errors of the
    plugin are defects."""
    try:
        yield
    except DataError as error:
        raise DataError(f"codes of `{modality}` that cannot be decoded: {error}") from error
    except MioError:
        raise
    except Exception as error:
        error.add_note(f"raised by the detokenizer of `{modality}`")
        raise

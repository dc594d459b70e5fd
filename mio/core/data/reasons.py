"""Why a record cannot be used. Free of torch."""

from __future__ import annotations

from mio.core.errors import DataError, MioError
from mio.core.tokens.temporary import without_temporary_paths


def reason_of(error: Exception, where: str) -> str:
    """Why a record cannot be used, by the error that it raised, as every process tells it: `where` names the record.

    Raises the error again if it is no record's fault.
    """
    if isinstance(error, MemoryError) or (isinstance(error, MioError) and not isinstance(error, DataError)):
        raise error
    text = without_temporary_paths(f"{error}" if isinstance(error, MioError) else f"{type(error).__name__}: {error}")
    return text if where in text else f"{where}: {text}"

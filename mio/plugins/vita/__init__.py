"""VITA: what makes a conversation out of a model that sees and hears (arXiv 2408.05211).

Options under `plugins: {vita: {...}}`:

    session: {...}   # of a live conversation, see `session.py`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mio import SessionPolicy, hookimpl


@hookimpl
def mio_session(options: Mapping[str, Any]) -> SessionPolicy:
    from mio.plugins.vita.session import policy

    return policy(options.get("session") or {})

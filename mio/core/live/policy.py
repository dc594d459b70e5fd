"""Where a conversation's policy and the model's control tokens come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mio.core.contract.sessions import SessionPolicy
from mio.core.errors import UserError
from mio.core.generation.model import Model


def policy_of(model: Model, plugin: str, options: Mapping[str, Any]) -> SessionPolicy:
    """The policy of a plugin, or of the first of the run that has one. Raises `UserError` if there is none, and for
    options that the plugin refuses."""
    plugins = model.plugins
    if plugin and plugin not in plugins.names:
        plugins = plugins.manager.enable({**plugins.options, plugin: {}})
    answer = plugins.session(options, plugin)
    if answer is not None:
        return answer[1]
    candidates = plugins.manager.candidates.items()
    known = [name for name, one in candidates if not one.problem and "mio_session" in one.hooks]
    others = f"; name one that does as the policy: {', '.join(known)}" if known else ""
    if plugin:
        raise UserError(f"plugin `{plugin}` does not say how a live conversation goes (hook `mio_session`){others}")
    raise UserError(f"{model.folder}: no plugin of the run says how a live conversation goes{others}")

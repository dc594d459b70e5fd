"""Names and token strings that plugins claim: each has one owner."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from mio.core.contract.controls import ControlToken, special_control
from mio.core.contract.values import Modality
from mio.core.errors import PluginError

T = TypeVar("T")


def unique(what: str, claims: Iterable[tuple[str, str, T]], owners: str = "plugins") -> dict[str, tuple[str, T]]:
    """name -> (owner, value). Raises `PluginError` that names both owners of a name claimed twice."""
    owned: dict[str, tuple[str, T]] = {}
    for owner, name, value in claims:
        if name in owned:
            other = owned[name][0]
            who = (
                f"`{owner}` declares it twice"
                if other == owner
                else f"the {owners} `{other}` and `{owner}` both claim it"
            )
            raise PluginError(f"{what} `{name}`: {who}")
        owned[name] = (owner, value)
    return owned


def check_tokens(declared: Sequence[tuple[str, Modality]], controls: Sequence[tuple[str, ControlToken]] = ()) -> None:
    """No token string may stand for two things: special tokens, control tokens and the numbered tokens of codes alike.

    Raises `PluginError` that names both owners.
    """
    specials, patterns = [], []
    for owner, modality in declared:
        for token in (modality.begin, modality.end, *modality.specials):
            if token:
                specials.append((owner, token, modality.name))
        if modality.codebooks:
            patterns.append((owner, modality.code_token, modality.name))
    owners = {(owner, token): name for owner, token, name in specials}  # a plugin's modalities may share a token
    said = [(owner, control.token, f"control token `{control.name}`") for owner, control in controls]
    unique("token", [*((owner, token, name) for (owner, token), name in owners.items()), *said])
    unique("code token", patterns)
    for owner, pattern, name in patterns:
        before, after = (re.escape(side) for side in pattern.split("{}"))
        for other, token, _ in (*specials, *said):
            if re.fullmatch(f"{before}[0-9]+{after}", token):
                both = f"the plugins `{other}` and `{owner}` both claim it"
                if other == owner:
                    both = f"plugin `{owner}` has it twice, as a token of its own and for a code"
                raise PluginError(f"token `{token}`: {both} (`{owner}` as a code of `{name}`, `{pattern}`)")


def special_controls(declared: Sequence[tuple[str, Modality]]) -> list[tuple[str, ControlToken]]:
    """The further special tokens of modalities, other than text, as control tokens that are called by their strings,
    may be said anywhere, and do nothing. One that several modalities of a plugin share is one."""
    return list(
        {
            token: (owner, special_control(token))
            for owner, modality in declared
            if not modality.text
            for token in modality.specials
        }.values()
    )

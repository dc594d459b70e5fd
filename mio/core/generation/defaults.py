"""How answers are decoded where nobody says otherwise: as the section `generate` of the recipe has it. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from mio.core.contract.networks import Networks
from mio.core.contract.validation import decoding_problems
from mio.core.contract.values import TEXT, Decoding, Modality
from mio.core.errors import UserError, nearest
from mio.core.recipe.schema import Recipe

DEFAULT = "default"
"""Key of what holds for answers in every modality."""


def decoding_for(recipe: Recipe, output: str = "", /, **said: Any) -> Decoding:
    """How an answer in modality `output`, or of any for none, is decoded.

    The recipe's `generate.default` counts less than what it says of the modality, and that less than what is `said`.
    What is said of all modalities replaces what the recipe says by modality; beams and drawing exclude each other, so
    that to ask for one gives up the other.

    Raises:
        UserError: `said` has a key that `Decoding` does not have. Values are checked where they are used.
    """
    known = [one.name for one in fields(Decoding)]
    if unknown := [name for name in said if name not in known]:
        raise UserError(f"no option `{unknown[0]:.40}` of decoding{nearest(unknown[0], known)}; there are "
                        f"{', '.join(known)}")  # fmt: skip
    own = _over(recipe.generate.get(DEFAULT) or {}, recipe.generate.get(output) or {})
    if "by" in own:
        own["by"] = {name: _unsaid(name, keys, said) for name, keys in own["by"].items()}
    chosen = Decoding(**_over(own, said))
    if chosen.beams != 1 and chosen.temperature and ("temperature" in said) != ("beams" in said):
        return replace(chosen, beams=1) if "temperature" in said else replace(chosen, temperature=0.0)
    return chosen


def _over(less: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of both, `more` counting more; `by` modality by modality."""
    both = {**less, **more}
    if "by" in less and isinstance(more.get("by"), Mapping):
        first, second = less["by"], more["by"]
        both["by"] = {name: {**(first.get(name) or {}), **(second.get(name) or {})} for name in {**first, **second}}
    return both


def _unsaid(name: str, keys: Mapping[str, Any] | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe says of a modality, but for what is said of all."""
    temperature = "temperature" if name == TEXT else "media_temperature"
    return {key: value for key, value in (keys or {}).items()
            if (temperature if key == "temperature" else key) not in said}  # fmt: skip


def generate_problems(recipe: Recipe, modalities: Mapping[str, Modality], networks: Networks) -> Iterator[str]:
    """What is wrong with the section `generate`, one sentence each."""
    chosen = [name for name, one in modalities.items() if one.text or (one.codebooks and name not in networks.heads)]
    outputs = [DEFAULT, *modalities]
    for name, section in recipe.generate.items():
        where = f"generate.{name}"
        if name not in outputs:
            yield f"`{where}`: there is no modality `{name}`{nearest(name, outputs)}; there are {', '.join(outputs)}"
            continue
        decoding = decoding_for(recipe, "" if name == DEFAULT else name)
        yield from (f"`{where}`: {problem}" for problem in decoding_problems(decoding))
        if name not in (DEFAULT, TEXT) and decoding.beams > 1:
            yield f"`{where}`: `beams` is {decoding.beams}, but beam search is for answers of text; leave it out"
        for other in (section or {}).get("by") or ():
            if other not in chosen:
                yield (
                    f"`{where}.by.{other}`: no tokens of that modality are chosen{nearest(other, chosen)}; there are "
                    f"{', '.join(chosen)}"
                )

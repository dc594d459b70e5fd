"""Configuration of the data: sources, groups, mixture, packing. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mio.core.contract.ranges import number, one_of


@dataclass
class SourceConfig:
    """One stream of records inside a group."""

    dataset: str = ""
    """Name of a corpus that a plugin ships (`digits/captions`), or of a reader of the core (`jsonl`)."""
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    """Handed to the corpus or reader as they are."""
    templates: str = ""
    """Template set that turns a record into a document; empty for records that hold `messages` or `parts`."""
    directions: dict[str, float] = number(dict, 0, 1e9)
    """Share of each direction of the template set; empty means equal shares."""
    weight: float = number(1.0, 0, 1e9)
    """Share within the group, relative to the group's other sources."""
    form: str = one_of("", "", "plain", "chat")
    """`plain` or `chat`; empty means the recipe's `data.form`."""
    filters: dict[str, Any] = field(default_factory=dict)
    """Record filters by name, each with its options; records dropped are counted per reason."""


@dataclass
class GroupConfig:
    """Sources that share one ratio of the stage's mixture."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)


@dataclass
class TemplateConfig:
    """One template of a set that the recipe defines or replaces."""

    direction: str = ""
    prompt: str = ""
    response: str = ""


@dataclass
class MixtureConfig:
    """How much of each group the stage sees."""

    unit: str = one_of("tokens", "tokens", "rows")
    """`tokens`: a row mixes groups and shares count tokens. `rows`: a row holds one group and shares count rows."""
    ratios: dict[str, float] = number(dict, 0, 1e9)
    """Ratio per group, in any scale (`12:2:0:2`); a group that is left out or 0 is not read."""


@dataclass
class PackingConfig:
    """How documents become rows."""

    context: int = number(256, 2, 2**22)
    """Positions L of a row. A document of n tokens takes n - 1 of them."""
    window: int = number(256, 1, 10**6)
    """Documents among which the best fit for a row is looked for."""
    too_long: str = one_of("truncate", "truncate", "skip", "error")
    """A document longer than the context: `truncate` (at a span's border, never inside one), `skip`, or `error`."""


@dataclass
class DataConfig:
    groups: dict[str, GroupConfig] = field(default_factory=dict)
    templates: dict[str, list[TemplateConfig]] = field(default_factory=dict)
    """Template sets of the recipe's own; one named like a plugin's replaces it."""
    form: str = one_of("plain", "plain", "chat")
    """`plain`: prompt and response as one text, all of it trained. `chat`: ChatML, the assistant's turns trained."""
    system: dict[str, str] = field(default_factory=dict)
    """System prompts of the chat form: `default`, or by the modality that the whole response consists of."""
    max_skipped: float = number(0.0, 0, 1)
    """Share of a source's records that may be broken; beyond it the run stops before it trains."""
    packing: PackingConfig = field(default_factory=PackingConfig)

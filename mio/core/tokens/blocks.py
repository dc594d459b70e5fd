"""Blocks of ids: what the declarations of plugins ask for, and how it fits to a vocabulary that is there already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import get_type_hints

from mio.core.contract.controls import ControlToken
from mio.core.contract.values import TEXT, Modality, TextTokenizer
from mio.core.errors import VocabularyError

CHAT_TOKENS = {"im_start": "<|im_start|>", "im_end": "<|im_end|>"}
"""Special tokens that a modality may declare where the text tokenizer has none of its own."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A run of ids with one owner."""

    name: str
    owner: str
    """Plugin that declared it."""
    kind: str
    """`text`, `special` or `codes`."""
    start: int
    size: int
    absent: bool = False
    """The owner is not in use: the ids stay reserved and are never sampled."""
    pattern: str = ""
    """Of `codes`: token string with one `{}` for the number of the code."""
    first: int = 0
    """Of `codes`: number of the first code in its token string."""

    @property
    def ids(self) -> range:
        return range(self.start, self.start + self.size)

    @property
    def modality(self) -> str:
        """Modality whose codes these are; empty for blocks of another kind."""
        return self.name.rpartition("/codebook")[0] if self.kind == "codes" else ""

    @property
    def codebook(self) -> int:
        """Codebook index of a block of codes, -1 for blocks of another kind."""
        return int(self.name.rpartition("/codebook")[2]) if self.kind == "codes" else -1

    def strings(self) -> Iterator[str]:
        """Token strings in id order, of a block that is not text."""
        if self.kind == "special":
            yield self.name
        elif self.kind == "codes":
            before, _, after = self.pattern.partition("{}")
            yield from (f"{before}{number}{after}" for number in range(self.first, self.first + self.size))


@dataclass(frozen=True)
class Specials:
    """Ids of the tokens that documents are built with."""

    pad: int
    bos: int
    eos: int
    im_start: int
    im_end: int


def check_block(block: Block) -> Block:
    """A block that was read from a file. Raises `TypeError` for values that no block has."""
    wanted = get_type_hints(Block)
    right = all(type(value) is wanted[name] for name, value in asdict(block).items())
    if not right or min(block.start, block.size, block.first) < 0:
        raise TypeError(f"block {block.name!r} has values of the wrong type")
    if block.kind not in ("text", "special", "codes") or not block.size:
        raise TypeError(f"block {block.name!r} is none of text, special and codes, or empty")
    if block.kind == "codes" and not re.fullmatch(r".+/codebook\d{1,6}", block.name, re.DOTALL):
        raise TypeError(f"block {block.name!r} is no codebook")
    return block


def check_declarations(modalities: Sequence[tuple[str, Modality]]) -> dict[str, str]:
    """Refuses declarations that contradict each other; returns modality name -> owner."""
    owners: dict[str, str] = {}
    begins: dict[str, str] = {}
    for owner, modality in modalities:
        name = modality.name
        if name in owners:
            raise VocabularyError(
                f"modality `{name}` is declared by plugin `{owners[name]}` and by plugin `{owner}`: use one of them"
            )
        owners[name] = owner
        if modality.codebooks and begins.setdefault(modality.begin, name) != name:
            raise VocabularyError(
                f"token `{modality.begin}` opens both `{begins[modality.begin]}` of plugin "
                f"`{owners[begins[modality.begin]]}` and `{name}` of plugin `{owner}`: "
                "give each modality a begin token of its own"
            )
    texts = [modality.name for _, modality in modalities if modality.text]
    if texts != [TEXT]:
        raise VocabularyError(
            f"exactly one plugin must declare the text modality, named `{TEXT}`; "
            f"those in use declare {', '.join(texts) or 'none'}"
        )
    return owners


def declared_blocks(
    text: TextTokenizer, modalities: Sequence[tuple[str, Modality]], controls: Sequence[tuple[str, ControlToken]] = ()
) -> dict[str, Block]:
    """Blocks that the declarations ask for, by name and in order; their starts are not decided yet."""
    text_owner = next(owner for owner, modality in modalities if modality.text)
    blocks = {TEXT: Block(name=TEXT, owner=text_owner, kind="text", start=0, size=text.size)}

    def claim(block: Block) -> None:
        rival = blocks.setdefault(block.name, block)
        if rival != block:  # one plugin may name a special token in several of its modalities
            raise VocabularyError(
                f"`{block.name}` is claimed by plugin `{rival.owner}` and by plugin `{block.owner}`: "
                "one of them must take another token string"
            )

    for owner, modality in modalities:
        for token in (modality.begin, modality.end, *modality.specials):
            if token:
                claim(Block(name=token, owner=owner, kind="special", start=0, size=1))
    for owner, control in controls:
        if not control.plain_text:
            claim(Block(name=control.token, owner=owner, kind="special", start=0, size=1))
    for owner, modality in modalities:
        first = 0
        for index, size in enumerate(modality.codebooks):
            name, pattern = f"{modality.name}/codebook{index}", modality.code_token
            claim(Block(name=name, owner=owner, kind="codes", start=0, size=size, pattern=pattern, first=first))
            first += size
    return blocks


def carry_over(blocks: Sequence[Block], wanted: Mapping[str, Block], owners: Mapping[str, str]) -> list[Block]:
    """The base's blocks with their places kept, under their owners of today. Raises `VocabularyError` with every one
    that is declared otherwise now."""
    if problems := list(filter(None, (_changed(block, wanted.get(block.name), owners) for block in blocks))):
        raise VocabularyError("; ".join(problems))
    return [
        replace(wanted[block.name], start=block.start) if block.name in wanted else replace(block, absent=True)
        for block in blocks
    ]


def _changed(block: Block, now: Block | None, owners: Mapping[str, str]) -> str:
    """What is wrong with a block as it is declared now; empty if nothing is."""
    if now is None:
        if block.modality not in owners:
            return ""
        return (
            f"block `{block.name}` ({block.size} ids) is no longer declared by plugin `{owners[block.modality]}`, "
            f"which now has fewer codebooks: declare all of them, and leave codebooks out of spans by `views`"
        )
    if (block.kind, block.size) != (now.kind, now.size):
        return (
            f"block `{block.name}` has {block.size} ids of kind {block.kind} in the vocabulary that this run starts "
            f"from, plugin `{now.owner}` now declares {now.size} of kind {now.kind}: give the changed modality a new "
            "name, or configure the plugin as it was"
        )
    if (block.pattern, block.first) != (now.pattern, now.first):
        return (
            f"block `{block.name}` ({block.size} ids) names its codes from `{block.pattern}` number {block.first} on, "
            f"plugin `{now.owner}` ({now.size} ids) now from `{now.pattern}` number {now.first} on: "
            "declare the codebooks in their old order and with their old token"
        )
    return ""


def check_token_strings(blocks: Sequence[Block], text_tokens: Sequence[str]) -> None:
    """One token string, one id."""
    seen: dict[str, Block] = dict.fromkeys(text_tokens, blocks[0])
    for block in blocks[1:]:
        for string in block.strings():
            rival = seen.setdefault(string, block)
            if rival is block:
                continue
            if rival.kind == "text":
                raise VocabularyError(
                    f"token `{string}` of plugin `{block.owner}` is already a token of the text tokenizer: "
                    "choose another token string, or a text tokenizer without it"
                )
            raise VocabularyError(
                f"token `{string}` is claimed by plugin `{rival.owner}` (block `{rival.name}`) and by plugin "
                f"`{block.owner}` (block `{block.name}`): one of them must take another token string"
            )


def find_specials(text: TextTokenizer, blocks: Mapping[str, Block]) -> Specials:
    """The text tokenizer's special ids; the chat tokens may also be blocks of their own."""
    ids = dict(text.specials)
    for name, token in CHAT_TOKENS.items():
        if name not in ids and token in blocks:
            ids[name] = blocks[token].start
    missing = [name for name in Specials.__dataclass_fields__ if name not in ids]
    if missing:
        raise VocabularyError(f"the text tokenizer has no special token for {', '.join(missing)}")
    return Specials(**{name: ids[name] for name in Specials.__dataclass_fields__})

"""The vocabulary manager: which id belongs to whom, for ever.

Ids are handed out in named blocks: the text tokenizer's block `[0, size)`, one block of a single row per special token,
named by its token string, and one block per codebook, named `MODALITY/codebook0` and so on. Blocks are only ever
appended. A vocabulary that grows from a `base` keeps every id of it; a block whose plugin is not in use stays where it
is, is flagged absent and can not be sampled, and comes back by its name when the plugin does.

One token string has one id and one owner. A special token or code token that the text tokenizer already has is
therefore an error: sharing the id would let ordinary text open a span.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import TEXT, Modality, TextTokenizer
from mio.core.errors import DataError, VocabularyError
from mio.core.files import read_json, write_json

ROW_MULTIPLE = 128
"""Rows of embedding and head are padded to a multiple of this, for the matrix units and for even sharding."""

CHAT_TOKENS = {"im_start": "<|im_start|>", "im_end": "<|im_end|>"}
"""Special tokens that a modality may declare where the text tokenizer has none of its own."""

_FORMAT, _VERSION = "mio-vocabulary", 1


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


class Vocabulary:
    """Ids by name. Made by `build`, `load` or `from_json`; never changed afterwards.

    A vocabulary that was read from a file knows its blocks; what needs the plugins (declarations, text token strings)
    is there after `build(..., base=vocabulary)`.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        text_fingerprint: str,
        specials: Specials,
        modalities: Sequence[Modality] = (),
        text_tokens: Sequence[str] = (),
    ) -> None:
        self.blocks = tuple(blocks)
        self.text_fingerprint = text_fingerprint
        self.specials = specials
        self.modalities = tuple(modalities)
        self._text_tokens = tuple(text_tokens)
        self._modalities = {modality.name: modality for modality in modalities}
        self._blocks = {block.name: block for block in self.blocks}
        self.size = sum(block.size for block in self.blocks)
        """Ids that exist, V."""
        self.rows = -(-self.size // ROW_MULTIPLE) * ROW_MULTIPLE
        """Rows of embedding and head: `size` and padding that is never predicted."""

    @classmethod
    def build(
        cls, text: TextTokenizer, modalities: Sequence[tuple[str, Modality]], base: Vocabulary | None = None
    ) -> Vocabulary:
        """Vocabulary of the declared modalities, `(owner plugin, declaration)` in recipe order.

        Without `base`: text, then the special tokens of all modalities (begin, end, further ones), then all codebooks.
        With `base`: its blocks, then what is new, in the same order.

        Raises VocabularyError when two plugins claim one name or token string, or a block of `base` changed its size,
        kind, numbering or tokenizer.
        """
        owners = _check_declarations(modalities)
        wanted = _declared_blocks(text, modalities)
        if base is None:
            blocks: list[Block] = []
        else:
            _check_text(base, text)
            blocks = [_carry_over(block, wanted, owners) for block in base.blocks]
        end = sum(block.size for block in blocks)
        known = {block.name for block in blocks}
        for block in wanted.values():
            if block.name not in known:
                blocks.append(replace(block, start=end))
                end += block.size
        text_tokens = [text.token(index) for index in range(text.size)]
        _check_token_strings(blocks, text_tokens)
        specials = _find_specials(text, {block.name: block for block in blocks if not block.absent})
        return cls(blocks, text.fingerprint, specials, [modality for _, modality in modalities], text_tokens)

    def modality(self, name: str) -> Modality:
        """Declaration of a modality in use."""
        try:
            return self._modalities[name]
        except KeyError:
            known = ", ".join(self._modalities) or "none"
            raise VocabularyError(
                f"no plugin in use declares the modality `{name}` (there are: {known}); add its plugin to `plugins`"
            ) from None

    def block(self, name: str) -> Block:
        """Block of that name."""
        try:
            return self._blocks[name]
        except KeyError:
            raise VocabularyError(f"the vocabulary has no block `{name}`") from None

    def begin(self, name: str) -> int:
        """Id of the token that opens a span of this modality."""
        return self.block(self.modality(name).begin).start

    def end(self, name: str) -> int:
        """Id of the token that closes a span of this modality."""
        return self.block(self.modality(name).end).start

    def code_ids(self, modality: str, codebook: int) -> range:
        """Ids of the codes of one codebook, in code order."""
        return self.block(f"{modality}/codebook{codebook}").ids

    @cached_property
    def begins(self) -> Mapping[int, str]:
        """Begin id -> modality, of the modalities in use that have codes."""
        return {self.begin(modality.name): modality.name for modality in self.modalities if modality.codebooks}

    def id(self, token: str) -> int:
        """Id of a token string."""
        try:
            return self._ids[token]
        except KeyError:
            raise VocabularyError(f"the vocabulary has no token `{token}`") from None

    def token(self, index: int) -> str:
        """Token string of an id."""
        if not 0 <= index < self.size:
            raise VocabularyError(f"id {index} is outside the vocabulary of {self.size} ids")
        return self._tokens[index]

    @cached_property
    def _tokens(self) -> list[str]:
        text = self.blocks[0]
        if len(self._text_tokens) != text.size:
            raise VocabularyError("token strings need the text tokenizer: build the vocabulary with this one as base")
        return [*self._text_tokens, *(string for block in self.blocks[1:] for string in block.strings())]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self._tokens)}

    @cached_property
    def block_of(self) -> npt.NDArray[np.int32]:
        """Index in `blocks` of each row, int32 `[rows]`; -1 for padding."""
        sizes = [block.size for block in self.blocks]
        indices = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return np.concatenate([indices, np.full(self.rows - self.size, -1, dtype=np.int32)])

    @cached_property
    def sampleable(self) -> npt.NDArray[np.bool_]:
        """Rows that may be predicted, bool `[rows]`: neither padding nor of a plugin that is absent."""
        present = np.array([*(not block.absent for block in self.blocks), False])  # -1 picks the last
        return present[self.block_of]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what every id means. Owners and absence have no part in it."""
        meaning = [self.text_fingerprint, [(b.name, b.kind, b.size, b.pattern, b.first) for b in self.blocks]]
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """All that is needed to grow from this vocabulary, as plain values."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "size": self.size,
            "rows": self.rows,
            "text_fingerprint": self.text_fingerprint,
            "specials": asdict(self.specials),
            "blocks": [asdict(block) for block in self.blocks],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Vocabulary:
        """Inverse of `to_json`. Raises VocabularyError for another format or version, or contradictory content."""
        if content.get("format") != _FORMAT:
            raise VocabularyError("this is no vocabulary file of mio")
        if content.get("version") != _VERSION:
            raise VocabularyError(
                f"vocabulary file of version {content.get('version')}, this mio reads version {_VERSION}: "
                "use the mio that wrote it, or a newer one"
            )
        try:
            blocks = [_sound(Block(**fields)) for fields in content["blocks"]]
            specials = Specials(**content["specials"])
            if not all(type(index) is int and index >= 0 for index in asdict(specials).values()):
                raise TypeError("specials are no ids")
            vocabulary = cls(blocks, str(content["text_fingerprint"]), specials)
            starts = [0, *np.cumsum([block.size for block in blocks]).tolist()]
            sound = [block.start for block in blocks] == starts[:-1] and blocks[0].kind == "text"
            sound = sound and len(vocabulary._blocks) == len(blocks) and content["size"] == vocabulary.size
            sound = sound and max(asdict(specials).values()) < vocabulary.size
        except (KeyError, TypeError, IndexError) as error:
            raise VocabularyError(f"the vocabulary file is damaged: {error!r}; restore it from a copy") from error
        if not sound:
            raise VocabularyError("the vocabulary file is damaged: its blocks overlap or leave gaps; restore it")
        return vocabulary

    def save(self, path: Path) -> None:
        """Writes the vocabulary as JSON, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads what `save` wrote. Raises VocabularyError with the path when it can not."""
        try:
            content = read_json(path, "restore it from a copy")
        except DataError as error:
            raise VocabularyError(str(error)) from None
        try:
            return cls.from_json(content)
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from error


def _sound(block: Block) -> Block:
    wanted = get_type_hints(Block)
    right = all(type(value) is wanted[name] for name, value in asdict(block).items())
    if not right or min(block.start, block.size, block.first) < 0:
        raise TypeError(f"block {block.name!r} has values of the wrong type")
    if block.kind not in ("text", "special", "codes") or not block.size:
        raise TypeError(f"block {block.name!r} is none of text, special and codes, or empty")
    if block.kind == "codes" and not re.fullmatch(r".+/codebook\d{1,6}", block.name, re.DOTALL):
        raise TypeError(f"block {block.name!r} is no codebook")
    return block


def _check_declarations(modalities: Sequence[tuple[str, Modality]]) -> dict[str, str]:
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


def _declared_blocks(text: TextTokenizer, modalities: Sequence[tuple[str, Modality]]) -> dict[str, Block]:
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
    for owner, modality in modalities:
        first = 0
        for index, size in enumerate(modality.codebooks):
            name, pattern = f"{modality.name}/codebook{index}", modality.code_token
            claim(Block(name=name, owner=owner, kind="codes", start=0, size=size, pattern=pattern, first=first))
            first += size
    return blocks


def _check_text(base: Vocabulary, text: TextTokenizer) -> None:
    size = base.blocks[0].size
    if size != text.size or base.text_fingerprint != text.fingerprint:
        raise VocabularyError(
            f"block `{TEXT}` was made with the text tokenizer {base.text_fingerprint[:12]} of {size} tokens, "
            f"this one is {text.fingerprint[:12]} of {text.size}: use the text tokenizer of the run that you start from"
        )


def _carry_over(block: Block, wanted: Mapping[str, Block], owners: Mapping[str, str]) -> Block:
    """The base's block with its place kept, under its owner of today."""
    now = wanted.get(block.name)
    if now is None:
        if block.modality in owners:
            raise VocabularyError(
                f"block `{block.name}` ({block.size} ids) is no longer declared by plugin `{owners[block.modality]}`, "
                f"which now has fewer codebooks: declare all of them, and leave codebooks out of spans by `views`"
            )
        return replace(block, absent=True)
    if (block.kind, block.size) != (now.kind, now.size):
        raise VocabularyError(
            f"block `{block.name}` has {block.size} ids of kind {block.kind} in the vocabulary that this run starts "
            f"from, plugin `{now.owner}` now declares {now.size} of kind {now.kind}: give the changed modality a new "
            "name, or configure the plugin as it was"
        )
    if (block.pattern, block.first) != (now.pattern, now.first):
        raise VocabularyError(
            f"block `{block.name}` ({block.size} ids) names its codes from `{block.pattern}` number {block.first} on, "
            f"plugin `{now.owner}` ({now.size} ids) now from `{now.pattern}` number {now.first} on: "
            "declare the codebooks in their old order and with their old token"
        )
    return replace(now, start=block.start)


def _check_token_strings(blocks: Sequence[Block], text_tokens: Sequence[str]) -> None:
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


def _find_specials(text: TextTokenizer, blocks: Mapping[str, Block]) -> Specials:
    """The text tokenizer's special ids; the chat tokens may also be blocks of their own."""
    ids = dict(text.specials)
    for name, token in CHAT_TOKENS.items():
        if name not in ids and token in blocks:
            ids[name] = blocks[token].start
    missing = [name for name in Specials.__dataclass_fields__ if name not in ids]
    if missing:
        raise VocabularyError(f"the text tokenizer has no special token for {', '.join(missing)}")
    return Specials(**{name: ids[name] for name in Specials.__dataclass_fields__})

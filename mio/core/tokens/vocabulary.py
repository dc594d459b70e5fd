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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.controls import ControlToken
from mio.core.contract.values import TEXT, Modality, TextTokenizer
from mio.core.errors import DataError, VocabularyError
from mio.core.files import read_json, write_json
from mio.core.tokens.blocks import (
    Block,
    Specials,
    carry_over,
    check_block,
    check_declarations,
    check_token_strings,
    declared_blocks,
    find_specials,
)
from mio.core.tokens.controls import Controls
from mio.core.tokens.sized_text import SizedText

ROW_MULTIPLE = 128
"""Rows of embedding and head are padded to a multiple of this, for the matrix units and for even sharding."""

_FORMAT, _VERSION = "mio-vocabulary", 1


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
        controls: Controls | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self.text_fingerprint = text_fingerprint
        self.specials = specials
        self.modalities = tuple(modalities)
        self.controls = controls or Controls()
        self._text_tokens = tuple(text_tokens)
        self._modalities = {modality.name: modality for modality in modalities}
        self._blocks = {block.name: block for block in self.blocks}
        self.size = sum(block.size for block in self.blocks)
        """Ids that exist, V."""
        self.rows = -(-self.size // ROW_MULTIPLE) * ROW_MULTIPLE
        """Rows of embedding and head: `size` and padding that is never predicted."""

    @classmethod
    def build(
        cls,
        text: TextTokenizer,
        modalities: Sequence[tuple[str, Modality]],
        controls: Sequence[tuple[str, ControlToken]] = (),
        base: Vocabulary | None = None,
    ) -> Vocabulary:
        """Vocabulary of the declared modalities and control tokens, `(owner plugin, declaration)` in recipe order.

        Without `base`: text, then the special tokens of all modalities (begin, end, further ones), then control tokens
        with an id of their own, then all codebooks.
        With `base`: its blocks, then what is new, in the same order.

        Raises VocabularyError when two plugins claim one name or token string, a block of `base` changed its size,
        kind, numbering or tokenizer, or control tokens of plain text cannot be told apart.
        """
        owners = check_declarations(modalities)
        wanted = declared_blocks(text, modalities, controls)
        if base is None:
            blocks: list[Block] = []
        else:
            _check_text(base, text)
            blocks = carry_over(base.blocks, wanted, owners)
        end = sum(block.size for block in blocks)
        known = {block.name for block in blocks}
        for block in wanted.values():
            if block.name not in known:
                blocks.append(replace(block, start=end))
                end += block.size
        text_tokens = [text.token(index) for index in range(text.size)]
        check_token_strings(blocks, text_tokens)
        present = {block.name: block for block in blocks if not block.absent}
        specials = find_specials(text, present)
        starts = {name: block.start for name, block in present.items()}
        said = Controls.of(controls, starts, None if isinstance(text, SizedText) else text)
        return cls(blocks, text.fingerprint, specials, [modality for _, modality in modalities], text_tokens, said)

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
            blocks = [check_block(Block(**fields)) for fields in content["blocks"]]
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


def _check_text(base: Vocabulary, text: TextTokenizer) -> None:
    size = base.blocks[0].size
    if size != text.size or base.text_fingerprint != text.fingerprint:
        raise VocabularyError(
            f"block `{TEXT}` was made with the text tokenizer {base.text_fingerprint[:12]} of {size} tokens, "
            f"this one is {text.fingerprint[:12]} of {text.size}: use the text tokenizer of the run that you start from"
        )

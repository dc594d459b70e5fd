"""Maps the ids of mio's vocabulary to those of a foreign model, by token string and never by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import Modality
from mio.core.errors import UserError, nearest
from mio.core.exchange.tokens import FolderTokens
from mio.core.tokens.blocks import CHAT_TOKENS, Block
from mio.core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextSize:
    """The foreign model's text."""

    size: int
    """Ids `[0, size)` are text."""
    missing_chat_tokens: tuple[str, ...]
    """Token strings of ChatML that are not among them."""


@dataclass(frozen=True)
class Match:
    """Rows of a foreign model for the ids of a vocabulary."""

    known: Vocabulary
    """The blocks that the foreign model has, in the vocabulary's order."""
    rows: npt.NDArray[np.int64]
    """Foreign row of each id of `known`, int64 `[known.size]`."""
    unmapped: tuple[str, ...]
    """Foreign tokens that the vocabulary lacks, in id order: their rows are left out."""
    unnamed: int
    """Foreign rows without a token."""


class Renamed:
    """The foreign model's strings for mio's tokens: `theirs` by `ours`, both with `{}` where they name codes."""

    def __init__(self, renames: Sequence[str], modalities: Sequence[Modality]) -> None:
        """`renames` are strings `OURS=THEIRS`. Raises `UserError` for one that names no token of `modalities`."""
        known = [block.pattern or block.name for declared in modalities for block in _blocks(declared)]
        known = list(dict.fromkeys([*known, *CHAT_TOKENS.values()]))
        self.theirs: dict[str, str] = {}
        for text in renames:
            ours = next((token for token in known if text.startswith(f"{token}=")), None)
            if ours is None:
                name = text.partition("=")[0]
                raise UserError(
                    f"--token {text!r}: `{name}` is not a token of the recipe's plugins{nearest(name, known)} "
                    f"(tokens: {', '.join(known)}); write OURS=THEIRS"
                )
            theirs = text[len(ours) + 1 :]
            if not theirs or theirs.count("{}") != ours.count("{}"):
                holds = "must hold one `{}` for the code's number" if "{}" in ours else "must be one token string"
                raise UserError(f"--token {text!r}: what follows `{ours}=` {holds}")
            if ours in self.theirs:
                raise UserError(f"--token {text!r}: `{ours}` is given twice")
            self.theirs[ours] = theirs

    def strings(self, block: Block) -> Iterator[str]:
        """Foreign token strings of a block that is not text, in id order."""
        if block.kind == "special":
            yield self.theirs.get(block.name, block.name)
        else:
            yield from replace(block, pattern=self.theirs.get(block.pattern, block.pattern)).strings()


def text_size(tokens: FolderTokens, modalities: Sequence[Modality], renamed: Renamed, size: int = 0) -> TextSize:
    """Where text ends: at the first id that another modality claims.

    All ids below it are text, added tokens included. `size` is the user's choice, 0 for none. Raises `UserError` if it
    includes a token of another modality, or if there is no text at all.
    """
    claimed = {
        tokens.ids[string]: string
        for declared in modalities
        if not declared.text
        for block in _blocks(declared)
        for string in renamed.strings(block)
        if string in tokens.ids
    }
    lowest = min(claimed, default=max(tokens.strings, default=-1) + 1)
    if size > lowest and not claimed:
        raise UserError(f"{tokens.folder}: --text-size {size}, but its tokenizer has {lowest} ids")
    if size > lowest:
        raise UserError(
            f"{tokens.folder}: a text of {size} ids would take in `{claimed[lowest]}`, id {lowest}; "
            f"give `--text-size {lowest}`, or leave it out"
        )
    own = max((index for string, index in tokens.ids.items() if string not in tokens.added), default=-1) + 1
    if size and size < own:
        raise UserError(f"{tokens.folder}: --text-size {size} cuts into the {own} ids of its text tokenizer")
    size = size or max((index for index in tokens.strings if index < lowest), default=-1) + 1
    if not size:
        raise UserError(f"{tokens.folder}: its tokenizer has no tokens of text, which must come first")
    lacking = [token for token in CHAT_TOKENS.values() if tokens.ids.get(token, size) >= size]
    return TextSize(size, tuple(lacking))


def _blocks(declared: Modality) -> Iterator[Block]:
    """The tokens that a modality declares, in blocks without a position; codes are numbered through all codebooks."""
    for token in (declared.begin, declared.end, *declared.specials):
        if token:
            yield Block(name=token, owner="", kind="special", start=0, size=1)
    if declared.codebooks:
        size = sum(declared.codebooks)
        yield Block(name=declared.name, owner="", kind="codes", start=0, size=size, pattern=declared.code_token)


def with_codes(
    tokens: FolderTokens, modalities: Sequence[Modality], renamed: Renamed, sizes: Mapping[str, int], first: int
) -> FolderTokens:
    """The folder's tokens and, from the id `first` on, the codes of the modalities of `sizes`, which the model has
    beside its tokens. Raises `UserError` for a modality with another number of codes."""
    ids, strings = dict(tokens.ids), dict(tokens.strings)
    blocks = {declared.name: block for declared in modalities for block in _blocks(declared) if block.kind == "codes"}
    for name, size in sizes.items():
        if blocks[name].size != size:
            raise UserError(
                f"{tokens.folder}: it has {size} codes of `{name}`, the recipe's plugin declares {blocks[name].size}"
            )
        for index, string in enumerate(renamed.strings(blocks[name]), first):
            ids[string], strings[index] = index, string
        first += size
    return replace(tokens, ids=ids, strings=strings, added=tokens.added | (ids.keys() - tokens.ids.keys()))


def match(vocabulary: Vocabulary, tokens: FolderTokens, renamed: Renamed, rows: int) -> Match:
    """Finds every id of `vocabulary` in a foreign model of `rows` embedding rows.

    Raises `UserError` that names token strings which the model lacks, whose ids lie beyond its embedding, or which
    stand for two of the vocabulary's tokens. Tokens of ChatML may be missing: they are new.
    """
    text = vocabulary.blocks[0]
    names = {block.pattern or block.name for block in vocabulary.blocks[1:]}
    idle = [f"{ours}={theirs}" for ours, theirs in renamed.theirs.items() if ours not in names]
    if idle:
        raise UserError(f"--token {idle[0]!r}: the text itself has that token already; leave the option out")
    blocks: list[Block] = [text]
    sources = [np.arange(text.size, dtype=np.int64)]
    used: dict[str, str] = {}
    for block in vocabulary.blocks[1:]:
        strings = list(renamed.strings(block))
        missing = [string for string in strings if string not in tokens.ids]
        if missing and block.owner == text.owner and block.name in CHAT_TOKENS.values():
            continue
        if missing:
            raise _missing(block, missing, tokens, renamed)
        for string, ours in zip(strings, block.strings(), strict=True):
            if used.setdefault(string, ours) != ours:
                raise UserError(
                    f"{tokens.folder}: its token `{string}` would become both `{used[string]}` and `{ours}`; "
                    "one token string stands for one thing"
                )
        sources.append(np.array([tokens.ids[string] for string in strings], dtype=np.int64))
        blocks.append(block)
    index = np.concatenate(sources)
    if index.max() >= rows:
        raise beyond_the_rows(tokens, int(index[index >= rows][0]), rows)
    taken = np.zeros(rows, dtype=bool)
    taken[index] = True
    left = [int(row) for row in np.flatnonzero(~taken)]
    named = tuple(tokens.strings[row] for row in left if row in tokens.strings)
    return Match(_only(vocabulary, blocks), index, named, len(left) - len(named))


def beyond_the_rows(tokens: FolderTokens, index: int, rows: int) -> UserError:
    """The error for a token whose id has no row in an embedding of `rows` rows."""
    return UserError(
        f"{tokens.folder}: the token `{tokens.strings.get(index, '?')}` has the id {index}, the embedding only {rows} "
        "rows; tokenizer and weights do not belong together"
    )


def _missing(block: Block, missing: Sequence[str], tokens: FolderTokens, renamed: Renamed) -> UserError:
    shown = ", ".join(f"`{string}`" for string in islice(missing, 3))
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    ours = block.pattern or block.name
    wrong = renamed.theirs.get(ours, "")
    origin = f"`{ours}` is called `{wrong}` by `--token`" if wrong else f"plugin `{block.owner}` declares `{ours}`"
    return UserError(
        f"{tokens.folder}: the tokenizer has no {shown}{more}{tokens.near(missing[0])} ({origin}); give "
        f"`--token '{ours}=THEIRS'` if it has another name there, or leave the plugin out of the recipe: a later stage "
        "adds it"
    )


def _only(vocabulary: Vocabulary, blocks: Sequence[Block]) -> Vocabulary:
    """Vocabulary of some of the blocks, without gaps."""
    placed, end = [], 0
    for block in blocks:
        placed.append(replace(block, start=end))
        end += block.size
    return Vocabulary(placed, vocabulary.text_fingerprint, vocabulary.specials)

"""The tokens of a shard's texts in one text tokenizer, beside the shard. Free of torch at import.

Shards hold text as text, which serves every tokenizer. Tokenising it again in every data worker and epoch costs more
than all the rest of the way to a batch, so `mio tokenize` does it once. The file has the format of a shard; its arrays
are `ids`, uint16 where every id fits and uint32 otherwise, and `ends`: piece 2i is text i of the shard, piece 2i + 1
the same with a space before it, as templates may put one there. Without the file, texts are tokenised when they are
read: the tokens are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import TextTokenizer
from mio.core.data.hashing import FileHashes
from mio.core.data.shards.format import Array, code_dtype, map_arrays, read_checked, read_header, verify, write_shard
from mio.core.errors import DataError
from mio.core.tokens.tokenised import TokenisedText

SUFFIX = ".ids"


class TextTokens(NamedTuple):
    """Tokens of the texts of one shard."""

    ids: Array
    ends: memoryview

    def text(self, number: int, text: str) -> TokenisedText:
        """Text `number` of the shard with its tokens."""
        start, middle, end = self.ends[2 * number : 2 * number + 3]
        return TokenisedText(text, self.ids[start:middle], self.ids[middle:end])


def tokens_path(shard: Path, fingerprint: str) -> Path:
    """Where the tokens of a shard's texts are, by the tokenizer's fingerprint."""
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=4).hexdigest()
    return shard.with_name(f"{shard.stem}-{digest}{SUFFIX}")


def open_text_tokens(
    shard: Path, checksum: str, fingerprint: str, hashes: FileHashes | None = None
) -> TextTokens | None:
    """Tokens of the texts of the shard with this checksum; None if they are not there, damaged, or of other texts."""
    path = tokens_path(shard, fingerprint)
    if not path.is_file():
        return None
    try:
        header, start = read_checked(path, hashes)
    except DataError:
        return None
    if header.get("shard") != checksum or header.get("tokenizer") != fingerprint:
        return None
    arrays = map_arrays(path, header, start)
    return TextTokens(arrays["ids"], arrays["ends"].data)


def write_text_tokens(shard: Path, tokenizer: TextTokenizer) -> None:
    """Tokenises the texts of a shard, unless that was done before and every byte is as it was written."""
    header, start = read_header(shard)
    path = tokens_path(shard, tokenizer.fingerprint)
    about = {"shard": header["checksum"], "tokenizer": tokenizer.fingerprint}
    with contextlib.suppress(DataError):
        if path.is_file() and about.items() <= verify(path).items():
            return
    arrays = map_arrays(shard, header, start)
    content = arrays["text"].data
    texts = [str(content[begin:end], "utf-8") for begin, end in pairwise(arrays["text_ends"].tolist())]
    pieces = [tokenizer.encode(piece) for text in texts for piece in (text, f" {text}")]
    ends: npt.NDArray[np.uint64] = np.cumsum([0, *map(len, pieces)]).astype(np.uint64)
    ids: npt.NDArray[Any] = np.empty(int(ends[-1]), code_dtype((tokenizer.size,)))
    for (begin, end), piece in zip(pairwise(ends.tolist()), pieces, strict=True):
        ids[begin:end] = piece
    write_shard(path, about, {"ids": ids, "ends": ends})

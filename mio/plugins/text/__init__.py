"""Text: the backbone's own text tokenizer.

Options:
    tokenizer: `bpe` (default), a byte-level BPE trained on the recipe's text; `bytes`; `imported`, that of the imported
        run which the recipe starts from; or the folder (or its `tokenizer.json`) of a Hugging Face fast tokenizer.
    size: tokens of the `bpe`; for a folder, its first so many ids, leaving out tokens that were added after them.
    specials: of `imported`: tokens of ChatML that it lacks, declared as special tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mio import TEXT, DataModule, Modality, Template, UserError, hookimpl

BPE_SIZE = 1024
KINDS = ("bpe", "bytes", "imported")


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> list[Modality]:
    kind, size = _read_options(options)
    specials = tuple(options.get("specials", ()))
    # a recipe can be checked where the files are not; `mio_tokenizer` says what is missing
    if kind not in KINDS and Path(kind).expanduser().exists():
        from mio.plugins.text.pretrained import missing_chat_tokens

        specials = missing_chat_tokens(kind, size)
    return [Modality(name=TEXT, text=True, specials=specials)]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Any:
    if modality != TEXT:
        return None
    kind, size = _read_options(options)
    if kind == "bytes":
        from mio.plugins.text.byte_tokenizer import ByteTokenizer

        return ByteTokenizer()
    if kind == "bpe":
        from mio.plugins.text.bpe import BpeTokenizer

        return BpeTokenizer(size or BPE_SIZE)
    if kind == "imported":
        from mio.plugins.text.imported import ImportedTokenizer

        return ImportedTokenizer()
    from mio.plugins.text.pretrained import PretrainedTokenizer

    return PretrainedTokenizer(kind, size)


@hookimpl
def mio_datamodule(modality: str) -> DataModule | None:
    if modality != TEXT:
        return None
    return DataModule(
        read=_read_text,
        suffixes=(".txt", ".md"),
        templates={"text": (Template(direction="text", response="{text}"),)},
        filters={"characters": characters},
    )


@hookimpl
def mio_backbones() -> Mapping[str, Mapping[str, Any]]:
    from mio.plugins.text.backbones import BACKBONES

    return BACKBONES


def characters(record: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Drops records whose `field` (default `text`) is not between `minimum` and `maximum` characters long."""
    unknown = options.keys() - {"field", "minimum", "maximum"}
    if unknown:
        raise UserError(f"filter `characters`: unknown option `{min(unknown)}`; it has field, minimum, maximum")
    length = len(str(record.get(options.get("field", "text"), "")))
    if length < options.get("minimum", 0):
        return "too short"
    return "too long" if length > options.get("maximum", length) else ""


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_options(options: Mapping[str, Any]) -> tuple[str, int]:
    """Kind of tokenizer (or its path) and size, 0 where none is given."""
    kind, size = options.get("tokenizer", "bpe"), options.get("size", 0)
    known = ("tokenizer", "specials") if kind == "imported" else ("tokenizer", "size")
    unknown = options.keys() - set(known)
    if unknown:
        raise UserError(
            f"plugins.text: unknown option `{min(unknown)}`; the options are {' and '.join(f'`{k}`' for k in known)}"
        )
    if not isinstance(kind, str) or not kind:
        raise UserError(
            f"plugins.text.tokenizer: must be {', '.join(f'`{k}`' for k in KINDS)}, or the folder of a Hugging Face "
            "tokenizer"
        )
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise UserError(f"plugins.text.size: must be a number of tokens, not {size!r}")
    if kind == "bytes" and size:
        raise UserError("plugins.text.size: `bytes` has a size of its own; leave `size` out")
    return kind, size

"""Text: the backbone's own text tokenizer.

Options:
    tokenizer: `bpe` (default), a byte-level BPE trained on the recipe's text; `bytes`; `imported`, that of the imported
        run which the recipe starts from; or the folder (or its `tokenizer.json`) of a Hugging Face fast tokenizer.
    size: number of tokens of the `bpe`; for a folder, the number of ids to keep: tokens added after them are dropped.
    specials: tokens of ChatML that `imported` or a folder's tokenizer lacks, declared as special tokens of the
        vocabulary. A folder that is at hand tells them itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio import TEXT, DataModule, Modality, Template, UserError, hookimpl, number, read_options

BPE_SIZE = 1024
KINDS = ("bpe", "bytes", "imported")


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> list[Modality]:
    chosen = _read_options(options)
    kind, size, specials = chosen.tokenizer, chosen.size, tuple(chosen.specials)
    # recipes can be checked without the files; `mio_tokenizer` reports missing ones
    if kind not in KINDS and _is_there(kind):
        from mio.plugins.text.pretrained import missing_chat_tokens

        specials = missing_chat_tokens(kind, size)
    return [Modality(name=TEXT, text=True, specials=specials)]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Any:
    if modality != TEXT:
        return None
    chosen = _read_options(options)
    kind, size = chosen.tokenizer, chosen.size
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
def mio_paths(options: Mapping[str, Any]) -> list[str]:
    return [] if options.get("tokenizer", "bpe") in KINDS else ["tokenizer"]


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


@dataclass(frozen=True)
class CharactersOptions:
    """Options of the filter `characters`."""

    field: str = "text"
    minimum: int = number(0, 0, 2**40)
    maximum: int = number(2**40, 0, 2**40)


def characters(record: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Drops records whose `field` (default `text`) is not between `minimum` and `maximum` characters long."""
    chosen = read_options(CharactersOptions, options, "filter `characters`")
    length = len(str(record.get(chosen.field, "")))
    if length < chosen.minimum:
        return "too short"
    return "too long" if length > chosen.maximum else ""


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class TextOptions:
    """Options of the plugin, described above."""

    tokenizer: str = "bpe"
    size: int = number(0, 0, 10_000_000)
    specials: Sequence[str] = ()


def _read_options(options: Mapping[str, Any]) -> TextOptions:
    kind = options.get("tokenizer", "bpe")
    if not isinstance(kind, str) or not kind:
        raise UserError(
            f"plugins.text.tokenizer: must be {', '.join(f'`{k}`' for k in KINDS)}, or the folder of a Hugging Face "
            "tokenizer"
        )
    known = {"bpe": ("tokenizer", "size"), "bytes": ("tokenizer",), "imported": ("tokenizer", "specials")}.get(
        kind, ("tokenizer", "size", "specials")
    )
    unknown = options.keys() - set(known)
    if unknown:
        raise UserError(
            f"plugins.text: `{kind}` has no option `{min(unknown)}`; it has {', '.join(f'`{k}`' for k in known)}"
        )
    return read_options(TextOptions, options, "plugins.text")


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # not a possible file name, or the home of an unknown user
        return False

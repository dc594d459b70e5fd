"""What a run can read and write."""

from __future__ import annotations

from collections.abc import Callable

from mio.core.errors import PluginError
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.item_encoders import only_read


def reads(codecs: Codecs, modality: str) -> bool:
    """Whether media of a modality can be in a prompt: an encoder reads them, or a tokenizer makes codes of them, which
    is loaded for that."""
    declared = codecs.modalities[modality]
    if declared.parts:
        return all(reads(codecs, part) for part in declared.part_names) and _there(lambda: codecs.tokenizer(modality))
    return modality in codecs.readers or (bool(declared.codebooks) and _there(lambda: codecs.tokenizer(modality)))


def writes(codecs: Codecs, modality: str) -> bool:
    """Whether media of a modality can be in an answer: a head makes them, or a detokenizer does of codes, which is
    loaded for that."""
    if only_read(codecs.modalities, modality, codecs.makers):
        return False
    declared = codecs.modalities[modality]
    if not all(writes(codecs, part) for part in declared.part_names):
        return False
    return modality in codecs.makers or _there(lambda: codecs.detokenizer(modality))


def _there(load: Callable[[], object]) -> bool:
    """Whether a tokenizer or detokenizer can be had. Damaged weights are an error, not an inability."""
    try:
        load()
    except PluginError:
        return False
    return True

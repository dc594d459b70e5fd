"""The text tokenizer that came with an imported model. Its files lie in the run folder, so the run can be moved."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mio import UserError

if TYPE_CHECKING:
    from mio.plugins.text.pretrained import PretrainedTokenizer


class ImportedTokenizer:
    """`mio.TextTokenizer` that is loaded from a run folder like a trained one, but never trained."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._loaded: PretrainedTokenizer | None = None

    @property
    def _tokenizer(self) -> PretrainedTokenizer:
        if self._loaded is None:
            self._refuse()
        return self._loaded

    def _refuse(self) -> NoReturn:
        raise UserError(
            "plugins.text.tokenizer: `imported` is the text tokenizer of a run that `mio import` made; "
            "give that run as `start_from`, or choose another tokenizer"
        )

    @property
    def size(self) -> int:
        """Number of tokens. Raises UserError before `load`, as everything below does."""
        return self._tokenizer.size

    @property
    def fingerprint(self) -> str:
        """The same as for these files in a folder that the recipe names."""
        return self._tokenizer.fingerprint

    @property
    def specials(self) -> Mapping[str, int]:
        return self._tokenizer.specials

    def fit(self, items: Sequence[str], seed: int) -> Mapping[str, float]:
        """Raises UserError: it cannot be trained, and there is no run to load its files from."""
        del items, seed
        self._refuse()

    def save_weights(self, folder: Path) -> None:
        """Copies the files."""
        if self._folder is None:
            self._refuse()
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)

    def load(self, folder: Path) -> None:
        """Reads the files. Raises UserError when they are missing."""
        from mio.plugins.text.pretrained import PretrainedTokenizer

        if not folder.is_dir():
            self._refuse()
        self._folder = folder
        self._loaded = PretrainedTokenizer(str(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no space is added before it."""
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._tokenizer.decode(ids)

    def token(self, index: int) -> str:
        """Token string."""
        return self._tokenizer.token(index)

    def definition(self) -> dict[str, Any]:
        """Its `tokenizer.json` with the changes made on reading."""
        return self._tokenizer.definition()

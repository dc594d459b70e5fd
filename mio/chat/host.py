"""What all conversations of a page share: the run, what it reads and writes, and the folder of their media."""

from __future__ import annotations

import secrets
import shutil
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mio.api.abilities import reads, writes
from mio.api.loaded import Loaded
from mio.core.contract.values import Decoding
from mio.core.generation.sampling import SEEDS
from mio.core.tokens.templates import CHAT

REMEMBERED = 4096
"""Media whose codes are kept, for conversations that go on."""


@dataclass(frozen=True)
class Settings:
    """How the next answer is given."""

    output: str = ""
    """Modality that it holds; empty: text, and media where the model begins some."""
    decoding: Decoding = field(default_factory=Decoding)
    seed: int = 0
    alone: bool = False
    """Whether it is asked without the turns before it."""


class Host:
    """A run that people talk to.

    Args:
        folder: for media of conversations; each has one of its own in it, whose name cannot be guessed.
        seed: of all answers; None: a new one for each.
    """

    def __init__(self, run: Loaded, folder: Path, name: str = "", seed: int | None = None) -> None:
        self.run, self.folder, self.seed = run, folder, seed
        self.name = name or run.model.folder.name
        codecs = run.model.codecs
        codecs.remembered = REMEMBERED
        names = [name for name, declared in codecs.modalities.items() if not declared.text]
        modules = {name: run.model.plugins.datamodule(name) for name in names}
        self.media_types = run.parts.media_types
        """Of the modalities that have one."""
        self.suffixes = {
            name: tuple(modules[name].suffixes)
            for name in names
            if modules[name].read is not None and modules[name].suffixes and reads(codecs, name)
        }
        """Endings of files, of the modalities that the run reads."""
        self.writes = tuple(name for name in names if writes(codecs, name))
        self.draws = bool(codecs.makers)
        """Whether a head makes media."""
        self.turns = run.model.recipe.data.form == CHAT
        """Whether the model was trained on conversations; otherwise every question stands alone."""
        self.context = run.model.recipe.data.packing.context
        self.working = threading.RLock()
        """Held while plugins read, encode or decode media: their tokenizers need not be made for several threads."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """What an answer can be asked to be."""
        return ("", "text", *self.writes)

    def of_type(self, media_type: str) -> list[str]:
        """Modalities of a media type that the run reads."""
        return [name for name in self.suffixes if self.media_types.get(name) == media_type]

    def settings(self, output: str, options: dict[str, Any], seed: int | None = None, alone: bool = False) -> Settings:
        """Settings of an answer, of which `options` change what the recipe says. Raises `UserError`."""
        defaults = self.run.decoding(output, {})
        known = {one.name for one in fields(Decoding)}
        changed = {name: value for name, value in options.items() if name in known and getattr(defaults, name) != value}
        chosen = self.run.decoding(output, changed)
        seed = secrets.randbelow(SEEDS) if seed is None or seed < 0 else seed
        return Settings(output, chosen, seed, alone or not self.turns)

    def new_folder(self) -> Path:
        """For the media of a conversation."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        return folder

    def forget(self, folder: Path) -> None:
        """Removes the media of a conversation that is over."""
        shutil.rmtree(folder, ignore_errors=True)

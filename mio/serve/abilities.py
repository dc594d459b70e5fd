"""What a run can read and write, by media type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mio.api.abilities import reads, writes
from mio.core.contract.values import DataModule
from mio.core.errors import nearest
from mio.core.generation.model import Model
from mio.serve.errors import ApiError, unsupported


@dataclass(frozen=True)
class Abilities:
    """Modalities other than text, in the recipe's order."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    modules: dict[str, DataModule]

    @classmethod
    def of(cls, model: Model) -> Abilities:
        """Loads the tokenizers of the run, so that no request waits for them. What has none is neither read nor
        written."""
        codecs = model.codecs
        names = [name for name, declared in codecs.modalities.items() if not declared.text]
        modules = {name: model.plugins.datamodule(name) for name in names}
        return cls(
            tuple(name for name in names if modules[name].read is not None and reads(codecs, name)),
            tuple(name for name in names if writes(codecs, name)),
            modules,
        )

    def media_type(self, modality: str) -> str:
        """Empty for one that other programs know as files alone."""
        return self.modules[modality].media_type

    def of_type(self, media_type: str, among: Sequence[str]) -> list[str]:
        return [name for name in among if self.media_type(name) == media_type]

    def reader(self, media_type: str, wanted: str | None, param: str) -> str:
        """The modality in which media of this type are read: the `wanted` one, or the first. Raises `ApiError`."""
        return self._chosen(media_type, wanted, param, self.reads, "reads")

    def writer(self, media_type: str, wanted: str | None, param: str) -> str:
        """The same for media that are to be written."""
        return self._chosen(media_type, wanted, param, self.writes, "makes")

    def file_reader(self, filename: str, wanted: str | None, param: str) -> str:
        """The modality that reads files of this ending, or the `wanted` one. Raises `ApiError`."""
        fits = [name for name in self.reads if filename.lower().endswith(self.modules[name].suffixes or ("\0",))]
        if wanted is not None and wanted in self.reads:
            return wanted
        if wanted is not None or not fits:
            known = sorted({suffix for name in self.reads for suffix in self.modules[name].suffixes})
            what = f"the modality `{wanted:.40}`" if wanted is not None else "files of this ending"
            raise unsupported(param, f"`{param}`: this run reads no {what}; it reads {_listed(known[:40])}")
        return fits[0]

    def _chosen(self, media_type: str, wanted: str | None, param: str, among: Sequence[str], does: str) -> str:
        fitting = self.of_type(media_type, among)
        if wanted is not None:
            if wanted not in fitting:
                hint = nearest(wanted, fitting)
                raise unsupported(
                    f"{param}.modality" if param else "modality",
                    f"this run {does} no {media_type} of the modality `{wanted:.40}`{hint}; there is "
                    f"{_listed(fitting)}",
                )
            return wanted
        if not fitting:
            there = _listed([f"{name} ({self.media_type(name)})" if self.media_type(name) else name for name in among])
            raise ApiError(
                400, f"this run {does} no {media_type}; beside text it {does} {there}", param or None,
                "unsupported_modality",
            )  # fmt: skip
        return fitting[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"

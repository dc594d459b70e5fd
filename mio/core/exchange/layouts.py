"""Models whose folders hold more than a language model: what plugins know of them (`mio_layouts`), of one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio.core.contract.calling import naming_plugin
from mio.core.contract.layouts import CodeRows, ModelLayout
from mio.core.contract.plugins import PluginManager
from mio.core.contract.validation import kind
from mio.core.errors import PluginError, UserError
from mio.core.exchange.model_files import ModelFiles


@dataclass(frozen=True)
class BoundLayout:
    """The layout of a folder with a certain `config.json`."""

    owner: str
    layout: ModelLayout
    config: Mapping[str, Any]
    """The folder's `config.json`."""
    language: Mapping[str, Any]
    """That of its language model."""

    @classmethod
    def of(cls, config: Mapping[str, Any], manager: PluginManager) -> BoundLayout | None:
        """The layout that a plugin has for the `model_type` of a `config.json`; None if none has. Raises `PluginError`
        as the plugin does for a configuration that it does not read."""
        found = manager.layouts().get(str(config.get("model_type")))
        if found is None:
            return None
        owner, layout = found
        with naming_plugin(f"plugin `{owner}`", " in `mio_layouts`"):
            language = layout.config(config)
        if not isinstance(language, Mapping):
            raise PluginError(f"plugin `{owner}`, hook `mio_layouts`: `config` gives {kind(language)}, not a mapping")
        return cls(owner, layout, config, language)

    def make(self, files: ModelFiles, folder: Path) -> None:
        """Adds the tensors that are made of several of the folder's. Raises `UserError` for one that is not there."""
        with naming_plugin(f"plugin `{self.owner}`", " in `mio_layouts`"), torch.inference_mode():
            for name, function in self.layout.made.items():
                files.add(name, function(partial(_read, files, folder)).clone(), folder)

    def code_rows(self, files: ModelFiles, folder: Path, width: int) -> dict[str, CodeRows]:
        """Rows of codes by modality. Raises `UserError` for tensors that are not there, `PluginError` for rows of
        another width."""
        if self.layout.code_rows is None:
            return {}

        with naming_plugin(f"plugin `{self.owner}`", " in `mio_layouts`"), torch.inference_mode():
            rows = dict(self.layout.code_rows(self.config, partial(_read, files, folder)))
        for name, own in rows.items():
            shapes = [list(one.shape) for one in (own.embedding, own.head)]
            if shapes != [[len(own.embedding), width]] * 2:
                raise PluginError(
                    f"plugin `{self.owner}`, hook `mio_layouts`: rows of the codes of `{name}` are {shapes[0]} and "
                    f"{shapes[1]}, the model's are [codes, {width}]"
                )
        return rows


def _read(files: ModelFiles, folder: Path, name: str) -> Tensor:
    if name not in files.tensors and name not in files.apart:
        raise UserError(f"{folder}: its weights lack the tensor `{name}`")
    return files.read(name)

"""A package with a plugin of one modality that works, written for a new author to change."""

from __future__ import annotations

import keyword
from importlib import resources
from pathlib import Path

from mio.core.contract.validation import NAME
from mio.core.errors import UserError

FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "mio_{name}/__init__.py": "plugin.py.txt",
    "mio_{name}/codec.py": "codec.py.txt",
    "mio_{name}/curves.py": "curves.py.txt",
    "recipes/{name}.yaml": "recipe.yaml.txt",
    "tests/test_plugin.py": "test_plugin.py.txt",
}
"""Path in the new package -> template beside this module; `__NAME__` stands for the name in both."""


def write_scaffold(name: str, folder: Path) -> Path:
    """Writes the package `mio-NAME` into `folder` and returns its path.

    Raises `UserError` for a name that is no modality's, and if the package's folder exists.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"`{name}` cannot name a modality: take lower case letters, digits and `_`, a letter first")
    package = folder / f"mio-{name.replace('_', '-')}"
    if package.exists():
        raise UserError(f"{package} exists already; take another name or `--dir`")
    templates = resources.files(__name__) / "files"
    for path, template in FILES.items():
        target = package / path.format(name=name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            (templates / template).read_text(encoding="utf-8").replace("__NAME__", name), encoding="utf-8"
        )
    return package

"""`mio recipe bundle`: a trained run as one folder or zip file, to be passed on (see `mio.core.runs.bundles`)."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from mio.core.errors import UserError
from mio.core.exchange.grammar_file import FILE as GRAMMAR
from mio.core.exchange.grammar_file import grammar_content
from mio.core.exchange.model_card import README, ModelCard
from mio.core.files import new_folder, write_json
from mio.core.recipe.lock_file import LockFile
from mio.core.recipe.places import (
    AVERAGE,
    BASE,
    BUNDLE,
    CHAIN,
    LOCK,
    RECIPE,
    SUMMARY,
    TOKENIZERS,
    VOCABULARY,
    WEIGHTS,
    is_file,
)
from mio.core.runs.bundles import SUFFIX, Manifest, digest
from mio.core.runs.lock import Lock, records
from mio.core.runs.run import Run
from mio.core.stages.locking import lock_trained, was_trained
from mio.core.tokens.templates import CHAT

_WEIGHTS = (WEIGHTS, AVERAGE, BASE)
_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that a bundle's bytes follow from its content."""


@dataclass(frozen=True)
class Bundled:
    """A bundle that was made."""

    path: Path
    files: int
    bytes: int
    notes: tuple[str, ...]
    """What its lock file cannot say."""


def bundle_run(run: Run, out: Path, *, weights: bool = False) -> Bundled:
    """Writes the bundle of a run, a zip file if `out` ends with `.zip` and a folder otherwise, whole or not at all.

    Args:
        weights: whether it holds the weights too, so that it answers without being trained.

    Raises:
        UserError: `out` is there already, the run is damaged, lacks the run that it starts from, or has a checkpoint
            and no result, or it was imported and its weights, which nothing can train again, are left out.
    """
    if not run.finished:
        raise UserError(
            f"{run.folder}: a checkpoint is no result; give the folder of a run that was trained to its end"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists; give another place, or delete it")
    chain: LockFile | None = None
    notes: list[str] = []
    if is_file(run.folder / CHAIN) or was_trained(run.folder):
        chain, notes = lock_trained(run.folder, run.manager)
    elif not weights:
        raise UserError(
            f"{run.folder}: was not trained by mio, so nothing can train it again; pack it with `--weights`"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        zipped = out.suffix == SUFFIX
        folder = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent)))
            if zipped
            else stack.enter_context(new_folder(out))
        )
        names = [*_copied(run, folder, weights, links=zipped), README]
        if chain is not None:
            chain.save(folder / CHAIN)
            names.append(CHAIN)
        name = out.stem if zipped else out.resolve().name
        _card(run, name).write_of_bundle(folder, out.name if zipped else name, weights, chain is not None)
        manifest = Manifest(
            run.recipe.name, {name: ((folder / name).stat().st_size, digest(folder / name)) for name in names}
        )
        write_json(folder / BUNDLE, manifest.to_json())
        if zipped:
            _zip(folder, [BUNDLE, *sorted(names)], out)
    return Bundled(out, len(names) + 1, manifest.bytes, tuple(notes))


def _copied(run: Run, folder: Path, weights: bool, links: bool) -> list[str]:
    """Copies the files of the run that a bundle has; the lock knows of no others then. `links`: weights that are only
    read from there need not be copied."""
    tokenizers = sorted(path for path in (run.folder / TOKENIZERS).rglob("*") if path.is_file())
    names = [RECIPE, VOCABULARY, *(path.relative_to(run.folder).as_posix() for path in tokenizers)]
    names += [name for name in _WEIGHTS if weights and (run.folder / name).is_file()]
    names += records(run.folder)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if links and name in _WEIGHTS:
            (folder / name).symlink_to((run.folder / name).resolve())
        else:
            shutil.copyfile(run.folder / name, folder / name)
    lock = Lock.read(run.folder)
    replace(lock, files={name: known for name, known in lock.files.items() if name in names}).save(folder / LOCK)
    return [*names, LOCK]


def _card(run: Run, name: str) -> ModelCard:
    recipe, vocabulary = run.recipe, run.vocabulary
    made, read = (set(by) for by in (run.codecs.makers, run.codecs.readers))
    stop = vocabulary.specials.im_end if recipe.data.form == CHAT else vocabulary.specials.eos
    return ModelCard(
        name=name,
        run=recipe.name,
        family="transformer",
        parameters=sum(math.prod(info.shape) for info in run.saved.infos().values()),
        license=recipe.license,
        chat=recipe.data.form == CHAT,
        grammar=grammar_content(vocabulary, stop, recipe.data.packing.context, made, read, run.codecs.undecodable),
        grammar_file=GRAMMAR,
        own=".",
        tasks=run.summary.get("tasks") or {} if is_file(run.folder / SUMMARY) else {},
        averaged=recipe.evaluate.average,
    )


def _zip(folder: Path, names: list[str], out: Path) -> None:
    partial = folder / f"{out.name}.partial"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            member = zipfile.ZipInfo(name, _TIME)
            member.external_attr = 0o100644 << 16
            stored = name in _WEIGHTS  # which do not get smaller
            member.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            with (folder / name).open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    partial.rename(out)

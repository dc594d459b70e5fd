"""Stages in which a head learns: what is logged and kept, other networks refused, and steps that do harm."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from mio import UserError
from mio.cli.app import run
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.runs.lock import Lock
from mio.core.runs.run import Run
from mio.core.stages.check_chain import check_chain
from mio.core.stages.fit import fit_chain

HELD = ("data.held_out=0.3", "validate.every=2")


def fit(*overrides):
    printed = io.StringIO()
    fit_chain(["tiles.yaml"], list(overrides), PluginManager.discover(), Console(file=printed, width=200))
    return printed.getvalue()


def test_a_heads_loss_is_logged_validated_and_kept_checkpoints_by(tiles_world):
    printed = fit(*HELD, "validate.best=heads/tile", "runtime.keep_best=1")
    assert "heads/tile" in printed
    assert ", tile " in printed.splitlines()[-1]
    rows = list(csv.DictReader((tiles_world / "runs/tiles/metrics.csv").open()))
    last = rows[-1]
    assert float(last["validation/heads/tile"]) > 0
    items = sum(float(row["heads/tile/items"]) for row in rows)
    summary = json.loads((tiles_world / "runs/tiles/summary.json").read_text())
    assert summary["heads"] == {"tile": {"items": items}}
    best = summary["validation"]["figures"]["heads/tile"]
    kept = tiles_world / "runs/tiles/checkpoints" / f"step-{best['best_step']:08}"
    assert best["best"] == min(float(row["validation/heads/tile"]) for row in rows)
    assert kept.is_dir()


def test_other_networks_than_the_runs_are_refused_by_name(tiles_world):
    fit("train.steps=2")
    lock = Lock.read(tiles_world / "runs/tiles")
    assert lock.networks == {
        "encoders": {"tile": "tile-encoder"},
        "adapters": {"tiles": "tile-adapter"},
        "heads": {"tile": "tile-head-False"},
    }
    path = tiles_world / "runs/tiles/recipe.lock"
    for kind, name, who in (
        ("adapters", "tiles", "the adapters of plugin `tiles` is tile-adapter, but the run was made with other"),
        ("heads", "tile", "the head of `tile` is tile-head-False, but the run was made with other"),
    ):
        changed = {**lock.networks, kind: {name: "other"}}
        Lock(**{**vars(lock), "networks": changed}).save(path)
        with pytest.raises(UserError, match=who):
            Run.open("runs/tiles", PluginManager.discover()).transformer  # noqa: B018


def test_what_becomes_of_a_parents_networks_is_noted(tiles_world):
    fit("train.steps=2")
    recipe = tiles_world / "more.yaml"
    recipe.write_text(
        (tiles_world / "tiles.yaml").read_text().replace("name: tiles", "name: more\nstart_from: runs/tiles")
    )

    def notes(*overrides):
        [stage] = check_chain(["more.yaml"], list(overrides), PluginManager.discover())
        return "\n".join(stage.notes)

    assert notes() == ""
    told = notes("plugins.tiles={head: false, adapters: false}", "train.loss.heads={_replace_: true}")
    assert "the adapters of plugin `tiles` of runs/tiles is left out: it has none with these options" in told
    assert "the head of `tile` of runs/tiles is left out: no plugin of the recipe has `tile` made by one" in told
    told = notes("plugins.tiles={own: true}")
    assert (
        "the head of `tile` is tile-head-True, in runs/tiles tile-head-False: it goes on with the weights from there, "
        "and makes media as it now does"
    ) in told


@pytest.mark.usefixtures("tiles_world")
def test_what_is_wrong_with_heads_and_adapters_is_told_at_once(capsys):
    rules = (
        "{a: {pattern: 'heads.tyle.*'}, b: {pattern: 'layers.*.adapters.tiels.*'}, "
        "c: {pattern: 'layers.*.adapters.tiles.*'}}"
    )
    code = run(["recipe", "check", "tiles.yaml", "train.loss.heads.tyle=2", f"train.optimizer.rules={rules}"])
    assert code == 2
    error = capsys.readouterr().err
    for words in (
        "`train.loss.heads` names `tyle`, which no head makes; did you mean `tile`? (heads make `tile`)",
        "`heads.tyle.*` matches no parameter; heads make `tile`; did you mean `tile`?",
        "`layers.*.adapters.tiels.*` matches no parameter; adapters are those of the plugins `tiles`; did you mean",
    ):
        assert words in error
    assert "rules.c`: " not in error
    code = run(["recipe", "check", "tiles.yaml", "validate.best=heads/tyle", *HELD])
    assert code == 2
    assert "`validate.best` is no figure of this recipe, `heads/tyle`; did you mean `heads/tile`?" in (
        capsys.readouterr().err
    )
    assert run(["recipe", "check", "tiles.yaml", "validate.best=heads/tile", *HELD]) == 0


def test_networks_whose_maps_nothing_makes_are_a_mistake_of_the_recipe(tiles_world, monkeypatch):
    (tiles_world / "deaf.py").write_text(
        "import tiles\nfrom tiles import *\n\nclass Deaf(tiles.TileEncoder):\n    maps = None\n\n"
        "@tiles.mio.hookimpl\ndef mio_encoder(modality):\n    return Deaf(False) if modality == 'tile' else None\n"
    )
    monkeypatch.setenv("MIO_PLUGINS", f"tiles={tiles_world / 'deaf.py'}")
    with pytest.raises(RecipeError) as raised:
        check_chain(["tiles.yaml"], [], PluginManager.discover())
    for who in ("plugin `tiles`", "the head of `tile`"):
        assert f"{who} reads the maps of `tile`, but the encoder of `tile` makes none" in str(raised.value)


def test_a_modality_that_is_only_written_cannot_be_asked_about(tiles_world, capsys, monkeypatch):
    text = (tiles_world / "tiles.yaml").read_text()
    (tiles_world / "mute.py").write_text(
        "import tiles\nfrom tiles import *\n\nclass Blind(tiles.TileHead):\n    pass\n\n"
        "@tiles.mio.hookimpl\ndef mio_encoder(modality):\n    return None\n\n"
        "@tiles.mio.hookimpl\ndef mio_adapters():\n    return None\n\n"
        "@tiles.mio.hookimpl\ndef mio_head(modality):\n    head = Blind(True)\n    head.maps = {}\n"
        "    return head if modality == 'tile' else None\n"
    )
    monkeypatch.setenv("MIO_PLUGINS", f"tiles={tiles_world / 'mute.py'}")
    asked = text.replace("tiles.jsonl}}}}", "pairs.jsonl}, templates: ask}}}").replace(
        "data:\n", 'data:\n  templates: {ask: [{direction: ask, prompt: "{tile}", response: "{word}"}]}\n'
    )
    (tiles_world / "asked.yaml").write_text(asked)
    assert run(["recipe", "check", "asked.yaml"]) == 2
    assert "asks about `{tile}`, which is only written, by a head; leave it out" in capsys.readouterr().err
    assert run(["recipe", "check", "tiles.yaml"]) == 0

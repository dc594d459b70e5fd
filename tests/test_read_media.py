"""Stages whose pictures are read by an encoder: one process and two, resumed, adapted, from other runs, exported."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket

import pytest
import torch
from conftest import call, once
from picture_world import PatchEncoder, pictures_in
from safetensors.torch import load_file

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.evaluation.evaluation import Options, evaluate
from mio.core.generation import replicas
from mio.core.generation.model import Model
from mio.core.recipe.model import ENCODERS
from mio.core.runs.run import Run

EVALUATED = ("evaluate.tasks=[shade]", "evaluate.items=6")


def fitted(*arguments):
    assert app.run(["fit", *arguments]) == 0


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def refused(capsys, *arguments):
    """What a command says that is refused."""
    capsys.readouterr()
    assert app.run([*map(str, arguments)]) == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs of `pictures.yaml` and `plain.yaml` in one process."""

    def make(folder):
        with pictures_in(folder):
            fitted("pictures.yaml", "train.average={kind: ema, decay: 0.5}", *EVALUATED)
            fitted("plain.yaml")

    return once(tmp_path_factory, "pictures", make)


@pytest.fixture
def work(alone, tmp_path):
    """Works in a copy."""
    shutil.copytree(alone, tmp_path / "work")
    with pictures_in(tmp_path / "work"):
        yield tmp_path / "work"


def test_two_processes_train_evaluate_and_go_on_as_one_does_bit_by_bit(work):
    run, two = work / "runs/pictures", work / "two/pictures"
    options = ("train.average={kind: ema, decay: 0.5}", *EVALUATED, "runtime.runs=two", "runtime.devices=2")
    code, _, err = call("fit", "pictures.yaml", *options)
    assert code == 0, err
    assert losses(two) == losses(run)
    for name in ("model.safetensors", "average.safetensors"):
        assert (two / name).read_bytes() == (run / name).read_bytes()
    tasks = [json.loads((folder / "summary.json").read_text())["tasks"]["shade"] for folder in (run, two)]
    assert tasks[0]["accuracy"] == tasks[1]["accuracy"]

    expected = (run / "model.safetensors").read_bytes()
    for name in ("summary.json", "model.safetensors", "average.safetensors"):
        (two / name).unlink()
    for step in (8, 12):
        shutil.rmtree(two / f"checkpoints/step-{step:08}")
    fitted("pictures.yaml", *options[:-1], "runtime.devices=1")
    assert (two / "model.safetensors").read_bytes() == expected


def test_a_run_stands_for_itself_with_parameters_and_buffers(work):
    state = load_file(work / "runs/pictures/model.safetensors")
    own = {name for name in state if name.startswith(ENCODERS)}
    assert {"encoders.picture.mean", "encoders.picture.seen", "encoders.picture.layers.1.output.weight"} <= own
    manager = PluginManager.discover()
    for place in ("runs/pictures", "runs/pictures/checkpoints/step-00000012"):
        transformer = Run.open(work / place, manager).transformer
        for name, tensor in (*transformer.named_parameters(), *transformer.named_buffers()):
            assert torch.equal(tensor, state[name]), name
    checkpoint = Run.open(work / "runs/pictures/checkpoints/step-00000004", manager, average=True)
    assert checkpoint.transformer.encoders["picture"].seen.dtype == torch.int64


def figures(folder, ranks):
    """What an evaluation says, but for the time that it took."""
    run = Run.open(folder, PluginManager.discover())
    run.recipe.evaluate.batch = 4
    report = evaluate(Model.of(run, precision="fp32", ranks=ranks), Options(tasks=["shade"], items=12))
    return {**report["shade"], "seconds": 0} if report else {}


def on_rank(rank, port, out, folder):
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    ranks, found = Ranks.join(), []
    with ranks.process_group("test", "cpu"):
        for devices in (1, 2):
            # as if so few devices could not hold a copy
            replicas._devices_per_copy = lambda *_, size=devices: size
            found.append(figures(folder, ranks))
    if rank == 0:
        (out / "found.json").write_text(json.dumps(found))


def test_an_evaluation_shared_by_whole_copies_or_by_parts_of_one_is_that_of_one_process(work, tmp_path):
    """Ranks that only assist get the items too."""
    from torch.multiprocessing import spawn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(on_rank, (port, tmp_path, work / "runs/pictures"), nprocs=2)
    whole, parts = json.loads((tmp_path / "found.json").read_text())
    assert whole == parts == json.loads(json.dumps(figures(work / "runs/pictures", Ranks())))


def test_a_stage_may_begin_with_a_new_encoder_or_leave_one_out(work, capsys):
    capsys.readouterr()
    fitted("pictures.yaml", "name=new", "start_from=runs/plain", "train.steps=1")
    told = capsys.readouterr().out.replace("\n", " ")
    assert "`picture` is read by an encoder, which runs/plain has not: it begins as its plugin makes it" in told
    fitted("plain.yaml", "name=left", "start_from=runs/pictures", "train.steps=1")
    assert "the encoder of `picture` of runs/pictures is left out" in capsys.readouterr().out.replace("\n", " ")
    assert not [name for name in load_file(work / "runs/left/model.safetensors") if name.startswith(ENCODERS)]
    assert json.loads((work / "runs/new/recipe.lock").read_text())["encoders"] == {"picture": "patches-32-2"}
    assert "encoders" not in json.loads((work / "runs/plain/recipe.lock").read_text())
    fitted("pictures.yaml", "name=on", "start_from=runs/pictures", "train.steps=1", "train.optimizer.lr=1e-9",
           "train.optimizer.muon_lr=1e-9")  # fmt: skip
    before, after = (load_file(work / f"runs/{name}/model.safetensors") for name in ("pictures", "on"))
    for name in before.keys() - {"embedding.weight"}:  # whose padding rows are new
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6, msg=name)


def test_another_network_than_the_parents_is_refused_before_anything_is_done(work, capsys):
    error = refused(
        capsys, "fit", "pictures.yaml", "name=deeper", "start_from=runs/pictures", "plugins.pictures.layers=3"
    )
    assert "runs/pictures: its `encoders.picture` is another network than the recipe's" in error
    assert "`encoders.picture.layers.2." in error
    assert not (work / "runs/deeper/tokenizers").exists()
    recipe = work / "runs/pictures/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("pictures: {}", "pictures: {width: 48}"))
    assert app.run(["recipe", "lock", "runs/pictures", "--accept"]) == 0
    lock = json.loads((work / "runs/pictures/recipe.lock").read_text())
    assert lock["encoders"] == {"picture": "patches-48-2"}


@pytest.mark.usefixtures("work")
def test_an_encoder_that_reads_otherwise_than_the_runs_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(PatchEncoder, "__init__", renamed(PatchEncoder.__init__))
    error = refused(capsys, "evaluate", "runs/pictures", "shade", "--items", "2")
    assert "the encoder of `picture` is otherwise, but the run was made with patches-32-2; use the plugins" in error


def renamed(construct):
    def changed(encoder, *given, **named):
        construct(encoder, *given, **named)
        encoder.fingerprint = "otherwise"

    return changed


@pytest.mark.usefixtures("work")
def test_patterns_of_encoders_are_checked_without_torch_and_again_with_the_networks_names(capsys):
    def rule(pattern):
        return f"train.optimizer.rules.frozen={{pattern: '{pattern}', trainable: false}}"

    assert app.run(["recipe", "check", "pictures.yaml", rule("encoders.picture.projector.*")]) == 0
    error = refused(capsys, "recipe", "check", "pictures.yaml", rule("encoders.pictrue.*"))
    assert "`encoders.pictrue.*` matches no parameter; encoders read `picture`; did you mean `picture`?" in error
    error = refused(capsys, "recipe", "check", "plain.yaml", rule("encoders.picture.*"))
    assert "no modality of the recipe is read by an encoder" in error
    error = refused(capsys, "fit", "pictures.yaml", "name=wrong", rule("encoders.picture.projecter.*"))
    assert "`train.optimizer.rules.frozen`: `encoders.picture.projecter.*` matches no parameter; did you mean" in error
    error = refused(
        capsys, "recipe", "check", "pictures.yaml", "start_from=runs/plain",
        "train.lora={rank: 2, targets: ['encoders.*']}",
    )  # fmt: skip
    assert "encoders have no adapters; they are frozen, and `train.lora.train: [encoders.*]` trains them" in error


@pytest.mark.parametrize("parent", ["plain", "pictures"])
def test_beside_adapters_encoders_are_frozen_or_trained_whole(work, parent, capsys):
    lora = "train.lora={rank: 2, train: ['encoders.picture.projector.*']}"
    fitted("pictures.yaml", "name=adapted", f"start_from=runs/{parent}", "train.steps=2", lora)
    folder = work / "runs/adapted"
    base, trained = (load_file(folder / f"{name}.safetensors") for name in ("base", "model"))
    assert {name for name in trained if name.startswith(ENCODERS)} == {
        "encoders.picture.projector.weight", "encoders.picture.projector.bias",
    }  # fmt: skip
    assert base["encoders.picture.seen"].dtype == torch.int64
    assert not torch.equal(base["encoders.picture.projector.bias"], trained["encoders.picture.projector.bias"])
    run = Run.open(folder, PluginManager.discover())
    whole = run.saved
    assert torch.equal(whole.read("encoders.picture.place"), base["encoders.picture.place"])
    assert torch.equal(run.transformer.encoders["picture"].projector.bias, trained["encoders.picture.projector.bias"])
    if parent == "pictures":
        assert app.run(["export", "runs/adapted", "exported"]) == 0
        capsys.readouterr()
        assert app.run(["import", "exported", "--name", "back"]) == 0
        again = Run.open(work / "runs/back", PluginManager.discover()).transformer.state_dict()
        for name, tensor in run.transformer.state_dict().items():
            assert torch.equal(again[name], tensor), name


def test_an_export_has_the_language_model_and_the_encoders_apart_and_comes_back(work, capsys):
    capsys.readouterr()
    assert app.run(["export", "runs/pictures", "exported"]) == 0
    told = capsys.readouterr().out
    assert "exported/mio/networks.safetensors: networks of plugins, encoders.picture" in told
    assert "only mio reads" in told
    readme = (work / "exported/README.md").read_text()
    assert "`mio/networks.safetensors`" in readme
    assert not [name for name in load_file(work / "exported/model.safetensors") if "encoder" in name]
    assert app.run(["export", "runs/plain", "plainly"]) == 0
    assert "networks" not in (work / "plainly/README.md").read_text()

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("exported")
    run = Run.open(work / "runs/pictures", PluginManager.discover())
    tokens = torch.tensor([[70, 80, 90]])
    ours = run.transformer(tokens, torch.arange(3)[None]).hidden
    scores = run.transformer.logits(ours, run.vocabulary.size)
    torch.testing.assert_close(model(tokens).logits, scores, rtol=0, atol=1e-4)

    assert app.run(["import", "exported", "--name", "back"]) == 0
    again = Run.open(work / "runs/back", PluginManager.discover())
    before, after = run.weights(), again.weights()
    assert before.keys() == after.keys()
    before["embedding.weight"][run.vocabulary.size :] = 0  # an export has no padding rows
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    (work / "exported/mio/networks.safetensors").unlink()
    error = refused(capsys, "import", "exported", "--name", "again")
    assert "networks.safetensors: is missing, and plugins of the run have networks in the model" in error


@pytest.mark.usefixtures("work")
def test_a_plan_has_a_line_per_encoder(capsys):
    capsys.readouterr()
    assert app.run(["plan", "pictures.yaml", "world=2", "media={picture: 0.25}", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    [encoder] = planned["encoders"]
    assert encoder["modality"] == "picture"
    assert encoder["positions"] == encoder["items"] * 4 == 2 * 12  # of 48 positions on each of two devices
    assert encoder["trained"] == encoder["parameters"] > 0
    error = refused(capsys, "plan", "pictures.yaml", "media={pictrue: 0.1}")
    assert "`media`: no encoder reads `pictrue`; did you mean `picture`?" in error
    error = refused(capsys, "plan", "pictures.yaml", "media=2")
    assert "`media` is a share of the positions from 0 to 1" in error

"""Checkpoints: what comes back is what was saved, on any number of ranks; the last one stays whole."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from mio.core.errors import UserError
from mio.core.runs.checkpoints import writing
from mio.core.runs.checkpoints.format import latest, listed
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.checkpoints.writing import Best, CheckpointWriter

TENSORS = {
    "matrix": torch.randn(7, 5),
    "half": torch.randn(3, 2).bfloat16(),
    "scalar": torch.tensor(2.5),
    "counts": torch.arange(6),
    "flags": torch.tensor([True, False]),
    "nothing": torch.empty(0, 4),
}
STATE = {"step": 3, "nested": {"list": [1, 2.5, None, "é"]}, "nan": math.nan, "exact": 0.1 + 0.2}


def saved(folder, step=3, loss=None, tensors=TENSORS, **options):
    writer = CheckpointWriter(folder, **options)
    writer.save(step, tensors, STATE, loss=loss)
    writer.wait()
    return latest(folder)


def read_all(path):
    """A checkpoint, every file of which was read."""
    checkpoint = Checkpoint(path)
    assert checkpoint.state is not None
    for name in checkpoint.names:
        checkpoint.read(name)
    return checkpoint


def test_everything_comes_back_as_it_was(tmp_path):
    checkpoint = Checkpoint(saved(tmp_path, loss=1.5))
    assert (checkpoint.step, checkpoint.loss) == (3, 1.5)
    assert checkpoint.state.pop("nan") != checkpoint.state.get("nan", 0)
    assert checkpoint.state == {key: value for key, value in STATE.items() if key != "nan"}
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.read(name), tensor), name
    filled = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    checkpoint.read_into(filled)
    assert all(torch.equal(filled[name], tensor) for name, tensor in TENSORS.items())
    assert torch.equal(checkpoint.part("matrix", (3, 2), (2, 1)), TENSORS["matrix"][2:5, 1:3])


def test_a_snapshot_is_taken_before_training_goes_on(tmp_path):
    tensor = torch.ones(1000, 100)
    writer = CheckpointWriter(tmp_path)
    writer.save(1, {"x": tensor}, {})
    tensor.zero_()
    writer.wait()
    assert Checkpoint(latest(tmp_path)).read("x").sum() == 100_000


@pytest.mark.parametrize("file", ["index.json", "state.json", "rank-00000.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damage_is_noticed_and_named(tmp_path, file, damage):
    path = saved(tmp_path)
    content = bytearray((path / file).read_bytes())
    if damage == "missing":
        (path / file).unlink()
    elif damage == "cut":
        (path / file).write_bytes(content[: len(content) // 2])
    else:
        place = 0 if file == "index.json" else len(content) - 2  # of the index, a byte that JSON needs
        content[place] ^= 0x11
        (path / file).write_bytes(content)
    with pytest.raises(UserError, match=rf"{file}: (is damaged|no such file).*; delete .*step-00000003"):
        read_all(path)


def test_other_shapes_dtypes_and_names_are_refused(tmp_path):
    checkpoint = Checkpoint(saved(tmp_path))
    for wrong in (
        {"matrix": torch.zeros(5, 7)},
        {"matrix": torch.zeros(7, 5, dtype=torch.float64)},
        {"other": torch.zeros(7, 5)},
    ):
        with pytest.raises(UserError, match="does not fit the model"):
            checkpoint.read_into(wrong)


def test_the_newest_and_the_best_are_kept(tmp_path):
    writer = CheckpointWriter(tmp_path, keep_last=2, keep_best=2)
    losses = {1: 5.0, 2: 1.0, 3: math.nan, 4: 2.0, 5: 4.0, 6: None, 7: 6.0}
    for step, loss in losses.items():
        writer.save(step, {"x": torch.ones(2)}, {}, loss=loss)
    writer.wait()
    assert [Checkpoint(path).step for path in listed(tmp_path)] == [2, 4, 6, 7]


@pytest.mark.parametrize("highest", [False, True])
def test_the_best_are_kept_by_a_figure_of_validation_where_there_is_one(tmp_path, highest):
    writer = CheckpointWriter(tmp_path, keep_last=1, keep_best=2, best=Best("tasks/draw", highest))
    figures = {1: 5.0, 2: 1.0, 3: math.nan, 4: 2.0, 5: 4.0, 6: None, 7: None}
    for step, figure in figures.items():
        writer.save(step, {"x": torch.ones(2)}, {}, loss=0.0, figure=figure)
    writer.wait()
    kept = [Checkpoint(path) for path in listed(tmp_path)]
    assert [one.step for one in kept] == ([1, 5, 7] if highest else [2, 4, 7])
    assert [one.figures for one in kept] == [{"tasks/draw": figures[one.step]} for one in kept]


def test_a_step_saved_again_takes_the_place_of_the_old_one(tmp_path):
    saved(tmp_path)
    saved(tmp_path, tensors={"x": torch.ones(1)}, attempt="second")
    assert [Checkpoint(path).names.keys() for path in listed(tmp_path)] == [{"x": 0}.keys()]


def test_leftovers_of_an_earlier_start_are_removed_and_never_read(tmp_path):
    (tmp_path / "step-00000009.partial-earlier").mkdir()
    assert latest(tmp_path) is None
    writer = CheckpointWriter(tmp_path, attempt="now")
    assert list(tmp_path.iterdir())  # nothing is changed before the training goes on
    writer.begin()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    writer = CheckpointWriter(tmp_path)
    writer.save(1, TENSORS, STATE)
    writer.wait()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_file", full)
    writer.save(2, TENSORS, STATE)
    with pytest.raises(UserError, match=r"step 2 could not be written: No space left on device; make room"):
        writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    writer.save(3, TENSORS, STATE)
    writer.wait()
    read_all(latest(tmp_path))


def test_a_defect_while_writing_is_not_lost_in_its_thread(tmp_path):
    writer = CheckpointWriter(tmp_path)
    writer.save(1, {"x": torch.zeros(2, dtype=torch.complex64)}, {})
    with pytest.raises(KeyError):
        writer.wait()


def save_for_ever(folder, attempt):
    writer = CheckpointWriter(folder, attempt=str(attempt), keep_last=1)
    for step in range(attempt * 1000, 10**6):
        writer.save(step, {f"t{i}": torch.full((300, 300), float(step)) for i in range(8)}, {"step": step})


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    draw = random.Random(0)
    for attempt in range(1, 7):
        before = latest(tmp_path)
        child = os.fork()
        if not child:
            try:
                save_for_ever(tmp_path, attempt)
            finally:
                os._exit(1)
        deadline = time.monotonic() + 60
        while latest(tmp_path) in (None, before) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        checkpoint = read_all(latest(tmp_path))
        assert checkpoint.state["step"] >= attempt * 1000
        assert all(bool((checkpoint.read(f"t{i}") == checkpoint.state["step"]).all()) for i in range(8))


def meet(rank, size, meeting, patience=60.0):
    """The group in which writers of `size` ranks wait for each other."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    return torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=patience))


def problem_on_rank(rank, folder, how):
    """Saves twice; at the second time rank 1 does not do its part. Writes down what `wait` raised, and when."""
    group = meet(rank, 3, folder / "meeting", patience=2.0 if how == "late" else 60.0)
    writer = CheckpointWriter(folder / "checkpoints", group, attempt="a")
    tensors = {"x": distribute_tensor(torch.arange(9.0), init_device_mesh("cpu", (3,)), [Shard(0)])}
    writer.save(1, tensors, {})
    writer.wait()
    write_file = writing.write_file

    def broken(*_):
        if how == "full":
            raise OSError(28, "No space left on device")
        if how == "defect":
            raise KeyError("complex64")
        if how == "gone":
            os._exit(0)
        time.sleep(8)

    writing.write_file = broken if rank == 1 else write_file
    began = time.monotonic()
    writer.save(2, tensors, {})
    try:
        writer.wait()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        (folder / f"rank-{rank}").write_text(json.dumps([text, time.monotonic() - began]))
    others = [folder / f"rank-{number}" for number in (0, 2)]
    while how == "late" and not all(path.exists() for path in others):
        time.sleep(0.1)  # one that left would be found gone
    if how == "full":  # whoever mends it goes on
        writing.write_file = write_file
        writer.save(3, tensors, {})
        writer.wait()
    os._exit(0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("full", "UserError: .*step 2 could not be written: No space left on device; make room"),
        ("defect", "UserError: .*step-00000002.*: KeyError: 'complex64'"),
        ("gone", "(RuntimeError|DistBackendError|DistNetworkError): .*"),
        ("late", "UserError: .*not all ranks have written their parts in time"),
    ],
)
def test_a_rank_that_does_not_write_ends_the_saving_of_all(tmp_path, how, told):
    torch.multiprocessing.start_processes(problem_on_rank, (tmp_path, how), nprocs=3, start_method="fork")
    for rank in (0, 2):
        text, seconds = json.loads((tmp_path / f"rank-{rank}").read_text())
        assert re.match(told, text, re.DOTALL), text
        assert seconds < 30
    own = tmp_path / "rank-1"
    if how == "full":
        assert json.loads(own.read_text())[0] == json.loads((tmp_path / "rank-0").read_text())[0]
    elif how == "defect":
        assert json.loads(own.read_text())[0].startswith("KeyError")
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [name for name in left if "partial" not in name] == [
        "step-00000001",
        *(["step-00000003"] if how == "full" else []),
    ]
    for path in listed(tmp_path / "checkpoints"):
        assert torch.equal(Checkpoint(path).read("x"), torch.arange(9.0))


def test_what_another_start_half_wrote_is_never_completed(tmp_path):
    """A start that was replaced while it wrote comes too late: its folder was deleted."""
    old, new = CheckpointWriter(tmp_path, attempt="old"), CheckpointWriter(tmp_path, attempt="new")
    old.begin()
    (tmp_path / "step-00000003.partial-old").mkdir()
    write_file = writing.write_file

    def replaced(*arguments):
        write_file(*arguments)
        if "partial-old" in str(arguments[0]):
            new.save(3, {"x": torch.ones(1)}, STATE)
            new.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "write_file", replaced)
        old.save(3, TENSORS, STATE)
        with pytest.raises(UserError, match="could not be written: No such file"):
            old.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert Checkpoint(latest(tmp_path)).names.keys() == {"x"}


class Pair(nn.Module):
    """Two matrices, one with a number of rows that four ranks cannot share evenly."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.up = nn.Linear(6, 8)
        self.down = nn.Linear(8, 6)
        self.odd = nn.Linear(4, 5)
        self.tiny = nn.Parameter(torch.randn(1))


def spread(layout):
    """`Pair` over all ranks in one of several ways."""
    pair, size = Pair(), torch.distributed.get_world_size()
    if layout == "full":
        return fully_shard(pair, mesh=init_device_mesh("cpu", (size,)))
    if layout == "hybrid":
        return fully_shard(pair, mesh=init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("copy", "shard")))
    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("shard", "tensor"))
    parallelize_module(pair, mesh["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return fully_shard(pair, mesh=mesh["shard"])


def on_rank(rank, size, folder, meeting, work):
    group = meet(rank, size, meeting)
    expected = {name: parameter.detach() for name, parameter in Pair().named_parameters()}
    for layout, source in work:
        parameters = dict(spread(layout).named_parameters())
        assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
        if source is None:
            writer = CheckpointWriter(Path(folder, layout), group, attempt="a")
            writer.save(1, parameters, {})
            writer.wait()
            continue
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.to_local().zero_()
        Checkpoint(latest(Path(folder, source))).read_into(parameters)
        for name, parameter in parameters.items():
            assert torch.equal(parameter.detach().full_tensor(), expected[name]), (layout, source, name)
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo that wakes up while the interpreter is taken down would abort the process


def run(size, folder, work, name):
    arguments = (size, str(folder), str(folder / f"meet-{name}"), work)
    torch.multiprocessing.start_processes(on_rank, arguments, nprocs=size, start_method="fork")


@pytest.mark.filterwarnings("ignore")
def test_any_layout_is_read_into_any_other_on_any_number_of_ranks(tmp_path):
    layouts = ("full", "hybrid", "split")
    saves = [(layout, None) for layout in layouts]
    run(4, tmp_path, [*saves, *((layout, source) for layout in layouts for source in layouts)], "a")
    run(2, tmp_path, [(layout, source) for layout in ("full", "split") for source in layouts], "b")
    for source in layouts:
        checkpoint = Checkpoint(latest(tmp_path / source))
        for name, parameter in Pair().named_parameters():
            assert torch.equal(checkpoint.read(name), parameter.detach()), (source, name)

import gc
import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback, LightningModule, Trainer
from made_recipe import Characters, Plugins, made_recipe
from torch.utils.data import DataLoader, IterableDataset

from mio.core.data.loader import MioDataModule, StepBatches, as_raised
from mio.core.errors import DataError, RecipeError
from mio.core.recipe.schema import TrainConfig
from mio.core.recipe.steps import StepShape

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def key(batch):
    """All that a batch holds, comparable."""
    tensors = (batch.tokens, batch.targets, batch.weights, batch.positions, batch.stream)
    return [t.tolist() for t in tensors], batch.lengths, batch.step, batch.changes


def batches(recipe, *, world=1, rank=0, workers=0, cursor=None):
    module = MioDataModule(recipe, Plugins(), Characters())
    data = StepBatches(
        plan=module._plan,
        streams=module.streams,
        shape=StepShape.of(recipe.train, world),
        steps=recipe.train.steps,
        pad=0,
        rank=rank,
        cursor=cursor,
    )
    return list(DataLoader(data, batch_size=None, num_workers=workers))


def cursor_after(recipe, parts, step):
    """The state that a run saves when so many steps of its batches were trained on."""
    module = MioDataModule(recipe, Plugins(), Characters())
    for batch in parts:
        if batch.step < step:
            module.commit(batch)
    return module.state_dict()


def rows_by_step(parts):
    """Rows of each step over all ranks: `parts` holds the batches of each rank in order."""
    steps = {}
    for part in parts:
        for batch in part:
            steps.setdefault(batch.step, []).extend(batch.tokens.tolist())
    return steps


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_worker_processes_change_nothing(workers, unit):
    recipe = made_recipe(unit=unit, rows=6, micro_rows=2, steps=7)
    assert [key(b) for b in batches(recipe, workers=workers)] == [key(b) for b in batches(recipe)]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_rows_of_one_sequence(world):
    recipe = made_recipe(rows=8, micro_rows=2)
    alone = batches(recipe)
    parts = [batches(recipe, world=world, rank=rank, workers=rank % 2) for rank in range(world)]
    assert rows_by_step(parts) == rows_by_step([alone])
    changes = [[b.changes for b in part if b.ends_step] for part in parts]
    assert all(found == [b.changes for b in alone if b.ends_step] for found in changes)


@settings(max_examples=12, deadline=None)
@given(stop=st.integers(1, 11), before=st.sampled_from([1, 2, 4]), after=st.sampled_from([1, 2, 4]))
def test_a_killed_run_goes_on_exactly_on_any_number_of_ranks(stop, before, after):
    recipe = made_recipe(rows=8, micro_rows=2)
    whole = rows_by_step([batches(recipe)])
    first = [batches(recipe, world=before, rank=rank) for rank in range(before)]
    cursor = json.loads(json.dumps(cursor_after(recipe, first[-1], stop)))
    rest = [batches(recipe, world=after, rank=rank, cursor=cursor) for rank in range(after)]
    again = rows_by_step(rest)
    assert again == {step: rows for step, rows in whole.items() if step >= stop}


def test_going_on_with_other_workers_is_exact():
    recipe = made_recipe(rows=4, micro_rows=1)
    whole = batches(recipe)
    cursor = cursor_after(recipe, whole, 5)
    for workers in (0, 1, 3):
        again = batches(recipe, workers=workers, cursor=cursor)
        assert [key(b) for b in again] == [key(b) for b in whole if b.step >= 5]


def test_the_seed_changes_the_order_and_nothing_random_else_does():
    recipe, other = made_recipe(), made_recipe()
    other.seed = 1
    torch.manual_seed(5)
    first = [key(b) for b in batches(recipe)]
    torch.manual_seed(6)
    assert [key(b) for b in batches(recipe)] == first
    assert [key(b)[0] for b in batches(other)] != [first_key[0] for first_key in first]


class Watcher(Callback):
    """Commits, checkpoints after one step, and stops there."""

    def __init__(self, path=None, stop=None):
        self.path, self.stop = path, stop
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # noqa: ARG002
        trainer.datamodule.commit(batch)
        self.seen.append(key(batch))
        if batch.ends_step and trainer.global_step == self.stop:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


class OneWeight(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, index):  # noqa: ARG002
        return self.weight * batch.weights.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(recipe, watcher, checkpoint=None):
    module = MioDataModule(recipe, Plugins(), Characters())
    trainer = Trainer(
        accelerator="cpu",
        max_steps=recipe.train.steps,
        max_epochs=-1,
        accumulate_grad_batches=module.shape.micro_batches,
        callbacks=[watcher],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(OneWeight(), datamodule=module, ckpt_path=checkpoint, weights_only=True)
    return trainer, module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_lightning_resumes_without_losing_or_repeating_a_batch(tmp_path, before, after):
    recipe = made_recipe(rows=4, micro_rows=1, steps=9)
    expected = [key(b) for b in batches(recipe)]
    module = MioDataModule(recipe, Plugins(), Characters())
    assert len(module.train_dataloader()) == len(expected) == 36
    recipe.runtime.workers = before
    first = Watcher(tmp_path / "a.ckpt", stop=4)
    train(recipe, first)
    recipe.runtime.workers = after
    second = Watcher()
    trainer, module = train(recipe, second, tmp_path / "a.ckpt")
    assert trainer.global_step == 9
    assert first.seen + second.seen == expected
    report = module.report()
    assert report["rows"] == 36
    assert report["tokens"] == sum(sum(sum(row) for row in lengths) for _, lengths, _, _ in expected)
    assert module.shares() == {g: (v["target"], v["achieved"]) for g, v in report["mixture"].items()}


def test_ranks_whose_plans_came_apart_do_not_save(monkeypatch):
    module = MioDataModule(made_recipe(), Plugins(), Characters())
    other = [("something else", {})]

    def gather(digests, digest):
        digests[:] = [digest, *other]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(DataError, match="the ranks disagree about the data after step 0"):
        module.state_dict()
    other.clear()
    assert module.state_dict()["step"] == 0


def test_only_a_whole_step_moves_the_cursor():
    recipe = made_recipe(rows=4, micro_rows=2)
    module = MioDataModule(recipe, Plugins(), Characters())
    half, end = batches(recipe)[:2]
    module.commit(half)
    assert module.state_dict()["step"] == 0
    module.commit(end)
    assert module.state_dict()["step"] == 1


def test_a_cursor_of_other_data_is_refused():
    module = MioDataModule(made_recipe(), Plugins(), Characters())
    other = MioDataModule(made_recipe(directions={"read": 1}), Plugins(), Characters())
    with pytest.raises(DataError, match="`pairs/letters/write` is gone"):
        other.load_state_dict(module.state_dict())


@pytest.mark.parametrize(
    ("rows", "micro", "world", "words"),
    [
        (10, 0, 4, "`train.rows` is 10, which 4 devices cannot share equally; set it to 8 or 12"),
        (3, 0, 4, "set it to 4"),
        (24, 5, 2, "`train.micro_rows` is 5, which does not divide the 12 rows"),
        (0, 0, 1, "rows are 1 or more"),
    ],
)
def test_rows_that_do_not_divide_are_refused_with_the_nearest_that_do(rows, micro, world, words):
    with pytest.raises(RecipeError, match=words.replace("(", r"\(")):
        StepShape.of(TrainConfig(rows=rows, micro_rows=micro), world)


def test_step_shape():
    shape = StepShape.of(TrainConfig(rows=24, micro_rows=3), 4)
    assert (shape.share, shape.micro_rows, shape.micro_batches) == (6, 3, 2)
    assert StepShape.of(TrainConfig(rows=8, micro_rows=4), 4).micro_rows == 2  # more ranks, smaller passes


class Refusing(IterableDataset):
    def __iter__(self):
        raise DataError("data.jsonl:3: is too long")


def test_errors_of_data_workers_are_told_in_their_own_words():
    with pytest.raises(DataError) as caught:
        next(iter(DataLoader(Refusing(), batch_size=None, num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert str(as_raised(caught.value)) == "data.jsonl:3: is too long"
    assert isinstance(as_raised(caught.value), DataError)
    own = DataError("data.jsonl:3: is too long")
    assert as_raised(own) is own


class Left:
    """In a cycle with itself, so that only the garbage collector destroys it; notes in which process it does."""

    def __init__(self, folder):
        self.folder, self.own = folder, self

    def __del__(self):
        (self.folder / str(os.getpid())).touch()


class Collecting(IterableDataset):
    def __iter__(self):
        gc.collect()
        yield os.getpid()


def test_a_worker_destroys_nothing_that_it_inherited(tmp_path):
    data = MioDataModule(made_recipe(), Plugins(), Characters())
    options = {"num_workers": 1, "worker_init_fn": data.train_dataloader().worker_init_fn, "batch_size": None}
    gc.disable()
    try:
        Left(tmp_path)
        [worker] = DataLoader(Collecting(), **options)
    finally:
        gc.enable()
    gc.collect()
    assert worker != os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]

"""Lightning strategies: one device, or many with a sharded model; both with mio's own checkpoints.

A checkpoint holds tensors by name, each saved by the rank that holds it, and everything else as JSON: loops, callbacks,
schedule, the data cursor. Optimizer state goes by the name of its parameter, so it can be read on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor
from torch.optim import Optimizer

from mio.core.distributed.regions import zeros_like
from mio.core.errors import UserError
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.checkpoints.writing import CheckpointWriter
from mio.core.training.module import MioModule


class _WithCheckpoints(Strategy):
    """What both strategies have in common."""

    writer: CheckpointWriter
    """Writes the checkpoints."""
    loss: float | None = None
    """Mean training loss since the last checkpoint: noted in the next one."""
    figure: float | None = None
    """Figure of the validation of this step, by which the best checkpoints are kept: noted in a checkpoint of it."""
    _opened: Checkpoint | None = None

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}  # `save_checkpoint` takes the tensors itself

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,  # noqa: ARG002
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Takes a snapshot and lets the training go on while it is written. A collective call."""
        module = self._module
        state = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "optimizer_states")}
        names = {id(parameter): name for name, parameter in module.transformer.named_parameters()}
        tensors = module.tensors()
        for optimizer in self.optimizers:
            tensors |= dict(_optimizer_tensors(optimizer, names))
        state["optimizer"] = {
            "groups": [
                {**{key: value for key, value in group.items() if key != "params"}, "params": _named(group, names)}
                for optimizer in self.optimizers
                for group in optimizer.param_groups
            ]
        }
        self.writer.save(checkpoint["global_step"], tensors, state, loss=self.loss, figure=self.figure)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        self._opened = Checkpoint(Path(checkpoint_path))
        state = self._opened.state
        # Lightning counts forward passes, of which a step may have had another number on other ranks
        passes = state["global_step"] * self._module.trainer.accumulate_grad_batches
        progress = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, passes))
        return {**state, "state_dict": {}, "optimizer_states": [{}]}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:  # noqa: ARG002
        assert self._opened is not None
        tensors = self._module.tensors()
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(("model.", "average."))}
        with torch.no_grad():
            self._opened.read_into(tensors)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        assert self._opened is not None
        names = {id(parameter): name for name, parameter in self._module.transformer.named_parameters()}
        groups = iter(checkpoint["optimizer"]["groups"])
        infos = self._opened.names
        for optimizer in self.optimizers:
            wanted: dict[str, Tensor] = {}
            for group in optimizer.param_groups:
                saved = next(groups, None)
                if saved is None or saved["params"] != _named(group, names):
                    raise UserError(
                        f"{self._opened.path}: its optimizer has other groups of parameters; `train.optimizer` or the "
                        "version of mio changed during the run. Start a new run from its result (`start_from: RUN`)"
                    )
                group.update({key: value for key, value in saved.items() if key != "params"})
                for parameter in group["params"]:
                    prefix = f"optimizer.{names[id(parameter)]}."
                    for name in (name for name in infos if name.startswith(prefix)):
                        tensor = _like(parameter, infos[name].shape, infos[name].dtype, group.get("fused"))
                        optimizer.state[parameter][name.removeprefix(prefix)] = wanted[name] = tensor
            self._opened.read_into(wanted)
        self._opened = None

    @property
    def _module(self) -> MioModule:
        assert isinstance(self.lightning_module, MioModule)
        return self.lightning_module


class OneDevice(_WithCheckpoints, SingleDeviceStrategy):
    """One process; a CPU, or an accelerator without `torch.distributed`."""


class ManyDevices(_WithCheckpoints, ModelParallelStrategy):
    """FSDP2 and tensor parallelism over all processes that a launcher started, and over one GPU alone.

    The processes have met before, so Lightning's own mesh has one dimension only; `parallel.py` makes the engine's.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1)


def _optimizer_tensors(optimizer: Optimizer, names: Mapping[int, str]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the optimizer's state."""
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            assert isinstance(value, Tensor), f"optimizer state `{key}` is no tensor"
            yield f"optimizer.{names[id(parameter)]}.{key}", value


def _like(parameter: Tensor, shape: Sequence[int], dtype: torch.dtype, fused: bool | None) -> Tensor:
    """Room for a piece of optimizer state: split like the parameter if it has its shape, else a counter."""
    if tuple(shape) == tuple(parameter.shape):
        return zeros_like(parameter, dtype)
    return torch.zeros(tuple(shape), dtype=dtype, device=parameter.device if fused else "cpu")


def _named(group: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    return [names[id(parameter)] for parameter in group["params"]]

"""A step of the program as it runs on CPUs, simulated by `mio.core.planning`: what `plan.py`, `gpu.py` and the tests
compare with real runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.data.document_mask import DocumentMask
from mio.core.distributed.assignment import assign
from mio.core.model import expert_parallel, experts
from mio.core.model.attention import Selection
from mio.core.model.expert_parallel import arrivals
from mio.core.model.parallel import data_parallel, device_mesh, parallelise, recompute
from mio.core.planning.fake_gpu import META, even_counts, even_load, fake_ranks
from mio.core.planning.simulate import SimulatedStep, StepLayout, network_loads, observe
from mio.core.planning.trace import Trace
from mio.core.recipe.schema import RuntimeConfig, TrainConfig
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule


def simulate_cpu(
    model: TransformerConfig,
    vocabulary: Vocabulary,
    train: TrainConfig,
    runtime: RuntimeConfig,
    layout: StepLayout,
    networks: Networks | None = None,
) -> SimulatedStep:
    """`simulate` for CPUs: one process, or several over gloo."""
    trace = Trace()
    with contextlib.ExitStack() as stack:
        with META:
            module = MioModule(model, vocabulary, train, ("",), networks=networks)
        loads = network_loads(module.transformer, layout)
        if layout.world > 1:
            stack.enter_context(fake_ranks(layout.world))
            mesh = device_mesh(runtime, layout.world, layout.per_node, "cpu")
            module.replicas = data_parallel(mesh)[1]
            parallelise(module.transformer, mesh, runtime, train.precision)
        else:
            recompute(module.transformer, runtime.activation_checkpointing)
        if train.precision == "bf16":
            module.training_step = torch.autocast("cpu", torch.bfloat16)(module.training_step)
        stack.enter_context(_fake_cpu(trace.count))
        return observe(module, layout, torch.device("cpu"), trace, loads)


@contextlib.contextmanager
def _fake_cpu(count: Callable[[Tensor], None]) -> Iterator[None]:
    """Tensors on CPUs without values, but for those that say which documents and ranks there are; these are passed to
    `count`."""

    def real(build: Callable[[], Any]) -> Any:
        with unset_fake_temporarily():
            result = build()
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                count(leaf)
        return result

    def unseen(*given: Any) -> Any:
        with _disable_current_modes():
            return propagate(*given)

    def evenly(*given: Any) -> tuple[list[int], Selection]:
        sizes, selection = even_load(*given)
        return sizes, Selection(*(tensor.clone() for tensor in selection))

    propagate = ShardingPropagator.propagate_op_sharding_non_cached
    from_lengths, derive = DocumentMask.from_lengths.__func__, DocumentMask.derive
    with (
        patch.object(DocumentMask, "from_lengths", classmethod(lambda *given: real(lambda: from_lengths(*given)))),
        patch.object(DocumentMask, "derive", lambda self, key, build: derive(self, key, lambda: real(build))),
        patch.object(experts, "group_by_expert", lambda *given: real(lambda: evenly(*given))),
        patch.object(expert_parallel, "arrivals", lambda *given: real(lambda: arrivals(*given))),
        patch.object(expert_parallel, "exchange_counts", even_counts),
        patch("mio.core.training.muon.assign", lambda matrices: real(lambda: assign(matrices))),
        # `DTensor` runs operations on whole tensors to learn shapes, and among fake tensors it does so every time
        patch.object(ShardingPropagator, "propagate_op_sharding_non_cached", unseen),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield

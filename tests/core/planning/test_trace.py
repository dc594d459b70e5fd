"""What a trace counts, beside torch's own memory tracker on the same step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mio_world import TEXT
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.parallel import device_mesh, parallelise
from mio.core.planning.fake_gpu import META, fake_gpu, fake_ranks
from mio.core.planning.simulate import StepLayout, _step
from mio.core.planning.trace import GATHERED, REDUCTION, Trace
from mio.core.recipe.schema import OptimizerConfig, RuntimeConfig, TrainConfig
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

MODEL = TransformerConfig(width=256, layers=3, heads=4, kv_heads=2, ffn_width=704)
LAYOUT = StepLayout(world=16, per_node=8, context=128, micro_rows=2, micro_batches=1)
TRAIN = TrainConfig(optimizer=OptimizerConfig(kind="adamw"))


@pytest.mark.parametrize(
    "runtime",
    [
        RuntimeConfig(compile="none"),
        RuntimeConfig(compile="none", tensor_parallel=2),
        RuntimeConfig(compile="none", activation_checkpointing="full"),
    ],
)
def test_the_peak_of_a_step_is_the_one_that_torchs_tracker_sees(runtime):
    trace = Trace()
    with fake_ranks(LAYOUT.world), fake_gpu():
        with META:
            module = MioModule(MODEL, Vocabulary.build(SizedText(1000), [("text", TEXT)]), TRAIN, ("",))
        module._trainer = SimpleNamespace(accumulate_grad_batches=1)
        parallelise(module.transformer, device_mesh(runtime, 16, 8, "meta"), runtime, TRAIN.precision)
        with trace.watch():
            module.transformer.to_empty(device=META)
            optimizer = module.configure_optimizers()["optimizer"]
            _step(module, optimizer, trace, LAYOUT, ["last"])
            trace.forget_peak()
            tracker = FSDPMemTracker(module.transformer, optimizer)
            with tracker:
                _step(module, optimizer, trace, LAYOUT, ["last"])
    torchs = {kind.value: size for kind, size in tracker.get_tracker_snapshot("peak")[META].items() if kind != "Total"}
    # it does not know the meter's sums, which are older than it
    assert trace.peak == pytest.approx(sum(torchs.values()), rel=1e-3)
    assert trace.at_peak()[GATHERED] == torchs["Unsharded Param"] + torchs["All Gather"]
    # nobody has said here which of the results are gradients that stay
    assert trace.at_peak()[REDUCTION] == torchs["Reduce Scatter"] + torchs["Sharded Grad"]

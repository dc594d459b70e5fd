"""Copies that decode, of models spread in every way, and evaluations that ranks share, against one process alone."""

from __future__ import annotations

import json
import os
import socket

import numpy as np
import pytest
import torch
from conftest import MELODY
from test_engine import GRAMMAR, GREEDY, MODALITIES, PROMPTS, SEEDS, VOCABULARY, generated

from mio import Codes, Decoding, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.evaluation.evaluation import Options, evaluate
from mio.core.generation import replicas
from mio.core.generation.grammar import need_of
from mio.core.generation.model import Model
from mio.core.generation.replicas import decoding_copy, loaded_copy
from mio.core.generation.scoring import score_documents
from mio.core.model.parallel import device_mesh, parallelise
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import RuntimeConfig
from mio.core.runs.run import Run
from mio.core.tokens.documents import interleaved_document

CPU = torch.device("cpu")
LAYOUTS = {
    "full": RuntimeConfig(sharding="full"),
    "none": RuntimeConfig(sharding="none"),
    "tensor": RuntimeConfig(tensor_parallel=2),
    "experts": RuntimeConfig(expert_parallel=2),
}
KINDS = [(experts, layout) for experts in (0, 4) for layout in LAYOUTS if experts or layout != "experts"]
DRAWN = Decoding(temperature=0.9, media_temperature=0.9, top_p=0.95, max_tokens=40)
NEED = need_of("tones", MODALITIES, only=True)


def made(experts=0):
    config = TransformerConfig(
        width=32, layers=2, heads=4, kv_heads=2, qk_norm=True, init_std=0.6, tied_embeddings=not experts,
        experts=experts, experts_per_token=min(experts, 2) or 2,
    )  # fmt: skip
    transformer = Transformer(config, VOCABULARY.rows)
    transformer.reset_parameters(3)
    return transformer


def answers(transformer, decoding):
    return generated(transformer, GRAMMAR, PROMPTS, decoding, NEED, SEEDS)


def unpacked_weights(source, ranks):
    """Of a copy as it is before its matrices are packed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas, "can_pack", lambda *_: False)
        copy, _ = decoding_copy(source, CPU, torch.float32, ranks)
    return {name: parameter.clone() for name, parameter in copy.named_parameters()}


def loaded_parts(folder, ranks):
    """Weights of this rank of a copy that both hold, cut from the whole run and read from its file."""
    run = Run.open(folder, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas, "can_pack", lambda *_: False)
        read, spread = loaded_copy(run, CPU, torch.bfloat16, ranks, split=2)
        assert spread.size == 2
        assert not run.loaded
        cut, _ = decoding_copy(run.transformer, CPU, torch.bfloat16, ranks, split=2)
    return dict(read.named_parameters()), dict(cut.named_parameters())


def figures(folder, ranks):
    """What an evaluation says, but for the time that it took."""
    run = Run.open(folder, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))
    run.recipe.evaluate.batch = 7
    with torch.no_grad():
        for parameter in run.transformer.parameters():
            parameter.mul_(4)  # so that answers differ
    report = evaluate(Model.of(run, precision="fp32", ranks=ranks), Options(tasks=["play"], items=40))
    return {task: {**found, "seconds": 0} for task, found in report.items()}


def scores(folder, ranks):
    """Log-likelihoods of two documents, on ranks that lead a copy."""
    run = Run.open(folder, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))
    model = Model.of(run, precision="fp32", ranks=ranks)
    documents = [interleaved_document(["do re ", Codes("melody", np.array([[0, 1]])), text]) for text in ("!", "and")]
    with model.led() as leads:
        found = score_documents(model, documents) if leads else []
    return [one.log_likelihoods[1:] for one in found]


def on_rank(rank, port, out, folder):
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    ranks, found = Ranks.join(), {}
    room = replicas.free_memory
    with ranks.process_group("test", "cpu"):
        for experts, layout in KINDS:
            source, runtime = made(experts), LAYOUTS[layout]
            parallelise(source, device_mesh(runtime, 2, 2, "cpu"), runtime, "fp32")
            for devices in (1, 2):
                size = sum(parameter.numel() for parameter in source.parameters()) * 4
                replicas.free_memory = lambda *_, room=2 * size // devices + 100: room  # for so much of a copy
                copy, spread = decoding_copy(source, CPU, torch.float32, ranks)
                assert spread.size == devices
                weights = unpacked_weights(source, ranks) if devices == 1 else {}
                found[experts, layout, devices] = weights, answers(copy, GREEDY), answers(copy, DRAWN)
                placements = {name: str(p) for name, p in source.named_parameters()}
                assert placements  # the source is as it was: it can be gathered again
        found["loaded"] = loaded_parts(folder / "alone", ranks)
        for devices in (1, 2):
            replicas.free_memory = room if devices == 1 else lambda *_: 0
            found["figures", devices] = figures(folder / str(devices), ranks)
            found["scores", devices] = scores(folder / "alone", ranks)
        torch.save(found, f"{out}/rank-{rank}")
        ranks.barrier()
    os._exit(0)  # a thread of gloo that wakes up while the interpreter is taken down would abort the process


@pytest.fixture(scope="module")
def found(tmp_path_factory, finished):
    """What each of two ranks found."""
    import shutil

    folder = tmp_path_factory.mktemp("ranks")
    for devices in ("1", "2", "alone"):
        shutil.copytree(finished, folder / devices)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.parents[1])
        torch.multiprocessing.start_processes(on_rank, (port, folder, folder), nprocs=2, start_method="fork")
        alone = {**figures(folder / "alone", None), "scores": scores(folder / "alone", None)}
    return folder, [torch.load(folder / f"rank-{rank}", weights_only=False) for rank in range(2)], alone


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("experts", "layout"), KINDS)
def test_a_copy_of_what_is_spread_decodes_as_one_process_does(found, layout, experts):
    plain = made(experts).eval()
    greedy, drawn = answers(plain, GREEDY), answers(plain, DRAWN)
    assert greedy != drawn
    for rank in found[1]:
        weights, *decoded = rank[experts, layout, 1]
        assert weights.keys() == dict(plain.named_parameters()).keys()
        assert all(torch.equal(weights[name], parameter) for name, parameter in plain.named_parameters())
        assert decoded == [greedy, drawn]
        assert list(rank[experts, layout, 2][1:]) == [greedy, drawn]  # split over both: up to rounding


def test_figures_and_samples_do_not_depend_on_the_number_of_ranks(found):
    folder, (first, other), alone = found
    assert alone["play"]["n"] == 40
    samples = [(folder / which / "samples" / "play.json").read_text() for which in ("alone", "1", "2")]
    assert samples[0] == samples[1] == samples[2]
    assert len(json.loads(samples[0])) == 2
    for devices in (1, 2):
        assert first["figures", devices] == {"play": alone["play"]}
        assert other["figures", devices] == {}


def test_a_model_that_is_split_scores_as_one_device_does(found):
    _, (first, other), alone = found
    assert other["scores", 2] == []
    for likelihoods in (first["scores", 1], other["scores", 1], first["scores", 2]):
        for mine, expected in zip(likelihoods, alone["scores"], strict=True):
            np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_ranks_read_their_own_parts_of_a_run(found):
    (read, cut), (other, _) = (rank["loaded"] for rank in found[1])
    assert read.keys() == cut.keys()
    assert all(torch.equal(read[name], cut[name]) for name in cut)
    query = "layers.0.attention.query.weight"
    assert read[query].shape == other[query].shape == (32, 64)
    assert not torch.equal(read[query], other[query])
    assert torch.equal(read["embedding.weight"], other["embedding.weight"])


def test_a_copy_of_a_run_is_that_of_its_transformer(finished, monkeypatch):
    monkeypatch.setattr(replicas, "can_pack", lambda *_: False)
    run = Run.open(finished, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))
    read, _ = loaded_copy(run, CPU, torch.float32)
    assert not run.loaded
    whole = dict(run.transformer.named_parameters())
    assert read.embedding.weight.data_ptr() != whole["embedding.weight"].data_ptr()
    assert {name: parameter.tolist() for name, parameter in read.named_parameters()} == {
        name: parameter.tolist() for name, parameter in whole.items()
    }


def test_a_model_is_not_split_over_devices_that_do_not_divide_it():
    ranks = Ranks(size=3)
    with pytest.raises(UserError, match="3 devices cannot share this model: its 2 heads"):
        decoding_copy(made(), CPU, torch.float32, ranks, split=3)


def test_a_copy_shares_weights_that_are_whole_and_of_its_dtype():
    source = made()
    copy, spread = decoding_copy(source, CPU, torch.float32)
    assert spread.size == 1
    assert copy.embedding.weight.data_ptr() == source.embedding.weight.data_ptr()
    half, _ = decoding_copy(source, CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert source.embedding.weight.dtype == torch.float32
    assert source.training
    assert source.embedding.weight.requires_grad
    tokens = torch.tensor([PROMPTS[2]])
    hidden = [one(tokens, torch.arange(tokens.shape[1])[None]).hidden.float() for one in (copy, half)]
    torch.testing.assert_close(hidden[1], hidden[0], rtol=0.05, atol=0.15)

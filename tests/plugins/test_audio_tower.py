"""The audio tower, beside values of VITA's published code (github.com/VITA-MLLM/VITA at 360de22), which
`benchmarks/vita_parity.py REFERENCE --golden` prints, and of torchaudio. Weights are made by formula."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mio
from mio.plugins import audio_tower, speech
from mio.plugins.audio_tower.fbank import fbank
from mio.plugins.audio_tower.options import AudioTowerOptions, frame_count, hidden_count, position_count
from mio.plugins.audio_tower.weights import NAMES, our_name

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from vita_parity import SMALL_AUDIO, SMALL_MODEL, formula, packed, recording, statistics

TINY = {"width": 16, "layers": 2, "heads": 2, "ffn_width": 32, "bands": 40, "rate": 8000}


def encoder(**options):
    return audio_tower.mio_encoder("speech", options)


def published(name):
    """Name in VITA's layout of one of ours: `NAMES` read backwards."""
    for pattern, ours in reversed(NAMES):
        theirs = re.sub(r"[\\^$]", "", pattern)
        if (ours and name.startswith(ours)) or (ours.startswith(".") and ours in name):
            name = name.replace(ours, theirs, 1)
    return f"model.audio_encoder.{name}"


def checkpoint(folder, module):
    """A file in VITA's layout, with weights by formula."""
    state = module.state_dict()
    weights = {published(name): formula(published(name), tuple(value.shape)) for name, value in state.items()}
    for name in ("mean", "istd"):
        statistic = f"model.audio_encoder.encoder.global_cmvn.{name}"
        weights[statistic] = formula(statistic, (80,))
    save_file(weights | {"model.norm.weight": torch.ones(3)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = checkpoint(tmp_path_factory.mktemp("vita"), encoder(**SMALL_AUDIO).module(SMALL_MODEL))
    found = encoder(**SMALL_AUDIO, **statistics(), checkpoint=str(folder))
    network = found.module(SMALL_MODEL).eval()
    network.load_state_dict(found.weights())
    return found, network


def test_embeddings_are_those_of_the_published_code(loaded):
    found, network = loaded
    with torch.no_grad():
        embeddings = network(packed(found, [(recording(1.3, 220), 16_000), (recording(0.71, 330), 16_000)]))
    assert embeddings.shape == (24, SMALL_MODEL)
    golden = [-1.37199, -1.18666, -1.62008, -2.50982, -3.05036, -3.72324, -4.13761, -2.34118]
    assert embeddings[::2].sum(-1)[:8].tolist() == pytest.approx(golden, abs=5e-5)


def test_the_default_network_is_vitas():
    with torch.device("meta"):
        state = encoder().module(4096).state_dict()
    # 341.37 Mi parameters by the reference's own count, without the adapter
    count = sum(value.numel() for name, value in state.items() if not name.startswith("adapter."))
    assert round(count / 2**20, 2) == 341.37
    assert state["adapter.out.weight"].shape == (4096, 2048)
    assert {our_name(published(name).removeprefix("model.audio_encoder.")) for name in state} == state.keys()


@pytest.mark.parametrize(("seconds", "positions"), [(0.085, 1), (1.0, 12), (2.0, 24), (10.0, 124)])
def test_there_are_twelve_and_a_half_positions_a_second(seconds, positions):
    sound = (np.zeros(int(seconds * 16_000), np.float32), 16_000)
    assert encoder().positions(sound) == positions
    assert len(encoder().prepare(sound)["frames"]) // 4 - 1 in (2 * positions - 1, 2 * positions)


@pytest.mark.parametrize("frames", range(7, 40))
def test_counts_are_those_of_the_convolutions(frames):
    """The reference's masks: `[2::2][2::2][0::2]`."""
    mask = np.ones(frames)[2::2][2::2]
    assert hidden_count(frames) == len(mask)
    assert position_count(len(mask)) == len(mask[0::2])


@pytest.mark.parametrize("samples", [400, 1361, 20_000])
def test_energies_are_those_of_kaldi(samples):
    kaldi = pytest.importorskip("torchaudio").compliance.kaldi
    sound = recording(samples / 16_000, 200)
    exact = kaldi.fbank(
        torch.from_numpy(sound)[None].double() * 32768, num_mel_bins=80, dither=0.0, energy_floor=0.0
    ).numpy()
    found = fbank(sound, 16_000, 400, 160, 80)
    assert found.shape == exact.shape == (frame_count(samples, AudioTowerOptions()), 80)
    np.testing.assert_allclose(found, exact, atol=5e-4)


def test_silence_is_the_smallest_energy():
    found = fbank(np.zeros(1000, np.float32), 16_000, 400, 160, 80)
    assert found == pytest.approx(np.log(np.finfo(np.float32).eps))


def test_an_items_embeddings_do_not_depend_on_others():
    found = encoder(**TINY)
    torch.manual_seed(0)
    network = found.module(12)
    one, other = (recording(0.5, 200), 8000), (recording(0.9, 300), 8000)
    quiet = (other[0] / 2, 8000)
    alone, beside = network(packed(found, [one])), network(packed(found, [other, one]))
    torch.testing.assert_close(alone, beside[-len(alone) :])
    changed = network(packed(found, [quiet, one]))
    assert torch.equal(changed[-len(alone) :], beside[-len(alone) :])
    assert not torch.equal(changed, beside)
    # nor do gradients
    (gradient,) = torch.autograd.grad(beside[: -len(alone)].sum(), network.embed[0].weight)
    (same,) = torch.autograd.grad(network(packed(found, [other])).sum(), network.embed[0].weight)
    torch.testing.assert_close(gradient, same)


def test_frames_that_no_convolution_sees_are_not_given():
    found = encoder(**TINY)
    samples = recording(0.5, 200)
    spare = (len(samples) - 200) % 320
    longer, shorter = found.prepare((samples, 8000)), found.prepare((samples[: len(samples) - spare], 8000))
    assert (longer["frames"][-1] == 0).all()
    assert np.array_equal(longer["frames"], shorter["frames"])


def test_a_layer_may_join_in_place_of_adding():
    found = encoder(**TINY, concat=True)
    network = found.module(12)
    assert network.layers[0].concat.weight.shape == (16, 32)
    assert network(packed(found, [(recording(0.5, 200), 8000)])).shape[1] == 12


def test_a_dummy_is_the_shortest_item():
    found = encoder(**TINY)
    assert found.dummy()["frames"].shape == (8, 40)
    shortest = (np.zeros(200 + 6 * 80, np.float32), 8000)
    assert found.positions(shortest) == 1
    network = found.module(12)
    assert torch.isfinite(network(packed(found, [shortest]))).all()


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ((np.zeros(1, np.float32), 16_000), "speech of 6.25e-05 s is too short for one position, which takes 0.085 s"),
        ((np.zeros(0, np.float32), 16_000), "float or integer samples"),
        (np.zeros(4000), "a pair of samples and rate"),
    ],
)
def test_what_is_no_speech_is_one_line(media, message):
    for ask in (encoder().positions, encoder().prepare):
        with pytest.raises(mio.DataError, match=message) as caught:
            ask(media)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30}, "`width` 30 must be a multiple of `heads` 16"),
        ({"mean": [1.0, 2.0]}, "`mean` has 2 numbers, must have 1 or 80"),
        ({"layer": 3}, "has no option `layer`"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(mio.UserError, match=message):
        encoder(**options)


def test_fingerprints_change_with_what_they_stand_for():
    same = encoder(**TINY).fingerprint
    assert encoder(**TINY, checkpoint="a").fingerprint == same
    assert encoder(**TINY, mean=[1.0]).fingerprint != same
    assert encoder(**TINY, adapter_kernel=3).fingerprint != same


def test_checkpoints_that_do_not_fit_are_refused_in_one_line(tmp_path):
    weights = {}
    for name, value in encoder(**SMALL_AUDIO).module(SMALL_MODEL).state_dict().items():
        weights[published(name).removeprefix("model.audio_encoder.")] = value
    alone = str(tmp_path / "final.pt")
    torch.save(weights, alone)
    assert (
        encoder(**SMALL_AUDIO, checkpoint=alone).weights().keys()
        == encoder(**SMALL_AUDIO).module(4).state_dict().keys()
    )
    with pytest.raises(mio.UserError, match=r"surplus: layers\.2"):
        encoder(**{**SMALL_AUDIO, "layers": 2}, checkpoint=alone).weights()
    with pytest.raises(mio.UserError, match=r"missing: layers\.0\.concat\.weight"):
        encoder(**SMALL_AUDIO, concat=True, checkpoint=alone).weights()
    torch.save({**weights, "adpter.bn2.running_mean": torch.ones(64)}, alone)
    with pytest.raises(mio.UserError, match="its adapter has a batch norm"):
        encoder(**SMALL_AUDIO, checkpoint=alone).weights()
    torch.save({"a": torch.ones(1)}, alone)
    with pytest.raises(mio.UserError, match="holds no audio encoder of VITA"):
        encoder(checkpoint=alone).weights()
    assert encoder().weights() == {}


def test_statistics_are_those_of_the_options(loaded):
    module = encoder(**TINY, mean=[3.0], std=[2.0]).module(4)
    assert torch.equal(module.normalised(torch.full((1, 40), 5.0)), torch.ones(1, 40))
    assert not list(encoder(**TINY).module(4).buffers())
    mean, std = AudioTowerOptions().statistics
    assert len(mean) == len(std) == 80
    assert AudioTowerOptions(bands=40).statistics[0] == pytest.approx([sum(mean) / 80] * 40)
    folder = loaded[0].options.checkpoint
    with pytest.raises(mio.UserError, match=r"its `mean` of 80 bands, .* is not that of the options: write all of"):
        encoder(**SMALL_AUDIO, checkpoint=folder).weights()


def test_speech_without_a_tokenizer_is_declared_and_read():
    (declared,) = speech.mio_modalities({"tokenizer": "none", "max_seconds": 30})
    assert (declared.codebooks, declared.begin, declared.views) == ((), "", {})
    (marked,) = speech.mio_modalities({"tokenizer": "none", "tokens": "anygpt"})
    assert (marked.begin, marked.end) == ("<sosp>", "<eosp>")
    assert speech.mio_tokenizer("speech", {"tokenizer": "none"}) is None
    assert speech.mio_detokenizer("speech", {"tokenizer": "none"}) is None
    module = speech.mio_datamodule("speech", {"tokenizer": "none"})
    assert {one.direction for templates in module.templates.values() for one in templates} == {"speech_to_text"}


def test_the_tower_conforms_to_the_contract():
    from mio.testing import check_plugin

    samples = {"speech": [(recording(seconds, 200), 8000) for seconds in (0.2, 0.7, 0.4)]}
    results = check_plugin("audio_tower", TINY, samples, beside={"speech": {"tokenizer": "none"}})
    checked = {result.check for result in results if result.outcome == "passed"}
    assert "speech: an item's embeddings do not depend on other items" in checked, results

"""Rectified flow in positions of the transformer: its formulas beside closed forms and the published code's, the
autoencoder beside diffusers, and sampling on fields whose flow is known."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

import mio
from mio import Condition, HeadItems, Sampling
from mio.core.data.made import drawing
from mio.plugins import flow_head, vision_tower
from mio.plugins.flow_head import flow, times
from mio.testing import check_plugin

SMALL = {"image_size": 8, "latents": "pixels", "patch": 4}
VAE = {"channels": [8, 16], "layers": 1, "latents": 3, "norm_groups": 4, "scale": 0.7, "shift": 0.2}
AUTOENCODED = {"image_size": 16, "patch": 2, "vae": VAE}
WIDTH = 12
RNG = np.random.default_rng(0)


def head(**options):
    return flow_head.mio_head("image", {**SMALL, **options})


def network(made, seed=0):
    torch.manual_seed(seed)
    network = made.module(WIDTH).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def picture(side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def items(made, pictures):
    """What a batch brings of pictures, number by number."""
    found = [{**(target := made.target(one)), **made.noise(target, drawing(7, number))}
             for number, one in enumerate(pictures)]  # fmt: skip
    arrays = {name: torch.from_numpy(np.concatenate([one[name] for one in found])) for name in found[0]}
    count = len(pictures)
    return HeadItems(
        arrays, {name: [1] * count for name in arrays}, [made.writes] * count, torch.zeros(count, dtype=torch.bool)
    )


def condition(own):
    return Condition(own.new_zeros(0, 0, WIDTH), torch.zeros(0, 0, dtype=torch.bool), own, {})


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_a_shift_multiplies_the_odds_of_noise(shift):
    for time in (0.01, 0.3, 0.5, 0.99):
        found = times.shifted(time, shift)
        assert found / (1 - found) == pytest.approx(shift * time / (1 - time))
    assert [times.shifted(time, shift) for time in (0.0, 1.0)] == [0.0, 1.0]


def test_times_are_logit_normal():
    drawn = np.array([times.drawn(RNG, 3.0) for _ in range(20_000)])
    logits = np.log(drawn / (1 - drawn))
    assert logits.mean() == pytest.approx(math.log(3.0), abs=0.03)
    assert logits.std() == pytest.approx(1.0, abs=0.03)


def test_the_velocity_is_the_derivative_of_what_is_between_data_and_noise():
    clean, noise = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    at = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    (_, derivative) = torch.autograd.functional.jvp(
        lambda time: flow.noisy(clean, noise, time), at, torch.ones_like(at)
    )
    torch.testing.assert_close(flow.velocity(clean, noise), derivative)
    between = flow.noisy(clean, noise, at)
    assert torch.equal(between[0], clean[0])
    assert torch.equal(between[2], noise[2])


def test_patches_are_those_of_the_published_code_and_make_the_picture_again():
    cells = torch.randn(2, 3, 8, 8)
    patches = flow.patchify(cells, 4)
    # `Bagel.forward` of modeling/bagel/bagel.py
    theirs = torch.einsum("chpwq->hwpqc", cells[1].reshape(3, 2, 4, 2, 4)).reshape(-1, 4 * 4 * 3)
    assert torch.equal(patches[1], theirs)
    assert torch.equal(flow.unpatchify(patches, 4), cells)
    unshuffled = torch.nn.functional.pixel_unshuffle(cells, 4).view(2, 3, 16, 4).permute(0, 3, 2, 1)
    assert torch.equal(patches, unshuffled.reshape(2, 4, -1))


def test_places_and_times_are_embedded_as_in_the_published_code():
    # `get_2d_sincos_pos_embed` of modeling/bagel/modeling_utils.py, in NumPy
    side, width = 3, 16
    rows, columns = np.divmod(np.arange(side * side), side)
    omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4.0))
    parts = [function(np.outer(of, omega)) for of in (columns, rows) for function in (np.sin, np.cos)]
    torch.testing.assert_close(
        flow.places(side, width, torch.device("cpu")).numpy(), np.concatenate(parts, 1).astype(np.float32)
    )
    # `TimestepEmbedder.timestep_embedding`: cosines first
    at = np.array([0.0, 0.25, 1.0])
    angles = np.outer(at, np.exp(-math.log(10000) * np.arange(8) / 8))
    found = torch.cat(flow.waves(torch.tensor(at, dtype=torch.float32), 8), -1)
    np.testing.assert_allclose(found, np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=1e-6)


def test_eulers_steps_follow_known_fields():
    noise, goal = torch.randn(2, 4, 3, dtype=torch.float64)
    # towards one point the paths are straight, and any steps are exact
    for steps, shift in ((1, 1.0), (7, 3.0)):
        found = flow.euler(noise, lambda x, time: (x - goal) / time, steps, shift)
        torch.testing.assert_close(found, goal)
    # dx/dt = x, from time 1 to 0: e to the minus 1
    many = flow.euler(noise, lambda x, time: x, 2000, 2.0)  # noqa: ARG005
    torch.testing.assert_close(many, noise * math.exp(-1), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("kind", "over"), [("global", (1, 2)), ("channel", 2)])
def test_guidance_goes_beyond_the_condition_and_makes_nothing_longer(kind, over):
    under, without = torch.randn(2, 5, 4, 3)
    straight = flow.guided(under, without, 3.0, "none")
    torch.testing.assert_close(straight, 3 * under - 2 * without)
    torch.testing.assert_close(flow.guided(under, without, 1.0, kind), under)
    found = flow.guided(under, without, 3.0, kind)
    length = torch.linalg.vector_norm(found, dim=over)
    limit, free = (torch.linalg.vector_norm(one, dim=over) for one in (under, straight))
    torch.testing.assert_close(length, torch.minimum(limit, free))
    torch.testing.assert_close(torch.cosine_similarity(found, straight, -1), torch.ones(5, 4))


def test_the_loss_of_a_picture_is_the_mean_squared_error_of_its_own_velocities():
    made = head()
    net = network(made)
    pictures = [picture(seed=number) for number in range(3)]
    batch = items(made, pictures)
    embeddings, kept = net.inputs(batch)
    assert embeddings.shape == (3 * 4, WIDTH)
    losses = net(condition(embeddings), batch, kept)
    # by hand, in NumPy, of the second one
    clean = flow.patchify(torch.from_numpy(pictures[1] / 127.5 - 1)[None].permute(0, 3, 1, 2), 4)[0].numpy()
    noise, time = batch.arrays["noise"][1].numpy(), float(batch.arrays["time"][1])
    weights = {name: value.detach().double().numpy() for name, value in net.named_parameters()}
    hidden = np.outer(time, 1 / 10000 ** (np.arange(128) / 128))
    hidden = np.concatenate([np.cos(hidden), np.sin(hidden)], 1) @ weights["time_embedder.0.weight"].T
    hidden += weights["time_embedder.0.bias"]
    hidden = hidden / (1 + np.exp(-hidden)) @ weights["time_embedder.2.weight"].T + weights["time_embedder.2.bias"]
    hidden = hidden + ((1 - time) * clean + time * noise) @ weights["patch_in.weight"].T + weights["patch_in.bias"]
    hidden = hidden + flow.places(2, WIDTH, torch.device("cpu")).numpy()
    predicted = hidden @ weights["velocity_out.weight"].T + weights["velocity_out.bias"]
    assert losses[1].item() == pytest.approx(np.square(predicted - (noise - clean)).mean(), rel=1e-4)
    # and without the others
    alone = HeadItems({name: one[1:2] for name, one in batch.arrays.items()}, {}, [4], batch.dropped[1:2])
    inputs, target = net.inputs(alone)
    torch.testing.assert_close(net(condition(inputs), alone, target), losses[1:2])
    assert all(parameter.grad is None for parameter in net.parameters())
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def straight(made, goals):
    """A network that knows the way to pictures; and how often it runs, by whether without a condition."""
    net, calls = made.module(WIDTH), Counter()
    goal = torch.cat([net.inputs(items(made, [one]))[1][0] for one in goals])
    goal = torch.cat([items(made, [one]).arrays["noise"] for one in goals]) - goal  # of the velocity, the picture
    net.velocity_out = torch.nn.Identity()
    net.embedded = lambda patches, at: (patches - goal[: len(patches)]) / at.view(-1, 1, 1)

    def run(embeddings, dropped):
        calls[dropped] += 1
        return embeddings * (0.5 if dropped else 1)

    return net, run, calls


def test_sampling_ends_at_the_picture_that_the_velocities_lead_to():
    made, goals = head(guidance=1.0), [picture(seed=5), picture(seed=6)]
    net, run, calls = straight(made, goals)
    found = net.sample(condition(torch.zeros(0, WIDTH)), Sampling([3, 4], steps=5), run)
    assert calls == {False: 5}
    for one, goal in zip(found, goals, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, goal)


def test_guidance_runs_without_the_condition_while_there_is_much_noise():
    made = head(guidance=2.0, guided_above=0.4, sampling_shift=1.0, steps=10)
    net, run, calls = straight(made, [picture()])
    net.sample(condition(torch.zeros(0, WIDTH)), Sampling([0]), run)
    assert calls == {False: 10, True: 6}  # at times 1, 0.9, ... 0.5
    calls.clear()
    net.sample(condition(torch.zeros(0, WIDTH)), Sampling([0], steps=5, guidance=1.0), run)
    assert calls == {False: 5}


def test_a_sample_follows_from_its_seed_alone_or_in_a_batch():
    net = network(head())
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]

    def made(seeds):
        return net.sample(
            condition(torch.zeros(0, WIDTH)), Sampling(seeds), lambda x, dropped: x @ rotation - float(dropped)
        )

    together = made([1, 2, 3])
    np.testing.assert_array_equal(together[1], made([2])[0])
    assert (together[0] != together[1]).any()


def test_noise_and_time_follow_from_the_generator_and_fit_the_patches():
    for made in (head(), head(**AUTOENCODED, latents="vae")):
        target = made.target(made.example())
        one, again, other = (made.noise(target, drawing(5, number)) for number in (0, 0, 1))
        assert one["noise"].shape == (1, made.writes, made.options.features)
        assert 0 < one["time"][0] < 1
        for name in one:
            np.testing.assert_array_equal(one[name], again[name])
            assert (one[name] != other[name]).any()


def test_pictures_are_cut_to_the_square_in_their_middle():
    small = head(image_size=4)
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = picture(4)
    np.testing.assert_array_equal(small.target(wide)["pixels"][0], picture(4))
    grey = head(channels=1)
    assert grey.target(picture())["pixels"].shape == (1, 8, 8, 1)
    for kind in (grey, head()):
        made = network(kind).pictures(torch.zeros(1, kind.options.channels, 8, 8))[0]
        assert (made.shape, made.dtype) == (kind.example().shape, kind.example().dtype)
    with pytest.raises(mio.DataError, match=r"must be uint8 \[H, W\] or \[H, W, 3\], this is float64 \[4, 4\]"):
        small.target(np.zeros((4, 4)))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(1)
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=3,
        norm_num_groups=4,
        scaling_factor=0.7,
        shift_factor=0.2,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return model, folder


def autoencoded(folder, **changed):
    return flow_head.mio_head("image", {**AUTOENCODED, "vae": {**VAE, "checkpoint": str(folder), **changed}})


def test_latents_are_those_of_diffusers(autoencoder):
    model, folder = autoencoder
    made = autoencoded(folder)
    net, weights = made.module(WIDTH), made.weights()
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith("autoencoder.")]
    batch = items(made, [picture(16, seed) for seed in (0, 1)])
    pixels = batch.arrays["pixels"].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        found = model.encode(pixels).latent_dist
        latents = ((found.mean + found.std * batch.arrays["draw"]) - 0.2) * 0.7
        _, (target,) = net.inputs(batch)
        torch.testing.assert_close(target, batch.arrays["noise"] - flow.patchify(latents, 2))
        decoded = model.decode(latents / 0.7 + 0.2).sample
    expected = (decoded.clamp(-1, 1) * 127.5 + 127.5).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()
    np.testing.assert_array_equal(np.stack(net.pictures(latents)), expected)
    net(condition(net.inputs(batch)[0]), batch, (target,)).sum().backward()
    assert all(parameter.grad is None for parameter in net.autoencoder.parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scale": 0.5}, "`vae.scale` is 0.5, but 0.7 in"),
        ({"latents": 4}, "`vae.latents` is 4, but 3 in"),
        ({"quant_conv": True}, "`vae.quant_conv` is True, but False in"),
    ],
)
def test_an_autoencoder_of_other_sizes_is_refused(autoencoder, changed, message):
    with pytest.raises(mio.UserError, match=message):
        autoencoded(autoencoder[1], **changed).weights()


def test_options_that_do_not_go_together_are_told_all_at_once():
    with pytest.raises(mio.UserError) as told:
        head(channels=2, image_size=10, frequencies=5, vae={"scale": 2.0})
    assert str(told.value) == (
        "plugins.flow_head: `channels` is 2, must be 1 or 3; plugins.flow_head: `image_size` 10 must be a multiple "
        "of 4, the side in pixels of what one position makes; plugins.flow_head: `frequencies` 5 must be even; "
        "plugins.flow_head: `vae` is for `latents: vae`; leave it out, or leave out `latents: pixels`"
    )
    with pytest.raises(mio.UserError, match="did you mean `guidance`"):
        head(guidence=2)
    with pytest.raises(mio.UserError, match=r"`model\.width` is 10, must be a multiple of 4"):
        head().module(10)


def test_only_what_is_made_changes_the_fingerprint():
    same = [head(steps=3), head(guidance=1.5), head(shift=4.0), head(drop=0.2)]
    assert {one.fingerprint for one in same} == {head().fingerprint}
    assert len({one.fingerprint for one in (head(), head(patch=2), head(image_size=16), head(channels=1))}) == 4
    assert flow_head.mio_head("image", {}).options.positions == 64 * 64  # BAGEL's `max_latent_size`
    assert flow_head.mio_head("sketch", {"modality": "sketch"}) is not None
    assert flow_head.mio_head("speech", {}) is None


def test_a_saved_picture_is_read_as_it_was(tmp_path):
    from PIL import Image

    path = head().save(picture(), tmp_path / "1.draw")
    assert path.name == "1.draw.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture())


def test_positions_of_a_read_image_see_each_other_where_a_recipe_says_so():
    causal, full = (vision_tower.mio_encoder("image", {"attention": kind}) for kind in ("causal", "full"))
    assert (causal.together, full.together) == (False, True)
    assert causal.fingerprint == full.fingerprint == vision_tower.mio_encoder("image", {}).fingerprint


def test_the_plugin_passes_the_conformance_checks():
    check_plugin("flow_head", SMALL, beside={"image": {"tokenizer": "none", "tokens": "mio"}})

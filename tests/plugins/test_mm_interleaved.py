"""MM-Interleaved's networks, beside values of its published code (github.com/OpenGVLab/MM-Interleaved at ac539d0) as
`benchmarks/mm_interleaved_parity.py REFERENCE --golden` prints. Weights are made by formula."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from mio import Condition, HeadItems, Sampling
from mio.plugins.mm_interleaved.layers import LayerSynchroniser
from mio.plugins.mm_interleaved.options import DiffusionOptions
from mio.plugins.mm_interleaved.painter import ImagePainter, diffused, of_one, schedule
from mio.plugins.mm_interleaved.qformer import QFormer
from mio.plugins.mm_interleaved.reader import ImageReader
from mio.plugins.mm_interleaved.synchroniser import FeatureSynchroniser, sight, spread
from mio.plugins.mm_interleaved.unet import SynchronisedUNet

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from mm_interleaved_parity import SMALL, WIDTH, options, picked, tensor
from vita_parity import formula

CHOSEN = options(SMALL)
VISION, DIFFUSION = CHOSEN.vision, CHOSEN.diffusion


def filled(network, prefix=""):
    """The network with weights by formula, q, k and v of CLIP's layers each by its own."""
    for name, value in network.named_parameters():
        if ".qkv." in name:
            parts = [prefix + name.replace("qkv", f"{one}_proj") for one in "qkv"]
            made = torch.cat([formula(part, (value.shape[0] // 3, *value.shape[1:])) for part in parts])
        elif name in ("clip.cls_token", "clip.pos_embed"):  # shapes of transformers
            made = formula(prefix + name, tuple(value.shape)[2 - (name == "clip.pos_embed") :]).view_as(value)
        else:
            made = formula(prefix + name, tuple(value.shape))
        value.data.copy_(made)
    return network.eval()


@torch.no_grad()
def test_the_synchroniser_of_a_layer_is_that_of_the_published_code():
    visible = torch.ones(9, 4, dtype=torch.bool).tril(-1).repeat(2, 1, 1)
    visible[1, 5:, :2] = False
    layer = filled(LayerSynchroniser(CHOSEN, WIDTH), "0.")
    found = layer(tensor("hidden", 2, 9, WIDTH), tensor("maps", 2, 4, VISION.cells, VISION.width), visible)
    golden = [-0.054347, -0.161456, -0.121053, -0.089772, -0.192334, -0.051336, -0.004115, 0.109271]
    assert picked(found) == pytest.approx(golden, abs=1e-5)
    assert torch.equal(found[0, 0], layer.attn.output_proj.bias * layer.gate.tanh())  # it sees nothing


@torch.no_grad()
def test_embeddings_and_maps_are_those_of_the_published_code():
    side = VISION.image_size
    pictures = (tensor("pictures", 2, side, side, 3) * 40 + 128).clamp(0, 255).to(torch.uint8)
    embeddings, maps = filled(ImageReader(CHOSEN, WIDTH))(SimpleNamespace(arrays={"pixels": pictures}))
    golden = [1.911298, -0.239888, -0.534979, -0.879668, 0.678978, -0.952578, -0.542636, -0.502124]
    assert picked(embeddings) == pytest.approx(golden, abs=1e-4)
    golden = [1.854395, -3.252424, 0.499474, 2.62216, 2.463482, 4.058415, 1.423937, 2.833549]
    assert picked(maps) == pytest.approx(golden, abs=1e-4)


@torch.no_grad()
def test_the_perceiver_is_that_of_the_published_code():
    sizes = CHOSEN.perceiver
    network = QFormer(
        sizes.queries, sizes.width, sizes.layers, sizes.heads, sizes.ffn_width, WIDTH, every=1, normalised=False
    )
    mask = torch.arange(11) < torch.tensor([[11], [4]])
    found = filled(network, "perceiver.")(tensor("features", 2, 11, WIDTH), mask)
    golden = [0.834812, 1.534876, -0.637825, 0.544983, 0.210477, -1.5163, -0.593304, -0.701608]
    assert picked(found) == pytest.approx(golden, abs=1e-4)


@pytest.fixture(scope="module")
def unet():
    return filled(SynchronisedUNet(CHOSEN), "decoder.")


def given(maps=True):
    """Noisy latents of two pictures, one of which has a picture before it."""
    latents, times = tensor("latents", 2, 4, DIFFUSION.side, DIFFUSION.side), torch.tensor([7, 640])
    condition = tensor("condition", 2, CHOSEN.perceiver.queries, CHOSEN.perceiver.width)
    if not maps:
        return latents, times, condition, None, None
    sees = sight(torch.tensor([[[True]], [[False]]]))
    return latents, times, condition, tensor("maps", 2, 1, VISION.cells, VISION.width)[sees.images], sees


@torch.no_grad()
def test_the_unet_with_synchronisers_is_that_of_the_published_code(unet):
    golden = [0.14148, 0.252714, -0.441806, -0.799137, -0.455603, -0.055582, 0.174259, 0.196292]
    assert picked(unet(*given())) == pytest.approx(golden, abs=1e-4)


@torch.no_grad()
def test_the_unet_without_maps_is_that_of_diffusers(unet):
    latents, times, condition, *_ = given(maps=False)
    assert torch.equal(unet(*given(maps=False)), unet.unet(latents, times, condition).sample)


def sampled(attention, query, places, maps, visible):
    """The definition, image by image and point by point, by `grid_sample`."""
    heads, points, sides = attention.heads, attention.points, attention.sides
    rows, queries, images = visible.shape
    values = attention.value_proj(maps).view(rows, images, -1, heads, attention.width)
    read = torch.zeros(rows, queries, heads, attention.width)
    for row in range(rows):
        for one in range(queries):
            seen = visible[row, one].nonzero()[:, 0].tolist()
            logits, samples = [], []
            for number, image in enumerate(reversed(seen), 1):
                changed = attention.dynamic_offset_mask(query[row, one]) + attention.query_relpos.weight[number]
                offsets = attention.sampling_offsets(changed).view(heads, points, 2)
                logits.append(attention.attention_weights(changed).view(heads, len(sides), points + 1)[..., :-1])
                cell, levels = 0, []
                for side in sides:
                    square = values[row, image, cell : cell + side * side].permute(1, 2, 0)
                    square = square.reshape(heads, attention.width, side, side)
                    at = places[one] + offsets * (side / attention.base) / side
                    levels.append(functional.grid_sample(square, 2 * at[:, None] - 1, align_corners=False)[:, :, 0])
                    cell += side * side
                samples.append(torch.stack(levels, 2))  # [H, d, L, P]
            if seen:
                weights = torch.stack(logits, 1).exp()  # [H, K, L, P]
                weights = weights / (1 + weights.sum((1, 2, 3), keepdim=True))
                read[row, one] = (torch.stack(samples, 2) * weights[:, None]).sum((2, 3, 4))
    return attention.output_proj(read.flatten(2))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_synchroniser_is_its_definition_with_gradients(share):
    torch.manual_seed(3)
    attention = FeatureSynchroniser(12, 10, 8, 2, 3, (4, 2), base=2, magnitude=2.0, images=6)
    for value in attention.parameters():
        value.data.add_(0.3 * torch.randn_like(value))
    query, maps, places = torch.randn(2, 5, 12), torch.randn(2, 4, 20, 10), torch.rand(5, 2)
    visible = torch.rand(2, 5, 4) < share
    sees = sight(visible)
    found = attention(query[sees.queries], places[sees.queries[1]], maps[sees.images], sees.seen, sees.there)
    found = spread(found, sees, query.shape, attention.output_proj.bias)
    expected = sampled(attention, query, places, maps, visible)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    targets = torch.randn_like(found)
    gradients = torch.autograd.grad((found * targets).sum(), list(attention.parameters()))
    expected = torch.autograd.grad((expected * targets).sum(), list(attention.parameters()), allow_unused=True)
    for name, (one, other) in zip(
        dict(attention.named_parameters()), zip(gradients, expected, strict=True), strict=True
    ):
        torch.testing.assert_close(
            one, torch.zeros_like(one) if other is None else other, atol=2e-4, rtol=1e-4, msg=name
        )


@torch.no_grad()
def test_what_is_hidden_changes_nothing():
    torch.manual_seed(0)
    layer = LayerSynchroniser(CHOSEN, WIDTH)
    layer.gate.fill_(1)
    hidden, maps = torch.randn(2, 7, WIDTH), torch.randn(2, 3, VISION.cells, VISION.width)
    visible = torch.zeros(2, 7, 3, dtype=torch.bool)
    visible[0, 2:5, 0] = visible[0, 4, 1] = visible[1, 3:, 2] = True
    found = layer(hidden, maps, visible)
    other = maps.clone()
    other[0, 2] = other[1, :2] = 7.0
    assert torch.equal(layer(hidden, other, visible), found)
    more = torch.cat([maps, torch.full_like(maps, torch.nan)], 1)  # a row with more items makes N larger
    assert torch.equal(layer(hidden, more, functional.pad(visible, (0, 3))), found)
    assert torch.equal(layer(hidden, maps[:, :0], visible[..., :0])[0, 0], found[0, 0])


def test_a_layer_begins_at_zero_and_every_parameter_has_a_gradient_where_nobody_sees():
    layer = LayerSynchroniser(CHOSEN, WIDTH)
    hidden, maps = torch.randn(1, 4, WIDTH), torch.randn(1, 2, VISION.cells, VISION.width)
    assert not layer(hidden, maps, torch.ones(1, 4, 2, dtype=torch.bool)).any()
    layer(hidden, maps, torch.zeros(1, 4, 2, dtype=torch.bool)).sum().backward()
    assert all(value.grad is not None for value in layer.parameters())


def condition(count, length=6, maps=1, seed=0):
    torch.manual_seed(seed)
    there = torch.ones(count, maps, dtype=torch.bool)
    return Condition(
        context=torch.randn(count, length, WIDTH),
        context_mask=torch.ones(count, length, dtype=torch.bool),
        own=torch.zeros(0, WIDTH),
        maps={"image": (torch.randn(count, maps, VISION.cells, VISION.width), there)},
    )


TOY = options(
    {
        **SMALL,
        "grey": True,
        "diffusion": {
            **{"image_size": 16, "latents": "pixels", "square": 2, "channels": [16, 32], "heads": [2, 2], "layers": 1},
            **{"norm_groups": 8, "sync_width": 16, "sync_heads": 2, "sync_points": 2, "steps": 3, "least": 2},
        },
    }
)


@pytest.fixture(scope="module")
def painter():
    torch.manual_seed(1)
    network = ImagePainter(TOY, WIDTH).eval()
    for block in (*network.decoder.down, *network.decoder.mid):
        torch.nn.init.normal_(block.conv.weight)
    return network


def learnt(count, dropped=()):
    random = torch.Generator().manual_seed(5)
    side = TOY.diffusion.side
    return HeadItems(
        arrays={
            "pixels": torch.randint(0, 256, (count, 16, 16, 1), dtype=torch.uint8, generator=random),
            "noise": torch.randn(count, 4, side, side, generator=random),
            "times": torch.randint(0, 1000, (count,), generator=random),
        },
        lengths={},
        positions=[0] * count,
        dropped=torch.tensor([index in dropped for index in range(count)]),
    )


@torch.no_grad()
def test_the_loss_of_an_image_is_the_error_of_its_noise(painter):
    given, items = condition(3), learnt(3)
    losses = painter(given, items, None)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = (1 - betas).cumprod(0)[items.arrays["times"]].view(-1, 1, 1, 1)
    clean = functional.pixel_unshuffle(items.arrays["pixels"].permute(0, 3, 1, 2) / 127.5 - 1, 2)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * items.arrays["noise"]
    found = painter.decoder(noisy, items.arrays["times"], painter.words(given), *painter.before(given))
    torch.testing.assert_close(losses, (found - items.arrays["noise"]).square().mean((1, 2, 3)))


@torch.no_grad()
def test_a_dropped_image_does_not_see_its_context_and_a_short_context_is_not_learnt(painter):
    given, other = condition(3), condition(3)
    other.context[:2] += 1
    losses, changed = (painter(one, learnt(3, dropped=[1]), None) for one in (given, other))
    torch.testing.assert_close(losses[1:], changed[1:], rtol=1e-6, atol=0)
    assert abs(losses[0] - changed[0]) > 1e-6
    given.context_mask[2, 1:] = False
    assert painter(given, learnt(3), None)[2] == 0
    assert torch.isfinite(painter(condition(1, length=0), learnt(1), None)).all()  # a dummy


@torch.no_grad()
def test_images_are_conditioned_on_the_newest_maps(painter):
    given = condition(1, maps=2)
    losses = painter(given, learnt(1), None)
    given.maps["image"][0].copy_(given.maps["image"][0].flip(1))
    assert abs(painter(given, learnt(1), None) - losses) > 1e-5  # they are told apart by their order
    given.maps["image"][1][:] = False
    hidden = painter(given, learnt(1), None)
    given.maps["image"][0].fill_(3)
    assert torch.equal(painter(given, learnt(1), None), hidden)


def test_an_image_follows_from_its_seed_alone_or_in_a_batch(painter):
    given = condition(3)
    together = painter.sample(given, Sampling([4, 5, 4], guidance=2.0), None)
    assert [one.shape for one in together] == [(16, 16)] * 3
    assert together[0].dtype == np.uint8
    again = painter.sample(given, Sampling([4, 5, 4], 3, 2.0), None)
    alone = painter.sample(of_one(given, 1), Sampling([5], guidance=2.0), None)
    assert all((one == other).all() for one, other in zip(together, again, strict=True))
    assert (together[1] == alone[0]).all()
    others = painter.sample(given, Sampling([4, 6, 4], guidance=1.0), None)
    assert (others[1] != together[1]).any()


def test_networks_run_without_values_and_in_half_precision():
    """Plans are made of tensors without values, and what decodes is a copy in bfloat16."""
    side = VISION.image_size
    for device, dtype in (("meta", torch.float32), ("cpu", torch.bfloat16)):
        with torch.device(device), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            networks = [kind(CHOSEN, WIDTH).to(dtype) for kind in (ImageReader, LayerSynchroniser)]
            pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
            embeddings, maps = networks[0](SimpleNamespace(arrays={"pixels": pixels}))
            assert embeddings.shape == (2 * CHOSEN.resampler.positions, WIDTH)
            hidden = torch.zeros(1, 5, WIDTH, dtype=dtype)
            changed = networks[1](hidden, maps[None].to(dtype), torch.ones(1, 5, 2, dtype=torch.bool))
            assert (changed.shape, changed.dtype) == (hidden.shape, dtype)
            network = ImagePainter(TOY, WIDTH).to(dtype).eval()
            given = condition(2)
            moved = {name: (one.to(device), there.to(device)) for name, (one, there) in given.maps.items()}
            given = Condition(
                given.context.to(device, dtype), given.context_mask.to(device), given.own.to(device), moved
            )
            items = learnt(2)
            arrays = {name: one.to(device) for name, one in items.arrays.items()}
            losses = network(given, items._replace(arrays=arrays, dropped=items.dropped.to(device)), None)
            assert (losses.shape, losses.dtype) == ((2,), torch.float32)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_what_is_predicted_gives_the_image_back(prediction):
    chosen = DiffusionOptions(prediction=prediction)
    clean, noise = torch.randn(2, 3, 4, 5, 5)
    times = torch.tensor([7, 400, 900])
    noisy, target = diffused(chosen, clean, noise, times)
    scheduler = schedule(chosen)
    scheduler.set_timesteps(30)
    for one, time in enumerate(times.tolist()):
        step = scheduler.step(target[one], time, noisy[one])
        torch.testing.assert_close(step.pred_original_sample, clean[one], atol=1e-4, rtol=0)

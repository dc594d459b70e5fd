"""Networks that read media inside the transformer: where embeddings go, what is trained, what is isolated from what."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mio import Media, Modality
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.data.items import items_from_json, items_to_json, pack_items
from mio.core.distributed.ranks import Ranks
from mio.core.errors import PluginError, RecipeError
from mio.core.generation.replicas import decoding_copy
from mio.core.model.networks import buffers, initialise_networks, is_frozen, make_network, units
from mio.core.model.parallel import compile_blocks, recompute
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import OptimizerConfig, RuleConfig, TrainConfig
from mio.core.tokens.rendered import Item
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule
from mio.core.training.optimizer import build_optimizer

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import encoders as benchmark
from small_encoder import PatchEncoder

CONFIG = TransformerConfig(width=48, layers=2, heads=4, kv_heads=2)
VOCABULARY = Vocabulary.build(SizedText(64), [("text", Modality(name="text", text=True))])


def made(count=1, **options):
    torch.manual_seed(0)
    transformer = Transformer(CONFIG, VOCABULARY.rows, Networks(benchmark.encoders(count, **options)))
    transformer.reset_parameters(4)
    return transformer


def items_of(transformer, pictures, dummies=False):
    """Items at flat positions, from `(modality, place, picture)`."""
    placed = []
    for name, place, picture in pictures:
        reader = transformer.networks.encoders[name]
        placed.append((0, Item(name, place, reader.positions(picture), None, reader.prepare(picture))))
    return pack_items(placed, benchmark.Prepared(transformer.networks), dummies)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def run(transformer, items, length=24, rows=2):
    tokens = torch.randint(64, (rows, length), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(length).expand(rows, -1)
    return transformer(tokens, positions, items=items).hidden


def test_embeddings_take_the_places_of_the_tokens_items_joined_in_any_number():
    """The encoder's own embeddings, item by item, in a pass through the layers without it."""
    transformer = made(2)
    pictures = [("image", 3, picture(8, 8)), ("image", 30, picture(8, 16, 1)), ("sketch", 8, picture(4, 8, 2))]
    found = run(transformer, items_of(transformer, pictures))
    tokens = torch.randint(64, (2, 24), generator=torch.Generator().manual_seed(1))
    expected = transformer.embed(tokens).flatten(0, 1).detach().clone()
    for name, place, one in pictures:
        alone = items_of(transformer, [(name, 0, one)])[name].input
        embeddings = transformer.encoders[name](alone)
        expected[place : place + len(embeddings)] = embeddings.detach()
    positions = torch.arange(24).expand(2, -1)
    beside = transformer(tokens, positions, embeddings=expected.view(2, 24, -1)).hidden
    torch.testing.assert_close(found, beside, rtol=0, atol=1e-5)


def test_documents_losses_and_gradients_do_not_depend_on_the_media_of_others():
    assert benchmark.isolated(Networks(benchmark.encoders(2)))


def test_a_pass_without_items_gives_every_parameter_a_gradient_of_zero_and_changes_no_activation():
    transformer = made(2)
    items = items_of(transformer, [("image", 3, picture(8, 8))], dummies=True)
    assert items["sketch"].dummy
    assert not items["image"].dummy
    hidden = run(transformer, items)
    only = run(transformer, {"image": items["image"]})
    assert torch.equal(hidden, only)
    hidden.sum().backward()
    for name, parameter in transformer.encoders.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) != name.startswith("sketch."), name


def test_a_frozen_encoder_runs_without_a_graph():
    transformer = made()
    transformer.encoders.requires_grad_(False)
    items = items_of(transformer, [("image", 3, picture(8, 8))])
    graphs = []
    transformer.encoders["image"].layers[0].register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    hidden = run(transformer, items)
    assert graphs == [False]
    assert is_frozen(transformer.encoders["image"])
    hidden.sum().backward()
    assert all(parameter.grad is None for parameter in transformer.encoders.parameters())
    assert transformer.embedding.weight.grad is not None


@pytest.mark.parametrize("how", ["full", "selective", "compiled"])
def test_recomputed_and_compiled_units_have_the_same_gradients(how):
    plain, other = made(), made()
    if how == "compiled":
        compile_blocks(other, "cpu")
    else:
        recompute(other, how)
    for sides in ((8, 8), (8, 12)):
        gradients = []
        for transformer in (plain, other):
            transformer.zero_grad()
            run(transformer, items_of(transformer, [("image", 3, picture(*sides))])).square().sum().backward()
            gradients.append({name: parameter.grad for name, parameter in transformer.named_parameters()})
        for name, gradient in gradients[0].items():
            least = 0 if gradient is None else 1e-5 * gradient.abs().max().item()
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=least, msg=name)


def test_networks_never_leave_evaluation_mode():
    class Dropping(PatchEncoder):
        def module(self, width):
            network = super().module(width)
            network.projector = nn.Sequential(nn.BatchNorm1d(self.width), nn.Dropout(0.5), network.projector)
            return network

    transformer = Transformer(CONFIG, 64, Networks({"image": Dropping()})).train()
    before = {name: buffer.clone() for name, buffer in buffers(transformer).items()}
    items = items_of(transformer, [("image", 3, picture(8, 8))])
    assert torch.equal(run(transformer, items), run(transformer, items))
    assert all(torch.equal(buffer, before[name]) for name, buffer in buffers(transformer).items())


def test_units_are_the_children_of_module_lists():
    network = PatchEncoder(layers=3).module(16)
    assert list(units(network)) == list(network.layers)
    nested = nn.Sequential(nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)])]), nn.Linear(2, 2))
    assert list(units(nested)) == [nested[0][0]]


def test_initial_values_are_the_seeds_and_pretrained_ones_the_plugins():
    class Pretrained(PatchEncoder):
        asked = 0

        def weights(self):
            self.asked += 1
            return {"projector.bias": torch.full((48,), 7.0), "scale": torch.tensor(3.0)}

    encoder = Pretrained()
    first, second = (Transformer(CONFIG, 64, Networks({"image": encoder})) for _ in range(2))
    other = made()
    other.reset_parameters(5)
    for one, two in zip(first.encoders.parameters(), second.encoders.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.encoders["image"].patch.weight, other.encoders["image"].patch.weight)
    assert bool((first.encoders["image"].projector.bias == 7).all())
    assert first.encoders["image"].scale == 3
    assert encoder.asked == 2
    initialise_networks(first, 0, frozenset())
    assert encoder.asked == 2


def test_pretrained_values_without_a_place_and_networks_that_cannot_be_stored_are_named():
    class Wrong(PatchEncoder):
        def weights(self):
            return {"projector.bais": torch.zeros(48)}

    with pytest.raises(PluginError, match=r"pretrained `encoders.image.projector.bais` is \[48\], where its"):
        Transformer(CONFIG, 64, Networks({"image": Wrong()}))

    class Loose(PatchEncoder):
        def module(self, width):
            network = super().module(width)
            network.layers[1].table = torch.ones(3)
            return network

    with torch.device("meta"), pytest.raises(PluginError, match=r"`encoders.image.layers.1.table` is a tensor of its"):
        Transformer(CONFIG, 64, Networks({"image": Loose()}))
    complex_numbers = SimpleNamespace(module=lambda width: nn.ParameterList([torch.ones(width, dtype=torch.complex64)]))
    with pytest.raises(PluginError, match=r"`encoders.image.0` is torch.complex64, in which no weights are stored"):
        make_network("encoders.image", complex_numbers.module, 4)
    with pytest.raises(PluginError, match="its `module` gave no torch module, but 4"):
        make_network("encoders.image", lambda width: width, 4)


def test_an_encoder_with_another_number_of_positions_is_named():
    class Short(PatchEncoder):
        def positions(self, media):
            return super().positions(media) + 1

    transformer = Transformer(CONFIG, 64, Networks({"image": Short()}))
    items = items_of(transformer, [("image", 3, picture(8, 8))])
    with pytest.raises(
        PluginError, match=r"encoder of `image` gave \[4, 48\] embeddings for 1 items, of which .* \[5, 48"
    ):
        run(transformer, items)


def test_muon_has_the_matrices_of_linear_layers_and_only_weights_of_layers_decay():
    transformer = made()
    config = OptimizerConfig(kind="muon", weight_decay=0.1)
    optimizer, _ = build_optimizer(transformer, config, VOCABULARY)
    names = {id(parameter): name for name, parameter in transformer.encoders.named_parameters()}
    muon, decaying = set(), set()
    for group in optimizer.param_groups:
        own = {names[id(parameter)] for parameter in group["params"] if id(parameter) in names}
        muon |= own if "momentum" in group else set()
        decaying |= own if group["weight_decay"] else set()
    layers = [f"image.layers.{layer}.{part}.weight" for layer in range(2) for part in (
        "projections", "output", "network.0", "network.2",
    )]  # fmt: skip
    assert muon == {*layers, "image.projector.weight"}
    assert decaying == {*muon, "image.patch.weight"}


def test_rules_name_parameters_of_encoders():
    def module(**rules):
        train = TrainConfig(optimizer=OptimizerConfig(rules={name: RuleConfig(**rule) for name, rule in rules.items()}))
        return MioModule(CONFIG, VOCABULARY, train, ("",), networks=Networks({"image": PatchEncoder()}))

    frozen, projector = {"pattern": "encoders.*", "trainable": False}, {"pattern": "encoders.image.projector.*"}
    partly = module(all=frozen, projector=projector)
    trained = [name for name, one in partly.transformer.encoders.named_parameters() if one.requires_grad]
    assert trained == ["image.projector.weight", "image.projector.bias"]
    with pytest.raises(RecipeError, match=r"`encoders.image.projecter.\*` matches no parameter; did you mean"):
        module(x={"pattern": "encoders.image.projecter.*"})


def test_a_decoding_copy_rounds_what_autocast_rounds_and_keeps_buffers():
    source = made()
    items = items_of(source, [("image", 3, picture(8, 8))])
    copy, _ = decoding_copy(source, torch.device("cpu"), torch.bfloat16, Ranks())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = source.encoders["image"](items["image"].input)
        assert torch.equal(copy.encoders["image"](items["image"].input), expected)
    assert copy.encoders["image"].projector.weight.dtype == torch.bfloat16
    assert copy.encoders["image"].norm.weight.dtype == copy.encoders["image"].place.dtype == torch.float32
    assert copy.encoders["image"].mean == 0.5
    with torch.inference_mode():
        assert run(copy, items).dtype == torch.bfloat16


def test_items_survive_json_bit_by_bit():
    import json

    transformer = made(2)
    items = [
        Item(name, place, reader.positions(data), Media(name, data, f"{name} {place}"), reader.prepare(data))
        for name, place, data in (("image", 3, picture(8, 8)), ("sketch", 30, picture(4, 4, 1)))
        for reader in [transformer.networks.encoders[name]]
    ]
    back = items_from_json(json.loads(json.dumps(items_to_json(items))))
    for one, other in zip(items, back, strict=True):
        assert one[:3] == other[:3]
        assert one.media.key == other.media.key
        assert one.arrays.keys() == other.arrays.keys()
        for key, array in one.arrays.items():
            assert array.dtype == other.arrays[key].dtype
            assert np.array_equal(array, other.arrays[key])

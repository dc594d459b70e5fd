"""Are the parts of MM-Interleaved here those of its published code?

    python benchmarks/mm_interleaved_parity.py REFERENCE [--full] [--golden]

REFERENCE is a checkout of github.com/OpenGVLab/MM-Interleaved; it was run at its commit ac539d0. Its modules are built
with weights made by a formula, in float32 on the CPU, with its own torch version of the CUDA operation, and both are
given the same tensors. Sizes are reduced; `--full` adds the published ones of the vision side and of the U-Net, which
takes some minutes and 20 GB. `--golden` prints the reference's values for the tests. Needs diffusers, transformers and
einops. The last line is one JSON object; differences are the largest of any element, of values whose standard deviation
is `scale`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent))

from vita_parity import compared, formula

from mio.core.contract.checker import read_options
from mio.plugins.mm_interleaved.layers import LayerSynchroniser
from mio.plugins.mm_interleaved.options import MMInterleavedOptions
from mio.plugins.mm_interleaved.published import by_network, joined, place
from mio.plugins.mm_interleaved.qformer import QFormer
from mio.plugins.mm_interleaved.reader import ImageReader
from mio.plugins.mm_interleaved.synchroniser import sight
from mio.plugins.mm_interleaved.unet import SynchronisedUNet

SMALL = {
    "vision": {"image_size": 16, "patch": 4, "width": 32, "heads": 4, "ffn_width": 64, "planes": 8},
    "resampler": {"positions": 5, "width": 24, "heads": 3, "layers": 3, "ffn_width": 48},
    "layers": {"width": 16, "heads": 4, "points": 3, "images": 6},
    "perceiver": {"queries": 7, "width": 32, "heads": 4, "ffn_width": 48},
    "diffusion": {
        **{"image_size": 128, "channels": [32, 32, 64, 64], "heads": [2, 2, 4, 4], "layers": 2, "norm_groups": 8},
        **{"sync_width": 32, "sync_heads": 4, "sync_points": 3, "vae_channels": [8, 8, 16, 16], "vae_layers": 1},
    },
}
WIDTH = 48
"""Of the language model."""


def options(sizes: dict[str, Any]) -> MMInterleavedOptions:
    return read_options(MMInterleavedOptions, sizes, "plugins.mm_interleaved")


def tensor(name: str, *shape: int) -> Tensor:
    """Values about as large as those that a norm gives."""
    return formula(name, (1, *shape))[0] * (float(torch.tensor(shape).prod()) ** 0.5)


def open_reference(folder: Path) -> SimpleNamespace:
    """The reference's modules, without its package, whose `__init__` needs all of its requirements, and with its own
    torch version of the CUDA operation."""
    sys.path.insert(0, str(folder))
    names = ("", ".models", ".models.decoders", ".models.encoders", ".models.utils", ".models.utils.monkey_patch")
    for name in (f"mm_interleaved{one}" for one in names):
        package = ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = package
    import transformers
    from diffusers.models.unets import unet_2d_condition
    from transformers.models.blip_2 import modeling_blip_2
    from transformers.models.clip import modeling_clip

    sys.modules["diffusers.models.unet_2d_condition"] = unet_2d_condition
    for name in ("CLIP_VISION_INPUTS_DOCSTRING", "CLIP_START_DOCSTRING"):
        setattr(modeling_clip, name, "")
    for name in ("add_start_docstrings", "add_start_docstrings_to_model_forward", "replace_return_docstrings"):
        setattr(transformers.utils, name, lambda *_, **__: lambda function: function)
    from mm_interleaved.models.utils.monkey_patch import blip2_qknorm_monkey_patch

    class Attention(blip2_qknorm_monkey_patch.Blip2QFormerMultiHeadAttention):
        """Its attention, as today's transformers calls it."""

        def forward(self, hidden_states: Tensor, _: Any = None, *rest: Any, **named: Any) -> Any:
            known = {name: named.get(name) for name in ("encoder_hidden_states", "encoder_attention_mask")}
            known |= dict(zip(known, rest, strict=False))
            if (mask := known["encoder_attention_mask"]) is not None and mask.dtype == torch.bool:
                known["encoder_attention_mask"] = (1 - mask.float()) * torch.finfo(torch.float32).min
            return super().forward(hidden_states, None, **known)[0], None

    modeling_blip_2.Blip2QFormerMultiHeadAttention = Attention
    from mm_interleaved.models.decoders import perceiver, sd_mmfs
    from mm_interleaved.models.encoders import visual_tokenizer
    from mm_interleaved.models.encoders.vit_adapter import vit_adapter_hf
    from mm_interleaved.models.encoders.vit_adapter.ops.functions import ms_deform_attn_func
    from mm_interleaved.models.encoders.vit_adapter.ops.modules import ms_deform_attn
    from mm_interleaved.models.utils.monkey_patch import sd_unet_forward_monkey_patch
    from mm_interleaved.models.utils.ops.modules import mmfs

    def apply(values: Tensor, shapes: Tensor, _: Any, places: Tensor, weights: Tensor, __: int) -> Tensor:
        return ms_deform_attn_func.ms_deform_attn_core_pytorch(values, shapes.tolist(), places, weights)

    for module in (mmfs, ms_deform_attn):
        module.MSDeformAttnFunction = SimpleNamespace(apply=apply)
    return SimpleNamespace(
        mmfs=mmfs,
        vit=vit_adapter_hf,
        tokenizer=visual_tokenizer,
        perceiver=perceiver,
        sd_mmfs=sd_mmfs,
        unet_forward=sd_unet_forward_monkey_patch._custom_forward,
    )


def filled(module: nn.Module, prefix: str, groups: int = 4) -> dict[str, Tensor]:
    """Gives a module of the reference weights by formula, made of the names that they have here. Returns them by their
    names in the published layout. What is dropped there stays as it is."""
    named = {name: place(prefix + name, groups) for name in module.state_dict()}
    weights = {
        name: formula(named[name].name, tuple(value.shape))
        for name, value in module.state_dict().items()
        if named[name].network != "dropped"
    }
    module.load_state_dict(weights, strict=False)
    module.eval()
    return {prefix + name: value for name, value in weights.items()}


class Attributes(dict):
    """A mapping whose keys are attributes too, as those of mmcv's configurations."""

    __getattr__ = dict.__getitem__


def load(module: nn.Module, network: str, published: dict[str, Tensor], groups: int = 4) -> nn.Module:
    """Ours with the weights of the published layout. Every parameter must be given, and every tensor used."""
    named = by_network(published, groups)
    assert set(named) <= {network, "dropped"}, sorted(named)
    tensors = {ours: published[theirs] for ours, theirs in named[network].items()}
    module.load_state_dict(joined(tensors) if network == "reader" else tensors, strict=False)
    missing = {name for name, _ in module.named_parameters()} - set(joined(tensors) if network == "reader" else tensors)
    assert not missing, sorted(missing)
    return module.eval()


def picked(values: Tensor) -> list[float]:
    """Some elements from all over."""
    flat = values.flatten()
    return [round(value, 6) for value in flat[:: len(flat) // 7 - 1].tolist()]


def levels(sides: tuple[int, ...], images: int) -> tuple[Tensor, Tensor]:
    shapes = torch.tensor([(side, side) for side in sides] * images)
    return shapes, torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])


def layer(reference: SimpleNamespace, chosen: MMInterleavedOptions, width: int) -> dict[str, Any]:
    """The synchroniser of a layer: its two norms, its attention and its gate, with queries that see nothing."""
    sync, vision = chosen.layers, chosen.vision
    sides = vision.sides[-sync.levels :]
    theirs = reference.mmfs.MMFS(
        d_model=width,
        d_query=width,
        d_value=vision.width,
        d_out=width,
        n_levels=len(sides),
        n_heads=sync.heads,
        n_points=sync.points,
        ratio=sync.width / width,
        offset_init_magnitude=sync.magnitude,
        spatial_shapes=list(sides),
        base_spatial_shape=vision.grid,
        max_num_image_per_seq=sync.images,
    )
    prefix = "mm_decoder.layers.0.llama_cross_attn."
    published = filled(theirs, f"{prefix}attn.")
    norms = [formula(f"0.{name}", (size,)) for name, size in (("norm1.weight", width), ("norm2.weight", vision.width))]
    published |= {f"{prefix}norm1.weight": norms[0], f"{prefix}norm2.weight": norms[1]}
    published[f"{prefix}gate"] = gate = formula("0.gate", (1,))
    ours = LayerSynchroniser(chosen, width).eval()
    named = by_network(published)["layers"]
    ours.load_state_dict({own.removeprefix("0."): published[there] for own, there in named.items()})
    hidden, maps = tensor("hidden", 2, 9, width), tensor("maps", 2, 4, vision.cells, vision.width)
    visible = torch.ones(9, 4, dtype=torch.bool).tril(-1).repeat(2, 1, 1)
    visible[1, 5:, :2] = False
    with torch.no_grad():
        query = nn.functional.rms_norm(hidden, (width,), norms[0], sync.epsilon)
        values = nn.functional.rms_norm(maps, (vision.width,), norms[1], sync.epsilon)
        values = values[:, :, -sum(side * side for side in sides) :]
        shapes, begin = levels(sides, 4)
        reached = theirs(query, torch.full((1, 9, 1, 2), 0.5), values, shapes, begin, attention_mask=visible.long())
        expected = reached * gate.tanh()
        found = ours(hidden, maps, visible)
    nothing = ~visible.any(-1)
    return {
        **compared(found, expected),
        "seeing_nothing": float((found - theirs.output_proj.bias * gate.tanh())[nothing].abs().max()),
        "golden": picked(expected),
    }


def resampler(reference: SimpleNamespace, count: int, sizes: dict[str, int], features: int, normalised: bool) -> dict:
    """A Q-Former over features. Those of hidden states, without norms of queries and keys, are masked behind the fourth
    in one item."""
    theirs = reference.perceiver.PerceiverResampler(
        num_queries=count,
        hidden_size=sizes["width"],
        qk_normalization=normalised,
        encoder_hidden_size=features,
        cross_attention_frequency=sizes["every"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["ffn_width"],
        attn_implementation="eager",
    )
    prefix, network = ("visual_tokenizer.", "reader") if normalised else ("image_decoder.", "painter")
    published = filled(theirs, f"{prefix}perceiver_resampler.")
    own = "resampler." if normalised else "perceiver."
    named = by_network(published)[network]
    ours = QFormer(
        count,
        features=features,
        normalised=normalised,
        hidden=sizes["ffn_width"],
        **{name: sizes[name] for name in ("width", "layers", "heads", "every")},
    )
    ours.load_state_dict({name.removeprefix(own): published[theirs] for name, theirs in named.items()})
    given = tensor("features", 2, 11, features)
    mask = None if normalised else torch.arange(11) < torch.tensor([[11], [4]])
    with torch.no_grad():
        arguments = {"encoder_hidden_states": given, "encoder_attention_mask": None if mask is None else mask.long()}
        expected = theirs(**arguments, return_dict=False)[0]
        found = ours.eval()(given, mask)
    return {**compared(found, expected), "golden": picked(expected)}


def reader(reference: SimpleNamespace, chosen: MMInterleavedOptions, width: int) -> dict[str, Any]:
    """CLIP with ViT-Adapter, its positions, the resampler and the projection: pictures to embeddings and maps."""
    from transformers import CLIPVisionConfig

    vision, sizes = chosen.vision, chosen.resampler
    config = CLIPVisionConfig(
        hidden_size=vision.width,
        intermediate_size=vision.ffn_width,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size,
        patch_size=vision.patch,
        attn_implementation="eager",
    )

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision_model = reference.vit.CLIPVisionTransformerAdapter(config, vision.planes, vision.points)
            self.vision_model.set_vis_embed_requires_grad(False)

        def forward(self, image: Tensor) -> Any:
            return self.vision_model(image, return_dict=True)

    reference.tokenizer.clip_vit_adapter_hf = lambda **_: Encoder()
    theirs = reference.tokenizer.VisualTokenizer(
        perceiver_config=Attributes(
            num_queries=sizes.positions,
            hidden_size=sizes.width,
            encoder_hidden_size=vision.width,
            cross_attention_frequency=sizes.every,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.ffn_width,
            qk_normalization=True,
            attn_implementation="eager",
        ),
        llm_hidden_size=width,
        grid_size=vision.grid,
    )
    published = filled(theirs, "visual_tokenizer.", vision.groups)
    ours = load(ImageReader(chosen, width), "reader", published, vision.groups)
    pictures = (tensor("pictures", 2, vision.image_size, vision.image_size, 3) * 40 + 128).clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        output = theirs(pictures.permute(0, 3, 1, 2) / 255)
        maps = torch.cat([one.flatten(2).transpose(1, 2) for one in output["multiscale_features"]], 1)
        embeddings = output["vis_embed"].flatten(0, 1)
        found, found_maps = ours(SimpleNamespace(arrays={"pixels": pictures}))
    return {
        "embeddings": {**compared(found, embeddings), "golden": picked(embeddings)},
        "maps": {**compared(found_maps, maps), "golden": picked(maps)},
    }


def unet(reference: SimpleNamespace, chosen: MMInterleavedOptions) -> dict[str, Any]:
    """The U-Net with its synchronisers; one of the pictures has none before it."""
    diffusion, vision = chosen.diffusion, chosen.vision
    ours = SynchronisedUNet(chosen)
    theirs_unet = type(ours.unet).from_config(ours.unet.config)
    net = reference.sd_mmfs.MMFSNet.__new__(reference.sd_mmfs.MMFSNet)
    nn.Module.__init__(net)
    blocks = [
        reference.sd_mmfs.MMFSBlock(
            attn_dim=diffusion.sync_width,
            query_dim=channels,
            feat_dim=vision.width,
            num_heads=diffusion.sync_heads,
            n_points=diffusion.sync_points,
            n_levels=4,
            grid_size=diffusion.side,
            spatial_shapes=list(vision.sides),
            base_spatial_shape=side,
        )
        for channels, side in (*diffusion.residuals, diffusion.residuals[-1])
    ]
    net.mmfs_down_blocks, net.mmfs_mid_block = nn.ModuleList(blocks[:-1]), blocks[-1]
    published = filled(theirs_unet, "image_decoder.decoder.unet.") | filled(net, "image_decoder.decoder.mmfs_module.")
    prefixed = {f"decoder.{name}": value for name, value in ours.state_dict().items()}
    named = by_network(published)["painter"]
    ours.load_state_dict(
        {name.removeprefix("decoder."): published[there] for name, there in named.items()}, strict=False
    )
    assert {name for name in prefixed if not name.endswith((".places", ".centres"))} == set(named)
    latents, times = tensor("latents", 2, 4, diffusion.side, diffusion.side), torch.tensor([7, 640])
    condition = tensor("condition", 2, chosen.perceiver.queries, chosen.perceiver.width)
    maps, there = tensor("maps", 2, 1, vision.cells, vision.width), torch.tensor([[True], [False]])
    features = [
        one.transpose(2, 3).unflatten(3, (side, side))
        for one, side in zip(maps.split([side**2 for side in vision.sides], 2), vision.sides, strict=True)
    ]
    with torch.no_grad():
        expected = reference.unet_forward(
            theirs_unet.eval(), latents, times, condition,
            mmfs_features=features, mmfs_mask=there.long(), mmfs_module=net,
        ).sample  # fmt: skip
        sees = sight(there[:, None])
        found = ours.eval()(latents, times, condition, maps[sees.images], sees)
        without = theirs_unet(latents, times, condition).sample
    return {
        **compared(found, expected),
        "of_maps": float((expected - without).std()),
        "golden": picked(expected),
    }


def every(reference: SimpleNamespace, chosen: MMInterleavedOptions, width: int) -> dict[str, Any]:
    from dataclasses import asdict

    resampled, perceived = asdict(chosen.resampler), asdict(chosen.perceiver)
    return {
        "layer": layer(reference, chosen, width),
        "resampler": resampler(reference, chosen.resampler.positions, resampled, chosen.vision.width, True),
        "reader": reader(reference, chosen, width),
        "perceiver": resampler(reference, chosen.perceiver.queries, perceived, width, False),
        "unet": unet(reference, chosen),
    }


def without_golden(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: without_golden(value) for name, value in found.items() if name != "golden"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--golden", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    reference = open_reference(arguments.reference)
    found = {"small": every(reference, options(SMALL), WIDTH)}
    if arguments.golden:
        print(json.dumps(found["small"], indent=1))
    if arguments.full:
        found["full"] = every(reference, options({}), 5120)
    print(json.dumps(without_golden(found)))


if __name__ == "__main__":
    main()

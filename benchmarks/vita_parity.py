"""Are the parts of VITA here those of its published code?

    python benchmarks/vita_parity.py REFERENCE [--full] [--golden]

REFERENCE is a checkout of github.com/VITA-MLLM/VITA; it was run at its commit 360de22. Its modules are built with
weights made by a formula, in float32 on the CPU, the same weights are stored in VITA's published layout and read from
there by the plugins, and both are given the same media: pictures that are cut into tiles, and two recordings of unequal
length in one batch. Sizes are reduced; `--full` adds the published ones. At full size names and shapes are compared on
the meta device as well. `--golden` prints the reference's values for the tests. Needs torchaudio, transformers and
einops. The last line is one JSON object; differences are the largest of any element, of values whose standard deviation
is `scale`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mio import EncoderInput
from mio.core.contract.plugins import PluginManager

SMALL_VISION = {"width": 32, "layers": 3, "heads": 4, "ffn_width": 96, "image_size": 28, "patch": 7}
SMALL_AUDIO = {"width": 32, "layers": 3, "heads": 4, "ffn_width": 96}
SMALL_MODEL, MODEL = 48, 4096
"""Widths of the transformer behind both."""


def formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of float32 made of its name alone: matrices that keep the size of what they are given, norms near 1."""
    count = int(np.prod(shape))
    noise = np.sin(np.arange(count) * 12.9898 + zlib.crc32(name.encode()) % 1000) * 43758.5453
    uniform = (2 * (noise - np.floor(noise)) - 1).reshape(shape)
    if len(shape) > 1:
        values = uniform * np.sqrt(3 / np.prod(shape[1:]))
    else:
        values = 0.1 * uniform + ("bias" not in name)
    return torch.from_numpy(values.astype(np.float32))


def fill(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Gives a module of the reference weights by formula. Returns them by their names in the published layout."""
    weights = {name: formula(prefix + name, tuple(value.shape)) for name, value in module.state_dict().items()}
    module.load_state_dict(weights)
    module.eval()
    return {prefix + name: value for name, value in weights.items()}


def open_reference(folder: Path) -> None:
    """Makes the reference's modules importable without its package, whose `__init__` needs all of its requirements."""
    sys.path.insert(0, str(folder))
    for name in ("vita", "vita.model", "vita.model.multimodal_encoder"):
        package = ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules.setdefault("six", ModuleType("six"))


def reference_vision(sizes: dict[str, int], width: int) -> tuple[nn.Module, nn.Module]:
    """The tower behind `InternViTVisionTower`, and the projector."""
    from vita.model.multimodal_encoder.internvit import internvit_encoder as encoder
    from vita.model.multimodal_encoder.internvit.configuration_intern_vit import InternVisionConfig
    from vita.model.multimodal_projector.builder import build_vision_projector

    tower = encoder.InternViTVisionTower.__new__(encoder.InternViTVisionTower)
    nn.Module.__init__(tower)
    tower.is_loaded, tower.select_layer, tower.scale_pix_shuffle = True, -1, 0.5
    tower.vision_tower = encoder.InternVisionModel(
        InternVisionConfig(
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            intermediate_size=sizes["ffn_width"],
            image_size=sizes["image_size"],
            patch_size=sizes["patch"],
            qkv_bias=True,
            qk_normalization=False,
            use_flash_attn=False,
            norm_type="layer_norm",
            layer_norm_eps=1e-6,
            drop_path_rate=0.1,
        )
    )
    config = SimpleNamespace(mm_projector_type="mlp2x_gelu", mm_hidden_size=4 * sizes["width"], hidden_size=width)
    return tower, build_vision_projector(config)


def reference_audio(sizes: dict[str, int], width: int) -> nn.Module:
    """The audio encoder with its adapter, as the published serving code has them: all of a recording is seen at once,
    the adapter has a kernel of 5, a layer norm and GELU."""
    from vita.model.multimodal_encoder.whale.cmvn import GlobalCMVN
    from vita.model.multimodal_encoder.whale.init_model import audioEncoder, whaleEncoder

    size = sizes["width"]
    subsampling = {"rate": 4, "input-dim": 80, "output-dim": size, "dropout-rate": 0.1}
    transformer = {
        **{"input-dim": size, "output-dim": size, "attention-dim": size, "attention-heads": sizes["heads"]},
        **{"linear-units": sizes["ffn_width"], "num-blocks": sizes["layers"], "dropout-rate": 0.1},
        **{"input-layer": "linear", "pos-enc-class": "rel-enc", "chunk_size": -1, "left_chunks": -1},
        "dynamic-chunks": False,
    }
    encoder = whaleEncoder(
        80,
        {
            "encoder-layer-config": "subsampling-transformer",
            "encoder-input-dim": 80,
            "encoder-output-dim": size,
        },
        {
            "subsampling": {f"subsampling-{key}": value for key, value in subsampling.items()},
            "transformer": {f"transformer-{key}": value for key, value in transformer.items()},
        },
        GlobalCMVN(torch.zeros(80), torch.ones(80)),
    )
    return audioEncoder(
        encoder,
        "",
        enc_out_dim=size,
        llm_embed_dim=width,
        kernel_size=5,
        adpter_type="subsampling",
        activation_func="gelu",
        norm="layer",
    )


def picture(width: int, height: int) -> np.ndarray:
    """A smooth picture, uint8 `[H, W, 3]`."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + 2 * c)) * np.cos(y / (5 + c)) for c in range(3)]
    return np.uint8(127.5 + 127 * np.stack(waves, axis=-1))


def recording(seconds: float, pitch: float) -> np.ndarray:
    """A gliding tone with overtones, float32 `[T]` at 16 kHz."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * (pitch * time + 40 * time**2)
    return np.float32(0.2 * np.sin(phase) + 0.1 * np.sin(2.3 * phase) + 0.05 * np.sin(7.1 * phase))


def packed(encoder: Any, items: list[Any]) -> EncoderInput:
    """What a pass is given of `items`."""
    prepared = [encoder.prepare(item) for item in items]
    return EncoderInput(
        {name: torch.from_numpy(np.concatenate([one[name] for one in prepared])) for name in prepared[0]},
        {name: [len(one[name]) for one in prepared] for name in prepared[0]},
        [encoder.positions(item) for item in items],
    )


def loaded(plugin: str, modality: str, sizes: dict[str, Any], width: int, weights: dict[str, Tensor]) -> Any:
    """The plugin's encoder and its module, with weights read from a file in the published layout."""
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: value.contiguous() for name, value in weights.items()}, Path(folder) / "model.safetensors")
        plugins = PluginManager.discover().enable(
            {modality: {"tokenizer": "none"}, plugin: {**sizes, "checkpoint": folder}}
        )
        _, encoder = plugins.encoder(modality)
        module = encoder.module(width).eval()
        module.load_state_dict(encoder.weights())
    return encoder, module


def statistics() -> dict[str, list[float]]:
    """Options of the audio tower that are weights there: mean, and inverse deviation, of each band."""
    mean, inverse = (formula(f"model.audio_encoder.encoder.global_cmvn.{name}", (80,)) for name in ("mean", "istd"))
    return {"mean": mean.tolist(), "std": (1 / inverse).tolist()}


def compared(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    return {"difference": float((ours - theirs).abs().max()), "scale": float(theirs.std())}


def vision(folder: Path, sizes: dict[str, int], width: int, shapes: list[tuple[int, int]], golden: bool) -> dict:
    """Pictures through both: tiles by the reference's rule and its processor, network, projector."""
    from PIL import Image
    from transformers import CLIPImageProcessor

    tower, projector = reference_vision(sizes, width)
    weights = fill(tower.vision_tower, "model.vision_tower.vision_tower.") | fill(projector, "model.mm_projector.")
    side = sizes["image_size"]
    processor = CLIPImageProcessor(
        size=side,
        crop_size=side,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    tiles = reference_tiles(folder)
    pictures = [picture(*shape) for shape in shapes]
    pixels = [
        processor(tiles(Image.fromarray(one), 1, 12, side, True)[0], return_tensors="pt")["pixel_values"]
        for one in pictures
    ]
    encoder, module = loaded("vision_tower", "image", sizes, width, weights)
    with torch.no_grad():
        theirs = projector(tower(torch.cat(pixels))).flatten(0, 1)
        ours = module(packed(encoder, pictures))
    if golden:
        print("vision:", [round(float(value), 5) for value in theirs[::7].sum(-1)[:8]], tuple(theirs.shape))
    return compared(ours, theirs)


def reference_tiles(folder: Path) -> Any:
    """`dynamic_preprocess`, without the file's other imports."""
    text = (folder / "vita/util/data_utils_video_audio_neg_patch.py").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(text[text.index("def find_closest_aspect_ratio") :], scope)
    return scope["dynamic_preprocess"]


def audio(sizes: dict[str, int], width: int, golden: bool) -> dict:
    """Two recordings through both, in one padded batch there, end to end here."""
    from torchaudio.compliance.kaldi import fbank

    model = reference_audio(sizes, width)
    weights = fill(model, "model.audio_encoder.")
    encoder, module = loaded("audio_tower", "speech", sizes | statistics(), width, weights)
    recordings = [(recording(1.3, 220), 16_000), (recording(0.71, 330), 16_000)]
    items = packed(encoder, recordings)
    waves = [torch.from_numpy(samples)[None].double() * 32768 for samples, _ in recordings]
    exact = [fbank(wave, num_mel_bins=80, dither=0.0, energy_floor=0.0) for wave in waves]
    frames = torch.split(items.arrays["frames"], items.lengths["frames"])
    features = max(float((a[:-1] - b[: len(a) - 1]).abs().max()) for a, b in zip(frames, exact, strict=True))
    batch = torch.nn.utils.rnn.pad_sequence([one.float() for one in exact], batch_first=True)
    # frames of the reference are those here, so that the networks are given the same
    for row, own in zip(batch, frames, strict=True):
        row[: len(own) - 1] = own[:-1]
    with torch.no_grad():
        found = model(batch, torch.tensor([len(one) for one in exact]))
        theirs = torch.cat(
            [one[mask] for one, mask in zip(found["inputs_embeds"], found["attention_mask"], strict=True)]
        )
        ours = module(items)
    assert [int(mask.sum()) for mask in found["attention_mask"]] == list(items.positions)
    if golden:
        print("audio:", [round(float(value), 5) for value in theirs[::2].sum(-1)[:8]], tuple(theirs.shape))
    return {**compared(ours, theirs), "features": features}


def names() -> int:
    """Compares names and shapes at full size on the meta device. Returns the number of tensors."""
    from mio.plugins.audio_tower import weights as audio_weights
    from mio.plugins.audio_tower.options import AudioTowerOptions
    from mio.plugins.audio_tower.tower import AudioTower
    from mio.plugins.vision_tower import weights as vision_weights
    from mio.plugins.vision_tower.options import VisionTowerOptions
    from mio.plugins.vision_tower.tower import VisionTower

    options = VisionTowerOptions()
    sizes = {name: getattr(options, name) for name in SMALL_VISION}
    # the reference reads numbers off a tensor while it is built
    with torch.device("meta"), patch("torch.linspace", np.linspace):
        tower, projector = reference_vision(sizes, MODEL)
        speech = reference_audio({name: getattr(AudioTowerOptions(), name) for name in SMALL_AUDIO}, MODEL)
        ours = {**VisionTower(options, MODEL).state_dict(), **AudioTower(AudioTowerOptions(), MODEL).state_dict()}
    del speech.encoder.global_cmvn  # options here
    theirs = {
        **{f"tower.{vision_weights.timm_name(n)}": v for n, v in tower.vision_tower.state_dict().items()},
        **{f"projector.{name}": value for name, value in projector.state_dict().items()},
        **{audio_weights.our_name(name): value for name, value in speech.state_dict().items()},
    }
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}
    return len(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--full", action="store_true", help="the published sizes too")
    parser.add_argument("--golden", action="store_true", help="print the reference's values of the tests")
    options = parser.parse_args()
    open_reference(options.reference)
    result: dict[str, Any] = {
        "vision": vision(options.reference, SMALL_VISION, SMALL_MODEL, [(60, 40), (28, 28), (20, 90)], options.golden),
        "audio": audio(SMALL_AUDIO, SMALL_MODEL, options.golden),
        "tensors_with_their_names_and_shapes": names(),
    }
    if options.full:
        from mio.plugins.audio_tower.options import AudioTowerOptions
        from mio.plugins.vision_tower.options import VisionTowerOptions

        sizes = {name: getattr(VisionTowerOptions(), name) for name in SMALL_VISION}
        result["vision_full"] = vision(options.reference, sizes, MODEL, [(500, 300)], golden=False)
        result["audio_full"] = audio({n: getattr(AudioTowerOptions(), n) for n in SMALL_AUDIO}, MODEL, golden=False)
    result["max_difference"] = max(part["difference"] for part in result.values() if isinstance(part, dict))
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Names and shapes of the published MM-Interleaved's state dict, at its full size.

    pip install --target PACKAGES --no-deps transformers==4.31.0 tokenizers==0.13.3 diffusers==0.20.2 \\
        huggingface_hub==0.16.4
    python benchmarks/mm_interleaved_keys.py REFERENCE PACKAGES > tests/plugins/mm_interleaved_keys.txt

REFERENCE is a checkout of github.com/OpenGVLab/MM-Interleaved; it was run at its commit ac539d0, with the packages that
it asks for, on the meta device. A line is a name with `#` for its numbers, the shape, and the numbers. Of U-Net and
autoencoder, which are diffusers', it has a count and a checksum.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

WHOLE = ("image_decoder.decoder.unet.", "image_decoder.decoder.vae.")
"""Of what begins so there is a checksum alone."""
NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


def compact(shapes: Mapping[str, list[int]]) -> list[str]:
    """Lines for names and shapes."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, shape in shapes.items():
        if not name.startswith(WHOLE):
            key = NUMBER.sub(".#", name), "x".join(map(str, shape)) or "1"
            groups[key].append(".".join(NUMBER.findall(name)))
    lines = [" ".join([*key, ",".join(numbers)]).rstrip() for key, numbers in groups.items()]
    for prefix in WHOLE:
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        lines.append(f"{prefix}* {len(own)} {checksum(own)}")
    return lines


def checksum(shapes: Mapping[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]


def expanded(lines: list[str]) -> tuple[dict[str, list[int]], dict[str, tuple[int, str]]]:
    """Names and shapes, and counts and checksums by prefix, of lines."""
    shapes: dict[str, list[int]] = {}
    wholes = {}
    for line in lines:
        name, shape, *numbers = line.split()
        if name.endswith("*"):
            wholes[name[:-1]] = int(shape), numbers[0]
            continue
        for each in numbers[0].split(",") if numbers else [""]:
            own = iter(each.split("."))
            shapes[re.sub("#", lambda _, own=own: next(own), name)] = [int(size) for size in shape.split("x")]
    return shapes, wholes


class Attributes(dict[str, Any]):
    """A mapping whose keys are attributes too, as those of mmcv's configurations."""

    __getattr__ = dict.__getitem__


FULL: dict[str, Any] = {
    "llama": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "clip": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"image_size": 224, "patch_size": 14},
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "unet": {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024},
    "reading": {"num_queries": 64, "hidden_size": 768, "encoder_hidden_size": 1024, "cross_attention_frequency": 2}
    | {"num_hidden_layers": 12, "num_attention_heads": 12, "qk_normalization": True},
    "writing": {"num_queries": 77, "hidden_size": 1024, "encoder_hidden_size": 5120, "cross_attention_frequency": 1}
    | {"num_hidden_layers": 1, "num_attention_heads": 16},
    "whole": {},
}
"""Sizes of `configs/release/mm_pretrain.yaml`, and of what it loads."""


def built(reference: Path, packages: Path, sizes: Mapping[str, dict[str, Any]], device: str) -> torch.nn.Module:
    """The published model of these sizes, with weights that it draws."""
    sys.path[:0] = [str(reference), str(packages)]
    unchecked = ModuleType("transformers.dependency_versions_check")
    unchecked.dep_version_check = lambda *_: None  # type: ignore[attr-defined]
    sys.modules[unchecked.__name__] = unchecked
    for name in ("", ".models", ".models.decoders", ".models.encoders", ".models.utils", ".models.utils.monkey_patch"):
        package = ModuleType(f"mm_interleaved{name}")
        package.__path__ = [str(reference / package.__name__.replace(".", "/"))]
        sys.modules[package.__name__] = package
    from mm_interleaved.models.utils.monkey_patch import blip2_qknorm_monkey_patch, sd_unet_forward_monkey_patch

    blip2_qknorm_monkey_patch.replace_blip2_attn_with_qknorm_attn()
    sd_unet_forward_monkey_patch.replace_stable_diffusion_unet_forward()
    from mm_interleaved.models import mm_interleaved
    from mm_interleaved.models.decoders import sd
    from mm_interleaved.models.encoders.vit_adapter import vit_adapter_hf
    from transformers import CLIPVisionConfig

    def instead(kind: Any, make: Any) -> None:
        kind.from_pretrained = classmethod(lambda cls, *_, **named: make(cls, **named))

    instead(mm_interleaved.LlamaConfig, lambda cls: cls(**sizes["llama"]))
    instead(mm_interleaved.LlamaForCausalLM, lambda cls, config: cls(config))
    instead(vit_adapter_hf.CLIPVisionAdapterModel, lambda cls: cls(CLIPVisionConfig(**sizes["clip"])))
    vit_adapter_hf.convert_clip_visual_attn = lambda _: None  # the same by another kernel
    vit_adapter_hf.clip_vit_adapter_hf.__defaults__ = (
        "", sizes["clip"]["image_size"], *vit_adapter_hf.clip_vit_adapter_hf.__defaults__[2:],
    )  # fmt: skip
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    instead(sd.AutoencoderKL, lambda cls, **_: cls(**blocks, **sizes["vae"]))
    instead(sd.UNet2DConditionModel, lambda cls, **_: cls(use_linear_projection=True, **sizes["unet"]))
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    instead(sd.DDPMScheduler, lambda cls, **_: None if device == "meta" else cls(**noise))
    sd.is_xformers_available = lambda: True
    sd.UNet2DConditionModel.enable_xformers_memory_efficient_attention = lambda _: None
    shape = (1, sizes["writing"]["num_queries"], sizes["writing"]["hidden_size"])
    sd.StableDiffusion.get_negative_prompt_embeds = lambda *_, **__: torch.zeros(shape, device=device)
    with torch.device(device):
        return mm_interleaved.MMInterleaved(
            visual_tokenizer_config={"encoder_model_path": "", "perceiver_config": Attributes(sizes["reading"])},
            image_decoder_config={"seq_len": shape[1], "embed_dim": shape[2], "perceiver_config": sizes["writing"]},
            image_embed_dim=sizes["clip"]["hidden_size"],
            **sizes["whole"],
        )


def main() -> None:
    with redirect_stdout(sys.stderr):
        model = built(Path(sys.argv[1]), Path(sys.argv[2]), FULL, "meta")
    print("\n".join(compact({name: list(value.shape) for name, value in model.state_dict().items()})))


if __name__ == "__main__":
    main()

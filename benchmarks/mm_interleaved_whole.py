"""Is an imported MM-Interleaved the published one: hidden states, scores and losses of a whole model?

    pip install --target PACKAGES --no-deps transformers==4.31.0 tokenizers==0.13.3 diffusers==0.20.2 \\
        huggingface_hub==0.16.4
    python benchmarks/mm_interleaved_whole.py REFERENCE PACKAGES

REFERENCE is a checkout of github.com/OpenGVLab/MM-Interleaved; it was run at its commit ac539d0. A process of its own,
with the packages that it asks for, makes a small model by the published code, gives it weights by formula, and runs it
on a text with two images: noise, its steps, and which image is learnt without its context are given. Its state dict is
imported (`mio import`), and the same document goes through mio's batches. The last line is one JSON object; differences
are the largest of any element, of values whose standard deviation is `scale`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "tests" / "core" / "exchange"))

from mm_interleaved_keys import built
from vita_parity import compared, formula

WIDTH, CHANNELS, POSITIONS, SIDE, WRITTEN = 64, 64, 5, 64, 512
NEW = ("<|beginofimage|>", "<|image|>")
BEGIN = 1
"""Id of the token that begins a document."""
TEXTS = ("the number 7", " comes before 8; say it", " and then 9")


def sizes(ids: int) -> dict[str, dict[str, Any]]:
    """Of the published code. What it does not leave to its configuration is as published."""
    llama = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4}
    tokens = {
        "bos_token_id": BEGIN,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "soi_token_id": ids,
        "image_token_id": ids + 1,
    }
    clip = {"hidden_size": CHANNELS, "intermediate_size": 96, "num_hidden_layers": 24, "num_attention_heads": 4}
    reading = {"num_queries": POSITIONS, "hidden_size": 24, "encoder_hidden_size": CHANNELS}
    writing = {"num_queries": 7, "hidden_size": 32, "encoder_hidden_size": WIDTH}
    return {
        "llama": {**llama, "vocab_size": ids, "max_position_embeddings": 128, "rms_norm_eps": 1e-6},
        "clip": {**clip, "image_size": SIDE, "patch_size": 4},
        "vae": {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 8},
        "unet": {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": (2, 2, 4, 4), "norm_num_groups": 8}
        | {"cross_attention_dim": 32, "sample_size": 64},
        "reading": {**reading, "cross_attention_frequency": 2, "num_hidden_layers": 3, "num_attention_heads": 3}
        | {"qk_normalization": True, "intermediate_size": 48},
        "writing": {**writing, "cross_attention_frequency": 1, "num_hidden_layers": 1, "num_attention_heads": 4}
        | {"intermediate_size": 48},
        "whole": {"txt_vocab_size": ids + 2, "num_img_token": POSITIONS, "special_token_dict": tokens, "seq_len": 128},
    }


def given() -> dict[str, Tensor]:
    """Two pictures, uint8, as they are read and as they are written, and what is drawn."""
    waves = [formula(name, (2, size, size, 3)) for name, size in (("read", SIDE), ("written", WRITTEN))]
    read, written = (((wave / wave.abs().max() + 1) * 127.5).to(torch.uint8) for wave in waves)
    noise = [formula(name, (2, 4, 64, 64)) * 110 for name in ("noise", "draw")]
    return {"read": read, "written": written, "noise": noise[0], "draw": noise[1], "times": torch.tensor([250, 700])}


def reference(checkout: Path, packages: Path, folder: Path) -> None:
    """Makes the model, and what it computes."""
    task = json.loads((folder / "task.json").read_text())
    with redirect_stdout(sys.stderr):
        model = built(checkout, packages, sizes(task["ids"]), "cpu").eval()
        from mm_interleaved.models.decoders import decoder_image, sd
        from mm_interleaved.models.encoders.vit_adapter.ops.functions import ms_deform_attn_func
        from mm_interleaved.models.encoders.vit_adapter.ops.modules import ms_deform_attn
        from mm_interleaved.models.utils.ops.modules import mmfs

        core = ms_deform_attn_func.ms_deform_attn_core_pytorch
        for module in (mmfs, ms_deform_attn):
            module.MSDeformAttnFunction = SimpleNamespace(
                apply=lambda values, shapes, _, places, weights, __: core(values, shapes.tolist(), places, weights)
            )
        fixed = ("pos_embed", "clip_mean", "clip_std", "ignore_token", "position_ids", "inv_freq")
        state = {
            name: value if name.endswith(fixed) else formula(name, tuple(value.shape))
            for name, value in model.state_dict().items()
        }
        new = {"weight": torch.zeros(2, WIDTH), "bias": torch.tensor([-100.0, -100.0])}
        for name, value in new.items():
            state[f"text_decoder.head.{name}"][-2:] = value
        state["text_decoder.head.bias"][:-2] = 0
        state["text_decoder.head_new.bias"] = torch.tensor([96.5, 95.25])
        model.load_state_dict(state)
        drawn = given()
        sampled = sd.AutoencoderKL.encode

        def encode(self: Any, pixels: Tensor, **named: Any) -> Any:
            found = sampled(self, pixels, **named).latent_dist
            return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: found.mean + found.std * drawn["draw"]))

        sd.AutoencoderKL.encode = encode
        errors: list[Tensor] = []
        mse = sd.F.mse_loss

        def kept(*arguments: Any, **named: Any) -> Tensor:
            errors.append(mse(*arguments, **named))
            return errors[-1]

        sd.F = SimpleNamespace(mse_loss=kept)
        names = {"randn_like": "noise", "randint": "times"}
        for name, what in names.items():
            setattr(sd.torch, name, lambda *_, what=what, **__: drawn[what])
        decoder_image.torch.rand_like = lambda *_: torch.tensor([0.5, 0.05]).view(2, 1, 1)  # the second is dropped
        ids = torch.tensor([task["tokens"]])
        caught: dict[str, Tensor] = {}
        model.mm_decoder.register_forward_hook(lambda *call: caught.update(hidden=call[2].last_hidden_state))
        model.text_decoder.register_forward_hook(lambda *call: caught.update(logits=call[2].logits))
        with torch.no_grad():
            model(
                ids,
                drawn["read"].permute(0, 3, 1, 2) / 255,
                (drawn["written"].permute(0, 3, 1, 2) / 255).clone(),
                torch.tensor([2]),
                torch.ones_like(ids),
                meta={"dataset_name": "mmc4"},
            )
    torch.save({name: value.contiguous() for name, value in state.items()}, folder / "pytorch_model.bin")
    losses = errors[0].mean((1, 2, 3))
    torch.save({"hidden": caught["hidden"], "logits": caught["logits"], "losses": losses}, folder / "computed.pt")


def plugin(folder: Path) -> dict[str, Any]:
    """Options of the plugin."""
    return {
        "checkpoint": str(folder),
        "vision": {"image_size": SIDE, "patch": 4, "width": CHANNELS, "heads": 4, "ffn_width": 96},
        "resampler": {"positions": POSITIONS, "width": 24, "layers": 3, "heads": 3, "ffn_width": 48},
        "layers": {"width": CHANNELS},
        "perceiver": {"queries": 7, "width": 32, "heads": 4, "ffn_width": 48},
        "diffusion": {"channels": [32, 32, 64, 64], "heads": [2, 2, 4, 4], "norm_groups": 8, "images": 1}
        | {"vae_channels": [8, 8, 16, 16], "vae_layers": 1, "drop": 0.0},
    }


def ours(folder: Path, place: Path) -> dict[str, Tensor]:
    """What the imported model computes of the same document."""
    import yaml

    from mio import Media, Template
    from mio.core.contract.plugins import PluginManager
    from mio.core.data.batch import assemble
    from mio.core.exchange.reading import import_folder
    from mio.core.runs.run import Run
    from mio.core.tokens.templates import CompiledTemplate, to_document

    plugins = {"text": {}, "image": {"tokenizer": "none", "tokens": "mm_interleaved"}, "mm_interleaved": plugin(folder)}
    path = place / "whole.yaml"
    path.write_text(yaml.safe_dump({"name": "whole", "plugins": plugins}))
    manager = PluginManager.discover()
    run = Run(import_folder(folder, [str(path)], [f"runtime.runs={place / 'runs'}"], manager).folder, manager)
    drawn = given()
    texts = {f"text{number}": text for number, text in enumerate(TEXTS)}
    images = {
        f"image{number}": Media("image", one.numpy(), key=str(number)) for number, one in enumerate(drawn["written"])
    }
    template = CompiledTemplate(
        Template(direction="whole", prompt="", response="{text0}{image0}{text1}{image1}{text2}")
    )
    document = run.renderer.render(to_document({**texts, **images}, template))
    batch = assemble([[(0, document)]], len(document.tokens) - 1, 0, codecs=run.codecs)
    made, items = batch.made["image"], batch.items["image"]
    arrays = {"pixels": drawn["written"], "noise": drawn["noise"], "draw": drawn["draw"], "times": drawn["times"]}
    dropped = torch.tensor([False, True])
    batch.made["image"] = replace(made, input=made.input._replace(arrays=arrays, dropped=dropped))
    batch.items["image"] = replace(items, input=items.input.change(lambda _: drawn["read"]))
    with torch.no_grad():
        output = run.transformer(batch.tokens, batch.positions, batch.mask, items=batch.items, made=batch.made)
        logits = run.transformer.logits(output.hidden, run.vocabulary.size)
    return {"tokens": batch.tokens[0], "hidden": output.hidden, "logits": logits, "losses": output.losses["image"]}


def main() -> None:
    checkout, packages = (Path(argument).resolve() for argument in sys.argv[1:3])
    if len(sys.argv) > 3:
        reference(checkout, packages, Path(sys.argv[3]))
        return
    from repositories import write_bpe
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "MM-Interleaved"
        folder.mkdir()
        count = write_bpe(folder)
        config = {**sizes(count)["llama"], "model_type": "mm_interleaved", "vocab_size": count + 2}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "added_tokens.json").write_text(json.dumps({token: count + at for at, token in enumerate(NEW)}))
        texts = [Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids for text in TEXTS]
        image = [count, *[count + 1] * POSITIONS]
        tokens = [BEGIN, *texts[0], *image, *texts[1], *image, *texts[2]]
        (folder / "task.json").write_text(json.dumps({"ids": count, "tokens": tokens}))
        command = [sys.executable, "-W", "ignore", __file__, str(checkout), str(packages), str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        theirs = torch.load(folder / "computed.pt")
        for name in ("task.json", "computed.pt"):
            (folder / name).unlink()
        found = ours(folder, Path(place))
    length = min(len(tokens), len(found["tokens"]))
    text = torch.tensor(tokens[:length]) < count + 1
    assert (found["tokens"][:length][text] == torch.tensor(tokens[:length])[text]).all(), "another document"
    scores = torch.cat([theirs["logits"][..., :count], theirs["logits"][..., count : count + 1]], -1)
    print(
        json.dumps(
            {
                "hidden": compared(found["hidden"][:, :length], theirs["hidden"][:, :length]),
                "logits": compared(found["logits"][:, :length], scores[:, :length]),
                "losses": {**compared(found["losses"], theirs["losses"]), "theirs": theirs["losses"].tolist()},
            }
        )
    )


if __name__ == "__main__":
    main()

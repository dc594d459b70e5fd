"""The SEED image tokenizer, against the published implementation.

The networks are run at reduced width and depth with weights that `weights()` draws. `CODES` (of `pictures()`) and
`EMBEDDING` (of `CODES`: the first six values and the standard deviation of each) come from the class
`Blip2QformerQuantizer` of github.com/AILab-CVC/SEED (commit 93b3cf4, `models/seed_qformer/`) in float32 on a CPU, under
transformers 4.34.1 and torch 2.11, built with `REDUCED` instead of the constants of `create_eva_vit_g` and of
bert-base-uncased, and with `load_state_dict(..., strict=True)` of the same `weights()`, which proves their keys and
shapes too. Images went through the transform of `ImageTokenizer.processor` (torchvision: resize to 224 x 224, bicubic;
to tensor; normalise), then `get_codebook_indices`; the embeddings are `get_codebook_entry` of these codes. The shapes
at full size are those of the same class at its defaults. The entry nearest to a query is nearer than the second by at
least 1e-3 everywhere, far above float32's rounding.
"""

import importlib.util
import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from mio import DataError, UserError
from mio.plugins import image
from mio.plugins.image.seed import weights as seed_weights
from mio.plugins.image.seed.model import Dimensions, SeedDecoder, SeedEncoder
from mio.plugins.image.seed.options import SeedOptions
from mio.plugins.image.seed.qformer import CausalQFormer
from mio.plugins.image.seed.tokenizer import SeedDetokenizer, SeedTokenizer, embedding, prepared
from mio.plugins.image.seed.weights import SeedWeights, checkpoint_key

REDUCED = Dimensions(
    vision_width=64,
    vision_depth=3,
    vision_heads=4,
    vision_hidden=160,
    width=48,
    layers=4,
    heads=12,
    hidden=96,
    codes=8192,
    blocks=4,
)

# fmt: off
CODES = np.array([
    [4684, 4285, 3118, 4684, 3461, 4039, 3436, 960, 4934, 4652, 1327, 4039, 4285, 5041, 7457, 7092,
     4285, 1417, 6540, 7303, 7852, 5108, 8154, 960, 3110, 4684, 7871, 6909, 4039, 4039, 3711, 3304],
    [7582, 4285, 8154, 4285, 4285, 4039, 7880, 1819, 3304, 8154, 4039, 8154, 4285, 4039, 3162, 4684,
     3208, 4039, 4039, 3208, 5902, 4039, 4657, 5833, 6949, 7457, 8154, 5074, 4039, 1382, 2173, 3304],
    [7880, 558, 1940, 7595, 1225, 4039, 306, 7294, 359, 7860, 7601, 7601, 7302, 6753, 2019, 306,
     7469, 306, 3543, 4294, 7671, 7433, 2422, 7288, 3543, 243, 8154, 243, 4746, 4385, 2173, 1424],
    [7582, 4285, 5859, 4514, 1935, 6863, 7457, 8154, 100, 1935, 1935, 2898, 7780, 8117, 2898, 6430,
     4425, 8154, 306, 6230, 227, 4862, 6500, 1935, 2920, 2898, 8154, 5822, 974, 100, 5841, 306],
    [7582, 1819, 1417, 638, 1935, 4039, 8117, 2190, 4934, 936, 4491, 4903, 7499, 8117, 7457, 6430,
     974, 4514, 6283, 7076, 7663, 4862, 3587, 253, 5251, 3508, 6447, 1132, 6594, 724, 3826, 8117],
    [7582, 4285, 1417, 4957, 4285, 4039, 7457, 8154, 100, 4088, 2287, 5108, 2189, 6753, 3162, 7433,
     5108, 4657, 4285, 6064, 227, 5108, 4657, 1547, 5891, 7457, 3162, 2287, 5108, 4657, 5704, 3237],
])
# fmt: on
EMBEDDING = np.array(
    [
        [0.344690, 0.931866, -0.702390, 0.052860, 0.646506, -0.241587],
        [0.576181, 0.515794, -0.741024, 0.005857, 0.176218, 0.391001],
        [0.722392, 1.113689, 0.175651, -0.780752, 0.681125, -0.079053],
        [0.055747, 0.357221, -0.103346, -0.138772, 0.768225, -0.257224],
        [-0.224035, 0.626887, -0.012595, -0.851016, -0.120053, 0.355131],
        [0.113448, 0.557289, -1.008421, 0.337368, 0.113280, 0.066654],
    ]
)
EMBEDDING_STD = np.array([0.905685, 0.983105, 1.032823, 0.926093, 0.866494, 0.859002])


def shapes(size: Dimensions) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Keys and shapes of `eva_vit_g.pth` and of what both directions need of `seed_quantizer.pt`."""
    V, D, H = size.vision_width, size.width, size.hidden
    vision: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, V),
        "pos_embed": (1, 257, V),
        "patch_embed.proj.weight": (V, 3, 14, 14),
        "patch_embed.proj.bias": (V,),
    }

    def linear(table, name, outputs, inputs, bias=True):
        table[f"{name}.weight"] = (outputs, inputs)
        if bias:
            table[f"{name}.bias"] = (outputs,)

    def norm(table, name, width):
        table[f"{name}.weight"] = table[f"{name}.bias"] = (width,)

    for index in range(size.vision_depth):
        block = f"blocks.{index}"
        norm(vision, f"{block}.norm1", V)
        vision[f"{block}.attn.q_bias"] = vision[f"{block}.attn.v_bias"] = (V,)
        linear(vision, f"{block}.attn.qkv", 3 * V, V, bias=False)
        linear(vision, f"{block}.attn.proj", V, V)
        norm(vision, f"{block}.norm2", V)
        linear(vision, f"{block}.mlp.fc1", size.vision_hidden, V)
        linear(vision, f"{block}.mlp.fc2", V, size.vision_hidden)

    quantizer: dict[str, tuple[int, ...]] = {"query_tokens": (1, 32, D), "pos_embed_image": (1, 32, D)}
    norm(quantizer, "ln_vision", V)
    norm(quantizer, "Qformer.bert.embeddings.LayerNorm", D)
    for index in range(size.layers):
        layer = f"Qformer.bert.encoder.layer.{index}"
        for attention, context in (("attention", D), *((("crossattention", V),) if index % 2 == 0 else ())):
            linear(quantizer, f"{layer}.{attention}.self.query", D, D)
            linear(quantizer, f"{layer}.{attention}.self.key", D, context)
            linear(quantizer, f"{layer}.{attention}.self.value", D, context)
            linear(quantizer, f"{layer}.{attention}.output.dense", D, D)
            norm(quantizer, f"{layer}.{attention}.output.LayerNorm", D)
        linear(quantizer, f"{layer}.intermediate_query.dense", H, D)
        linear(quantizer, f"{layer}.output_query.dense", D, H)
        norm(quantizer, f"{layer}.output_query.LayerNorm", D)
    linear(quantizer, "encode_task_layer.0", D, D)
    linear(quantizer, "encode_task_layer.2", 32, D)
    quantizer["quantize.embedding.weight"] = (size.codes, 32)
    linear(quantizer, "decode_task_layer.0", 32, 32)
    linear(quantizer, "decode_task_layer.2", D, 32)
    for index in range(size.blocks):
        block = f"blocks_image.{index}"
        norm(quantizer, f"{block}.norm1", D)
        linear(quantizer, f"{block}.attn.qkv", 3 * D, D)
        linear(quantizer, f"{block}.attn.proj", D, D)
        norm(quantizer, f"{block}.norm2", D)
        linear(quantizer, f"{block}.mlp.fc1", 4 * D, D)
        linear(quantizer, f"{block}.mlp.fc2", D, 4 * D)
    for name, outputs, inputs in (("0", 256, D), ("2", 128, 256), ("4", 32, 128)):
        linear(quantizer, f"image_down.{name}", outputs, inputs, bias=False)
    linear(quantizer, "distill_image_proj", 1024, 1024)
    return vision, quantizer


def surplus(size: Dimensions) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Keys that the two files hold beside those needed: a sample of each kind."""
    V, D = size.vision_width, size.width
    vision = {
        f"blocks.{size.vision_depth}.norm1.weight": (V,),
        f"blocks.{size.vision_depth}.attn.q_bias": (V,),
        "norm.weight": (V,),
        "head.weight": (D, V),
    }
    quantizer = {
        "Qformer.bert.embeddings.position_ids": (1, 512),
        "Qformer.bert.embeddings.word_embeddings.weight": (30, D),
        "Qformer.bert.encoder.layer.1.intermediate.dense.weight": (2 * D, D),
        "Qformer.bert.encoder.layer.1.output.LayerNorm.bias": (D,),
        "Qformer.cls.predictions.bias": (30,),
        "pos_embed": (1, 32, D),
        "blocks.0.norm1.weight": (D,),
        "blocks_text.3.mlp.fc1.bias": (4 * D,),
        "distill_text_proj.weight": (D, D),
    }
    return vision, quantizer


GAINS = {
    "crossattention.self.query": 5.0,
    "crossattention.output.dense": 1.0,
    "attention.output.dense": 0.5,
    "output_query": 0.7,
    "encode_task_layer.2": 4.0,
    "encode_task_layer.0": 2.5,
}


def drawn(table: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Weights large enough that every part of the networks shows in the codes."""
    generator = np.random.default_rng(seed)
    made = {}
    for key, shape in table.items():
        values = generator.standard_normal(shape)
        if "quantize" in key:
            # on a sphere: else a few entries near the middle are nearest to everything
            values, scale, offset = values / np.linalg.norm(values, axis=1, keepdims=True), 8.0, 0.0
        elif "query_tokens" in key:
            scale, offset = 1.0, 0.0
        elif len(shape) == 1:
            scale, offset = 0.1, float(key.endswith("weight"))
        elif "pos_embed" in key or "cls_token" in key:
            scale, offset = 0.3, 0.0
        else:
            gain = next((value for part, value in GAINS.items() if part in key), 1.0)
            scale, offset = gain / np.prod(shape[1:]) ** 0.5, 0.0
        made[key] = torch.from_numpy((offset + scale * values).astype(np.float32))
    return made


def weights(size: Dimensions = REDUCED) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What `eva_vit_g.pth` and `seed_quantizer.pt` hold, at reduced size."""
    vision, quantizer = shapes(size)
    return drawn(vision, 1), drawn(quantizer, 2)


def pictures() -> list[np.ndarray]:
    """Six images: RGB of several shapes, one of 224 x 224, one grey."""
    generator = np.random.default_rng(3)
    sides = [(5, 7), (6, 4), (3, 3), (300, 200), (224, 224)]
    return [
        *(generator.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides),
        generator.integers(0, 256, (8, 5), dtype=np.uint8),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder at reduced size, with surplus keys of every known kind; `eva_vit_g.pth` in float16."""
    made = tmp_path_factory.mktemp("seed")
    write(made)
    return made


def write(made, vision=None, quantizer=None):
    """Writes the two files, with changes: keys to add or replace, or to leave out where the value is None."""
    made.mkdir(exist_ok=True)
    for file, content, more, changes in zip(
        ("eva_vit_g.pth", "seed_quantizer.pt"), weights(), surplus(REDUCED), (vision, quantizer), strict=True
    ):
        tensors = content | {key: torch.full(shape, torch.nan) for key, shape in more.items()} | (changes or {})
        torch.save({key: value for key, value in tensors.items() if value is not None}, made / file)


def tokenizer(folder, **options):
    return SeedTokenizer(SeedOptions(checkpoint=str(folder), device="cpu", **options), REDUCED)


def decoder(folder):
    options = SeedOptions(checkpoint=str(folder))
    return SeedWeights.open(options, REDUCED, vision=False).load(
        SeedDecoder, REDUCED, torch.device("cpu"), torch.float32
    )


@pytest.fixture(scope="module")
def encoded(folder):
    return tokenizer(folder)


def test_codes_are_those_of_the_published_implementation(encoded):
    codes = encoded.encode(pictures())
    assert all(item.shape == (1, 32) and item.dtype == np.int64 for item in codes)
    assert np.array_equal(np.concatenate(codes), CODES)
    assert encoded.frames(pictures()[0]) == 32


def test_embeddings_are_those_of_the_published_implementation(folder):
    network = decoder(folder)
    made = np.concatenate([embedding(network, row[None]).numpy() for row in CODES])
    assert made.shape == (6, 1024)
    assert np.abs(made[:, :6] - EMBEDDING).max() < 1e-5
    assert np.abs(made.std(axis=1) - EMBEDDING_STD).max() < 1e-5


def test_codes_do_not_depend_on_the_batch(folder):
    together = tokenizer(folder, batch_size=4).encode(pictures())
    backwards = tokenizer(folder, batch_size=4).encode(pictures()[::-1])[::-1]
    assert np.array_equal(np.concatenate(together), CODES)
    assert np.array_equal(np.concatenate(backwards), CODES)
    assert tokenizer(folder, batch_size=4).encode([]) == []


def test_codes_do_not_depend_on_what_a_training_run_switches_on(encoded):
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(encoded.encode(pictures()[:1])[0][0], CODES[0])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_networks_run_in_the_dtype_asked_for(folder, dtype, torch_dtype):
    made = tokenizer(folder, dtype=dtype)
    assert {value.dtype for name, value in made.encoder.named_parameters() if "quantize" not in name} == {torch_dtype}
    assert made.encoder.quantize.weight.dtype == torch.float32
    assert np.mean(np.concatenate(made.encode(pictures())) == CODES) > 0.9


def test_a_query_sees_only_the_earlier_ones():
    torch.manual_seed(0)
    former = CausalQFormer(width=48, layers=4, heads=12, hidden=96, features=20).eval()
    queries, features = torch.randn(1, 32, 48), torch.randn(1, 9, 20)
    changed = queries.clone()
    changed[:, 20] += 1
    before, after = former(queries, features), former(changed, features)
    assert torch.equal(before[:, :20], after[:, :20])
    assert (before[:, 20:] != after[:, 20:]).any(dim=-1).all()


def test_pixels_are_prepared_as_asked():
    picture = pictures()[0]
    bicubic = prepared(picture, SeedOptions())
    assert bicubic.shape == (3, 224, 224)
    assert bicubic.dtype == torch.float32
    assert not torch.equal(prepared(picture, SeedOptions(resize="bilinear")), bicubic)
    grey = prepared(np.full((3, 3), 51, np.uint8), SeedOptions(mean=(0.0, 0.2, 0.1), std=(1.0, 1.0, 0.5)))
    assert torch.allclose(grey.mean((1, 2)), torch.tensor([0.2, 0.0, 0.2]), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_arrays_that_are_no_images_are_refused(wrong):
    with pytest.raises(DataError, match=r"uint8 \[H, W\]"):
        prepared(wrong, SeedOptions())


def test_full_size_has_the_keys_and_shapes_of_the_published_class():
    with torch.device("meta"):
        networks = SeedEncoder(Dimensions()), SeedDecoder(Dimensions())
    ours = {checkpoint_key(name): tuple(p.shape) for network in networks for name, p in network.named_parameters()}
    vision, quantizer = shapes(Dimensions())
    assert ours == {f"visual_encoder.{key}": shape for key, shape in vision.items()} | quantizer
    # counted on the published class: 985.9 M in the vision tower, 164 M elsewhere, 28.4 M of which in training alone
    assert sum(np.prod(shape) for shape in vision.values()) == 985_894_528
    assert sum(np.prod(shape) for shape in quantizer.values()) == 135_727_936


def test_layout_of_the_mio_model_repositories(folder, encoded, tmp_path):
    (tmp_path / "seed-tokenizer-2").symlink_to(folder)
    assert tokenizer(tmp_path).fingerprint == encoded.fingerprint
    files = {"quantizer": str(folder / "seed_quantizer.pt"), "vision": str(folder / "eva_vit_g.pth")}
    assert SeedTokenizer(SeedOptions(**files), REDUCED).fingerprint == encoded.fingerprint


def test_fingerprint_tells_weights_and_preparation_apart(folder, encoded, tmp_path):
    vision, quantizer = weights()
    projection = {"distill_image_proj.weight": quantizer["distill_image_proj.weight"] * 2}
    write(tmp_path / "decoder", quantizer=projection)
    assert encoded.fingerprint == tokenizer(folder, batch_size=3).fingerprint
    assert encoded.fingerprint == tokenizer(tmp_path / "decoder").fingerprint
    others = {
        tokenizer(folder, **options).fingerprint
        for options in ({"dtype": "bf16"}, {"resize": "bilinear"}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)})
    }
    codebook = quantizer["quantize.embedding.weight"].clone()
    codebook[4711, 3] += 1e-6
    write(tmp_path / "codebook", quantizer={"quantize.embedding.weight": codebook})
    write(tmp_path / "tower", vision={"blocks.1.attn.q_bias": vision["blocks.1.attn.q_bias"] * 1.001})
    write(tmp_path / "half", vision={key: value.half() for key, value in vision.items()})
    others |= {tokenizer(tmp_path / name).fingerprint for name in ("codebook", "tower", "half")}
    assert len(others | {encoded.fingerprint}) == 8


def test_fingerprint_samples_large_tensors(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(seed_weights, "SAMPLED_ABOVE", 1000)
    key = "Qformer.bert.encoder.layer.2.crossattention.self.key.weight"
    values = weights()[1][key]
    assert values.numel() > 1000
    ends = values.clone()
    ends[-1, -1] += 1
    write(tmp_path / "all", quantizer={key: values * 1.001})
    write(tmp_path / "last", quantizer={key: ends})
    assert len({tokenizer(made).fingerprint for made in (folder, tmp_path / "all", tmp_path / "last")}) == 3


@pytest.mark.parametrize(
    ("vision", "quantizer", "message"),
    [
        ({}, {"image_down.2.weight": None}, r"seed_quantizer.pt: missing: image_down.2.weight; is it"),
        ({"blocks.2.attn.v_bias": None}, {}, r"eva_vit_g.pth: missing: blocks.2.attn.v_bias; is it"),
        ({}, {"query_tokens": torch.zeros(1, 16, 48)}, r"query_tokens \[1, 16, 48\] instead of \[1, 32, 48\]"),
        ({}, {"Qformer.bert.encoder.layer.4.attention.self.query.bias": torch.zeros(48)}, "unknown: Qformer.*layer.4"),
        ({}, {"blocks_image.4.norm1.weight": torch.zeros(48)}, "unknown: blocks_image.4.norm1.weight.*`ignore_keys`"),
        ({"blocks.4.norm1.weight": torch.zeros(64)}, {}, "unknown: blocks.4.norm1.weight"),
        ({"blocks.0.attn.k_bias": torch.zeros(64)}, {}, "unknown: blocks.0.attn.k_bias"),
        ({"pos_embed": torch.zeros(1, 577, 64)}, {}, "577 positions.*224 only"),
    ],
)
def test_checkpoints_of_another_architecture_are_refused_by_key(tmp_path, vision, quantizer, message):
    write(tmp_path, vision, quantizer)
    with pytest.raises(UserError, match=message):
        tokenizer(tmp_path)


def test_unknown_keys_can_be_ignored_by_their_beginning(tmp_path, encoded):
    write(tmp_path, quantizer={"extra_head.weight": torch.zeros(3), "extra_head.bias": torch.zeros(3)})
    assert tokenizer(tmp_path, ignore_keys=["extra_head."]).fingerprint == encoded.fingerprint


def test_keys_that_many_are_missing_are_not_all_listed(tmp_path):
    write(tmp_path, quantizer={key: None for key in weights()[1] if key.startswith("Qformer")})
    with pytest.raises(UserError, match=r"and \d+ more") as caught:
        tokenizer(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_hold_more_than_tensors_are_refused(tmp_path, capsys):
    write(tmp_path)

    class Harmful:
        def __reduce__(self):
            return (print, ("executed",))

    for content in (b"not a checkpoint", pickle.dumps({"query_tokens": Harmful()}, protocol=2), b""):
        (tmp_path / "seed_quantizer.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"seed_quantizer.pt: not a checkpoint of tensors"):
            tokenizer(tmp_path)
    assert "executed" not in capsys.readouterr().out
    torch.save({"model": weights()[1]}, tmp_path / "seed_quantizer.pt")
    with pytest.raises(UserError, match="holds more than tensors by name"):
        tokenizer(tmp_path)


def test_files_of_the_format_before_torch_1_6(tmp_path, encoded):
    write(tmp_path)
    for file, content in zip(("eva_vit_g.pth", "seed_quantizer.pt"), weights(), strict=True):
        torch.save(content, tmp_path / file, _use_new_zipfile_serialization=False)
    assert tokenizer(tmp_path).fingerprint == encoded.fingerprint


@pytest.mark.parametrize(
    ("missing", "source"),
    [("seed_quantizer.pt", "AILab-CVC/seed-tokenizer-2"), ("eva_vit_g.pth", "LAVIS/models/BLIP2")],
)
def test_missing_files_are_named_with_their_source(tmp_path, missing, source):
    write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"no {missing} in .* or .*seed-tokenizer-2; .*{source}"):
        tokenizer(tmp_path)


def test_the_plugin_offers_it(folder):
    with pytest.raises(UserError, match="set `checkpoint`"):
        image.mio_tokenizer("image", {})
    with pytest.raises(UserError, match=r"`vision`: /nowhere does not exist; .*BLIP2/eva_vit_g.pth"):
        image.mio_tokenizer("image", {"checkpoint": str(folder), "vision": "/nowhere"})
    with pytest.raises(UserError, match=r"of another shape.*of SEED version 2\?"):
        image.mio_tokenizer("image", {"tokenizer": "seed", "checkpoint": str(folder)})
    assert image.mio_detokenizer("speech", {}) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "`dtype` is `int8`, not one of `float32`, `bf16`, `fp16`"),
        ({"resize": "nearest"}, "`resize`"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"steps": 0}, "`steps` is 0"),
        ({"std": [1.0, 0.0, 1.0]}, "`std`"),
        ({"mean": [0.5]}, "`mean`"),
        ({"mean": 0.5}, "must be a"),
        ({"batch_size": "many"}, "must be a"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        image.mio_modalities(options)


def test_devices_that_are_not_there_are_refused(folder):
    with pytest.raises(UserError, match="`device` is 'gpu'"):
        SeedTokenizer(SeedOptions(checkpoint=str(folder), device="gpu"), REDUCED)


@pytest.mark.parametrize("codes", [np.zeros((1, 31)), np.full((1, 32), 8192), np.full((1, 32), -1), np.zeros((2, 32))])
def test_codes_that_are_no_image_are_refused(folder, codes):
    with pytest.raises(DataError, match="codes"):
        embedding(decoder(folder), codes.astype(np.int64))


def test_detokenizer_says_what_is_missing(folder, tmp_path, monkeypatch):
    def made(**options):
        return SeedDetokenizer(SeedOptions(checkpoint=str(folder), device="cpu", **options), REDUCED)

    with pytest.raises(UserError, match=r"no stable-diffusion-2-1-unclip in .*m-a-p/MIO-7B-Base"):
        made()
    with pytest.raises(UserError, match=r"model_index.json"):
        made(unclip=str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"mio\[seed\]"):
        made(unclip=str(tmp_path))


@pytest.fixture(scope="module")
def unclip(tmp_path_factory):
    """A pipeline of the unCLIP architecture with small random networks: images of 32 x 32 pixels."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    made = tmp_path_factory.mktemp("unclip")
    words = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (made / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (made / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    torch.manual_seed(0)
    networks = {
        "unet": diffusers.UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=(2, 4),
            cross_attention_dim=32,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * 1024,
            layers_per_block=1,
        ),
        "vae": diffusers.AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            latent_channels=4,
            sample_size=32,
        ),
        "text_encoder": transformers.CLIPTextModel(
            transformers.CLIPTextConfig(vocab_size=4, bos_token_id=0, eos_token_id=1, pad_token_id=1, **sizes)
        ),
        "image_encoder": transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=1024, **sizes)
        ),
    }
    diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
        image_normalizer=diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(embedding_dim=1024),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=transformers.CLIPTokenizer(str(made / "vocab.json"), str(made / "merges.txt"), model_max_length=8),
        scheduler=diffusers.DDIMScheduler(),
        **{name: network.eval() for name, network in networks.items()},
    ).save_pretrained(made / "stable-diffusion-2-1-unclip")
    return made / "stable-diffusion-2-1-unclip"


def test_codes_are_drawn_the_same_every_time(folder, unclip, tmp_path):
    def drawn(codes=CODES[0], **options):
        options = {"checkpoint": str(folder), "unclip": str(unclip), "device": "cpu", "steps": 2} | options
        detokenizer = SeedDetokenizer(SeedOptions(**options), REDUCED)
        return detokenizer, detokenizer.decode(codes[None])

    detokenizer, picture = drawn()
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(detokenizer.decode(CODES[0][None]), picture)
    for other in ({"codes": CODES[1]}, {"seed": 1}, {"guidance": 1.0}, {"steps": 3}, {"noise_level": 500}):
        assert not np.array_equal(drawn(**other)[1], picture)
    path = detokenizer.save(picture, tmp_path / "image.0")
    assert path == tmp_path / "image.0.png"
    assert np.array_equal(image.mio_datamodule("image", {}).read(path), picture)


def test_unclip_folders_that_bring_code_or_lack_a_part_are_refused(folder, unclip, tmp_path):
    def refused(config, message):
        (made / "model_index.json").write_text(json.dumps(config))
        detokenizer = SeedDetokenizer(SeedOptions(checkpoint=str(folder), unclip=str(made), device="cpu"), REDUCED)
        with pytest.raises(UserError, match=message) as caught:
            detokenizer.decode(CODES[:1])
        assert len(str(caught.value).splitlines()) == 1

    made = tmp_path / "unclip"
    shutil.copytree(unclip, made)
    index = json.loads((made / "model_index.json").read_text())
    code = f"open({str(tmp_path / 'executed')!r}, 'w').close()"
    (made / "harmful.py").write_text(code)
    (made / "unet" / "harmful.py").write_text(code)
    refused(index | {"_class_name": ["harmful", "Pipeline"]}, "custom code")
    refused(index | {"unet": ["harmful", "Network"]}, "custom code")
    assert not (tmp_path / "executed").exists()
    refused({key: value for key, value in index.items() if key != "image_normalizer"}, "image_normalizer")


def test_defaults_are_those_of_the_published_decoder():
    """`ImageTokenizer.decode` and `StableUnCLIPImg2ImgPipeline.__call__` of github.com/AILab-CVC/SEED."""
    options = SeedOptions()
    assert (options.steps, options.guidance, options.noise_level) == (20, 10.0, 0)

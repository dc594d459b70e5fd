"""The music plugin: declaration and clips, and its codec against `EncodecModel` of transformers.

Checkpoints are random, of reduced width and in the layout of facebook/encodec_32khz; the first codebook holds features
of the encoder, so that many codes occur.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import FakeCodecs, FakeText
from safetensors.torch import load_file, save_file
from scipy.signal import resample_poly
from transformers import EncodecConfig, EncodecModel

import mio.testing
from mio import Codes, DataError, Media, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.documents import interleaved_document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins import music

CONFIG = {
    # what config.json of facebook/encodec_32khz says, but for widths and layers of the LSTM
    "target_bandwidths": [2.2],
    "sampling_rate": 32000,
    "audio_channels": 1,
    "normalize": False,
    "chunk_length_s": None,
    "overlap": None,
    "upsampling_ratios": [8, 5, 4, 4],
    "use_causal_conv": False,
    "use_conv_shortcut": False,
    "pad_mode": "reflect",
    "codebook_size": 2048,
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_dim": 8,
    "num_lstm_layers": 1,
}


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = EncodecModel(EncodecConfig(**CONFIG)).eval()
    with torch.no_grad():
        features = made.encoder(torch.from_numpy(noise(2048 * 640, seed=9))[None, None])[0].T
        for level, layer in enumerate(made.quantizer.layers):
            rest = torch.randn(2048, 8) * features.std(0) * 0.5**level
            layer.codebook.embed.copy_(rest if level else features)
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    made = tmp_path_factory.mktemp("encodec")
    model.save_pretrained(made)
    return made


def tokenizer(folder, **options):
    return music.mio_tokenizer("music", {"checkpoint": str(folder), **options})


def detokenizer(folder, **options):
    return music.mio_detokenizer("music", {"checkpoint": str(folder), **options})


@pytest.fixture(scope="module")
def codec(folder):
    return tokenizer(folder)


@torch.inference_mode()
def reference_codes(model, samples):
    found = model.encode(torch.from_numpy(samples)[None, None]).audio_codes
    assert found.shape[:3] == (1, 1, 4)
    return found[0, 0].numpy()


# --- declaration


def test_plugin_module_is_light():
    heavy = {"torch", "scipy", "transformers", "soundfile"}
    code = f"import mio.plugins.music, sys; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_declaration():
    (declared,) = music.mio_modalities({})
    assert (declared.begin, declared.end, declared.code_token) == ("<music>", "</music>", "<music{}>")
    assert (declared.codebooks, declared.layout) == ((2048,) * 4, "frame_major")
    assert declared.view("understand") == declared.view("generate") == (0, 1, 2, 3)
    assert declared.frames.maximum == 250
    (other,) = music.mio_modalities({"layout": "delayed", "max_seconds": 0.58})
    assert (other.layout, other.frames.maximum) == ("delayed", 29)


def test_five_seconds_are_a_thousand_tokens_in_the_order_of_anygpt(codec):
    # github.com/OpenMOSS/AnyGPT, its samples: music has 1,000 tokens, their numbers // 2048 go 0, 1, 2, 3, 0, 1, 2, 3
    (declared,) = music.mio_modalities({"tokens": "anygpt"})
    text = mio.Modality(name="text", text=True)
    vocabulary = Vocabulary.build(FakeText(), [("text", text), ("music", declared)])
    [codes] = codec.encode([(noise(5 * 32000), 32000)])
    rendered = Renderer(vocabulary, FakeCodecs(), LossConfig()).render(interleaved_document([Codes("music", codes)]))
    begin, *tokens, end = [vocabulary.token(index) for index in rendered.tokens[1:-1]]
    assert (begin, end) == ("<somu>", "<eomu>")
    numbers = np.array([int(token.removeprefix("<🎶").removesuffix(">")) for token in tokens])
    assert len(numbers) == 1000
    assert (numbers // 2048).tolist() == [0, 1, 2, 3] * 250
    # how AnyGPT decodes: modulo 2048, four to a frame
    assert np.array_equal((numbers % 2048).reshape(-1, 4).T, codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 5}, "has no option `seconds`; did you mean `max_seconds`\\?; it has checkpoint, max_seconds"),
        ({"max_seconds": 0}, "`max_seconds` is 0"),
        ({"too_long": "split"}, "`too_long` is `split`, not one of `error`, `truncate`"),
        ({"tokens": "gpt"}, "`tokens` is `gpt`, not one of `mio`, `anygpt`"),
        ({"dtype": "int8"}, "`dtype` is `int8`, not one of `float32`, `bf16`, `fp16`"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        music.mio_modalities(options)


def test_other_modalities_are_left_to_others():
    assert music.mio_tokenizer("speech", {}) is None
    assert music.mio_detokenizer("speech", {}) is None
    assert music.mio_datamodule("speech", {}) is None


def test_templates_and_filters_go_with_those_of_speech(folder):
    options = {"speech": {"tokenizer": "mel_rvq"}, "music": {"checkpoint": str(folder)}}
    plugins = PluginManager.discover().enable(options)
    assert {name for name, (owner, _) in plugins.templates().items() if owner == "music"} == set(music.TEMPLATES)
    assert [name for name, (owner, _) in plugins.filters().items() if owner == "music"] == ["music_max_seconds"]


# --- codec


def test_codes_and_samples_are_those_of_transformers(model, folder, codec):
    back, seen = detokenizer(folder), set()
    items = [noise(length, seed) for seed, length in enumerate((32000, 32001, 31999, 639, 1, 12345))]
    for item, codes in zip(items, codec.encode([(item, 32000) for item in items]), strict=True):
        assert codes.shape == (4, -(-len(item) // 640))
        assert np.array_equal(codes, reference_codes(model, item))
        seen |= set(codes[0].tolist())
        for books in (4, 1):
            samples, rate = back.decode(codes[:books])
            with torch.inference_mode():
                expected = model.decode(torch.from_numpy(codes[None, None, :books]), [None]).audio_values[0, 0]
            assert rate == 32000
            assert samples.shape == (640 * codes.shape[1],)
            # but for the order of sums: the codec decodes in blocks
            assert np.abs(samples - expected.clamp(-1, 1).numpy()).max() < 1e-6
    assert len(seen) > 50


@pytest.fixture(scope="module")
def back(folder):
    return detokenizer(folder)


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 60), data=st.data())
def test_a_stream_gives_the_same_samples(back, frames, data):
    codes = np.random.default_rng(frames).integers(0, 2048, (data.draw(st.sampled_from([1, 4])), frames))
    samples, rate = back.decode(codes)
    stream, pieces, begin = back.stream(), [], 0
    while begin < frames:
        end = begin + data.draw(st.integers(1, 30))
        pieces.append(stream.push(codes[:, begin:end]))
        begin = end
    given = [piece for piece in [*pieces, stream.finish()] if piece]
    assert {piece[1] for piece in given} == {rate}
    assert np.array_equal(np.concatenate([piece[0] for piece in given]), samples)


def test_the_first_samples_come_with_the_fourth_frame(back):
    codes = np.random.default_rng(0).integers(0, 2048, (4, 40))
    stream, whole = back.stream(), back.decode(codes)[0]
    given = [stream.push(codes[:, frame : frame + 1]) for frame in range(40)]
    assert [frame + 1 for frame, piece in enumerate(given) if piece] == [4, 8, 16, 32]
    found = np.concatenate([piece[0] for piece in given if piece])
    assert np.array_equal(found, whole[: len(found)])  # no later frame changes them


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 30_000), rate=st.integers(8000, 48_000))
def test_frames_foretell_the_codes(codec, length, rate):
    item = (noise(length), rate)
    resampled = item[0] if rate == 32000 else resample_poly(item[0], 32000, rate)
    [codes] = codec.encode([item])
    assert codec.frames(item) == codes.shape[1] == -(-len(resampled) // 640)


def test_any_rate_and_channels(model, codec):
    wide = noise(2 * 44100).reshape(-1, 2)
    [codes] = codec.encode([(wide, 44100)])
    mono = resample_poly(wide.mean(axis=1), 320, 441).astype(np.float32)
    assert np.array_equal(codes, reference_codes(model, mono))


def test_integers_are_scaled(codec):
    whole = (noise(6400) * 2**15).astype(np.int16)
    assert np.array_equal(codec.encode([(whole, 32000)])[0], codec.encode([(whole / 2**15, 32000)])[0])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_other_dtypes_come_close(model, folder, dtype):
    item = noise(32000)
    expected = reference_codes(model, item)
    [codes] = tokenizer(folder, dtype=dtype).encode([(item, 32000)])
    # entries of a random codebook lie close together; by chance 1 in 2048 would agree
    assert (codes[0] == expected[0]).mean() > 0.2
    with torch.inference_mode():
        exact = model.decode(torch.from_numpy(expected[None, None]), [None]).audio_values[0, 0].numpy()
    samples, _ = detokenizer(folder, dtype=dtype).decode(expected)
    assert np.abs(samples - exact).max() < 0.05 * np.abs(exact).max()


def test_conformance(folder):
    samples = [(noise(length, length), rate) for length, rate in ((900, 32000), (32000, 32000), (9000, 16000))]
    mio.testing.check_plugin("music", {"checkpoint": str(folder)}, samples={"music": samples})


def test_media_that_are_none(codec):
    wrong = [
        (None, "pair of samples and rate"),
        ((np.zeros(0, np.float32), 32000), "samples"),
        ((np.zeros((2, 2, 2), np.float32), 32000), "samples"),
        ((np.zeros(100, np.float32), 3.5), "rate of music"),
        ((np.full(100, np.nan, np.float32), 32000), "not finite"),
    ]
    for media, message in wrong:
        with pytest.raises(DataError, match=message):
            codec.encode([media])


def test_codes_that_cannot_be_decoded(folder):
    back = detokenizer(folder)
    for codes in (np.zeros((5, 3), int), np.zeros((4, 0), int), np.zeros(4, int)):
        with pytest.raises(DataError, match=r"music has codes \[1..4, frames\]"):
            back.decode(codes)
    with pytest.raises(DataError, match=r"0..2047, these reach 0..2048"):
        back.decode(np.array([[0, 2048]]))


def test_saved_music(folder, tmp_path):
    back = detokenizer(folder)
    media = back.decode(np.zeros((4, 5), int))
    path = back.save(media, tmp_path / "answer")
    samples, rate = soundfile.read(path)
    assert (path.name, rate, samples.shape) == ("answer.wav", 32000, (3200,))
    assert np.abs(samples - media[0]).max() <= 2**-15


# --- length


def test_too_long_is_an_error_or_cut(folder, codec, tmp_path):
    item = (noise(2 * 11025), 11025)
    with pytest.raises(DataError, match=r"2.00 s is longer than 1.5 s; .*`too_long: truncate`"):
        tokenizer(folder, max_seconds=1.5).encode([item])
    cutting = tokenizer(folder, max_seconds=1.5, too_long="truncate")
    [codes] = cutting.encode([item])
    assert codes.shape == (4, 75) == (4, cutting.frames(item))
    assert np.array_equal(codes, codec.encode([(item[0][: 75 * 11025 // 50], 11025)])[0])

    path = tmp_path / "long.wav"
    soundfile.write(path, *item, subtype="FLOAT")
    with pytest.raises(DataError, match=r"lasts 2.00 s, longer than 1.5 s; .*`too_long: truncate`"):
        music.mio_datamodule("music", {"max_seconds": 1.5}).read(path)
    samples, rate = music.mio_datamodule("music", {"max_seconds": 1.5, "too_long": "truncate"}).read(path)
    assert len(samples) == 16538  # 1.5 s, rounded up: no more is read
    assert np.array_equal(cutting.encode([(samples, rate)])[0], codes)


def test_filter_by_duration(tmp_path):
    path = tmp_path / "two.wav"
    soundfile.write(path, noise(64000), 32000)
    drop = music.mio_datamodule("music", {"max_seconds": 1}).filters["music_max_seconds"]
    two = {"music": Media("music", path, "two"), "caption": "calm"}
    assert drop(two, {}) == "music longer than 1 s"
    assert drop(two, {"seconds": 2}) == ""
    assert drop({"music": [Media("music", (noise(900), 1000), "short")]}, {}) == ""
    assert drop({"music": Codes("music", np.zeros((4, 51), int))}, {}) == "music longer than 1 s"
    assert drop({"messages": [{"role": "user", "content": [two["music"]]}]}, {}) == "music longer than 1 s"
    assert drop({"speech": Media("speech", path, "two")}, {}) == ""
    with pytest.raises(UserError, match="no option `length`"):
        drop(two, {"length": 1})


# --- files


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sound_files(suffix, tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, np.stack([tone, tone], axis=1), 44100)
    samples, rate = music.mio_datamodule("music", {}).read(path)
    assert (rate, samples.shape[1], samples.dtype) == (44100, 2, np.float32)
    assert np.abs(np.fft.rfft(samples[10_000:30_000, 0])).argmax() * 44100 / 20_000 == pytest.approx(440, abs=3)


def test_files_that_cannot_be_read(tmp_path):
    read = music.mio_datamodule("music", {}).read
    whole = tmp_path / "whole.flac"
    soundfile.write(whole, noise(20000), 32000)
    for name, content in {"empty.wav": b"", "text.wav": b"no sound", "cut.flac": whole.read_bytes()[:9000]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "missing.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 8000)
    with pytest.raises(DataError, match="no samples"):
        read(tmp_path / "none.wav")
    soundfile.write(tmp_path / "wide.wav", np.zeros((10, 9), np.float32), 8000)
    with pytest.raises(DataError, match="9 channels"):
        read(tmp_path / "wide.wav")


# --- checkpoints


def copy(folder, target, tensors=None, **changes):
    target.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    save_file(tensors or load_file(folder / "model.safetensors"), target / "model.safetensors")
    return target


def refused(options, *parts):
    for make in (music.mio_tokenizer, music.mio_detokenizer):
        with pytest.raises(UserError) as caught:
            make("music", options)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert part in str(caught.value)


def test_names_of_the_published_file(folder, codec, tmp_path):
    # facebook/encodec_32khz was saved when torch called the halves of a normalised weight `weight_g` and `weight_v`
    new = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = {}
    for name, value in load_file(folder / "model.safetensors").items():
        for now, before in new.items():
            name = name.replace(now, before)  # noqa: PLW2901
        tensors[name] = value
    assert sum(name.endswith("weight_g") for name in tensors) > 10
    old = copy(folder, tmp_path / "old", tensors)
    assert tokenizer(old).fingerprint == codec.fingerprint
    item = (noise(6400), 32000)
    assert np.array_equal(tokenizer(old).encode([item])[0], codec.encode([item])[0])


def test_fingerprint_is_of_what_makes_codes(folder, codec, tmp_path):
    def other(name="", config=None, **options):
        tensors = load_file(folder / "model.safetensors")
        if name:
            tensors[name].view(-1)[-1] += 1e-3
        return tokenizer(copy(folder, tmp_path / "other", tensors, **(config or {})), **options).fingerprint

    assert other() == codec.fingerprint
    assert other("decoder.layers.0.conv.bias") == codec.fingerprint
    assert other(max_seconds=3) == codec.fingerprint
    assert other(config={"_name_or_path": "elsewhere", "transformers_version": "4.31.0"}) == codec.fingerprint
    changes = [
        other(config={"pad_mode": "constant"}),
        other("encoder.layers.0.conv.bias"),
        other("quantizer.layers.3.codebook.embed"),
        other(dtype="bf16"),
        other(too_long="truncate"),
        other(too_long="truncate", max_seconds=3),
    ]
    assert len({codec.fingerprint, *changes}) == 7


def test_loading_leaves_the_random_state_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    tokenizer(folder)
    assert torch.equal(torch.rand(1), expected)


def test_missing_files(folder, tmp_path, monkeypatch):
    refused({}, "set `checkpoint` to the folder of EnCodec at 32 kHz; `hf download facebook/encodec_32khz")
    refused({"checkpoint": str(tmp_path)}, f"no config.json in {tmp_path}; `hf download")
    (tmp_path / "config.json").write_text("{}")
    refused({"checkpoint": str(tmp_path)}, f"no model.safetensors in {tmp_path}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    refused({"checkpoint": str(folder)}, 'EnCodec needs transformers: pip install "mio[music]"')


def test_keys_that_do_not_fit_are_named(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.weight"] = torch.zeros(1)
    del tensors["decoder.layers.0.conv.bias"]
    wrong = copy(folder, tmp_path / "a", tensors)
    refused(
        {"checkpoint": str(wrong)},
        f"{wrong / 'model.safetensors'}: does not fit {wrong / 'config.json'}",
        "missing: decoder.layers.0.conv.bias; surplus: head.weight",
    )
    tensors = load_file(folder / "model.safetensors")
    tensors["quantizer.layers.0.codebook.embed"] = torch.zeros(2048, 9)
    refused(
        {"checkpoint": str(copy(folder, tmp_path / "b", tensors))},
        "does not fit",
        "size mismatch for quantizer.layers.0.codebook.embed",
    )


def test_weights_that_are_none(folder, tmp_path):
    wrong = copy(folder, tmp_path / "a")
    for content in (b"", b"no tensors", (folder / "model.safetensors").read_bytes()[:5000]):
        (wrong / "model.safetensors").write_bytes(content)
        refused({"checkpoint": str(wrong)}, f"{wrong / 'model.safetensors'}: not a file of tensors that can be read")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_rate": 24000}, "`sampling_rate` is 24000 instead of 32000"),
        ({"audio_channels": 2, "normalize": True}, "`audio_channels` is 2 instead of 1, `normalize` is True"),
        ({"target_bandwidths": [1.1]}, "`num_quantizers` is 2 instead of 4"),
        ({"chunk_length_s": 1.0}, "`chunk_length_s` is 1.0 instead of None"),
        ({"model_type": "dac"}, "`model_type` is 'dac'"),
        ({"num_filters": "many"}, "not a configuration of EnCodec"),
    ],
)
def test_configurations_that_do_not_fit(folder, tmp_path, changes, message):
    wrong = copy(folder, tmp_path / "a", **changes)
    refused({"checkpoint": str(wrong)}, f"{wrong / 'config.json'}: ", message)


def test_configurations_that_are_none(folder, tmp_path):
    wrong = copy(folder, tmp_path / "a")
    for text in ("{", "[]", "3"):
        (wrong / "config.json").write_text(text)
        refused({"checkpoint": str(wrong)}, "not a configuration of EnCodec")


def test_devices(folder, monkeypatch):
    refused({"checkpoint": str(folder), "device": "tpux"}, "`device` is 'tpux', which torch does not know")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused({"checkpoint": str(folder), "device": "cuda"}, "torch sees no GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = tokenizer(folder, device="cuda")
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: "a worker")
    with pytest.raises(UserError, match=r"cannot be used by data workers; set `device: cpu`"):
        made.encode([(noise(320), 32000)])

"""SpeechTokenizer in the speech plugin, against the class of the package `speechtokenizer` itself.

Checkpoints are random, of reduced width and in the published layout; the first codebook holds features of the encoder,
so that many codes occur.
"""

import json
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

import mio.testing
from mio import DataError, UserError
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.tokens.codecs import Codecs
from mio.plugins import speech
from mio.plugins.speech import speechtokenizer
from mio.plugins.speech.speechtokenizer_checkpoint import _blank

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from speechtokenizer.model import SpeechTokenizer

CONFIG = {
    "n_filters": 4,
    "strides": [8, 5, 4, 2],
    "dimension": 16,
    "semantic_dimension": 8,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 1,
    "activation": "ELU",
    "codebook_size": 1024,
    "n_q": 8,
    "sample_rate": 16000,
    "learning_rate": 1e-4,
}
FULL = CONFIG | {"n_filters": 64, "dimension": 1024, "semantic_dimension": 768, "lstm_layers": 2}
KINDS = ("ELU", "Snake")


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def random_model(activation, seed=0):
    torch.manual_seed(seed)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = SpeechTokenizer(CONFIG | {"activation": activation}).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                parameter.uniform_(0.5, 2)
        features = model.encoder(torch.from_numpy(noise(1024 * 320, seed=9))[None, None])[0].T
        for level, layer in enumerate(model.quantizer.vq.layers):
            rest = torch.randn(1024, 16) * features.std(0) * 0.5**level
            layer._codebook.embed.copy_(rest if level else features)
            layer._codebook.inited.fill_(1)
    return model


def write(folder, model, activation="ELU", name="SpeechTokenizer.pt", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / name)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"activation": activation} | changes))
    return folder


@pytest.fixture(scope="module")
def models():
    return {kind: random_model(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "ELU": write(root / "mio" / "SpeechTokenizer", models["ELU"]).parent,
        "Snake": write(root / "anygpt" / "speechtokenizer", models["Snake"], "Snake", "ckpt.dev").parent,
    }


def tokenizer(folder, **options):
    return speech.mio_tokenizer("speech", {"checkpoint": str(folder), **options})


def detokenizer(folder, **options):
    return speech.mio_detokenizer("speech", {"checkpoint": str(folder), **options})


@pytest.fixture(scope="module")
def elu(folders):
    return tokenizer(folders["ELU"])


@torch.inference_mode()
def reference_codes(model, samples, levels=4):
    return model.encode(torch.from_numpy(samples)[None, None])[:levels, 0].numpy()


# --- against the package


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_samples_are_the_packages(models, folders, kind):
    made, back = tokenizer(folders[kind]), detokenizer(folders[kind])
    items = [noise(length, seed) for seed, length in enumerate((16000, 16001, 15999, 319, 1, 12345))]
    seen = set()
    for item, codes in zip(items, made.encode([(item, 16000) for item in items]), strict=True):
        assert codes.shape == (4, -(-len(item) // 320))
        assert np.array_equal(codes, reference_codes(models[kind], item))
        seen |= set(codes[0].tolist())
        for levels in (4, 1):
            samples, rate = back.decode(codes[:levels])
            with torch.inference_mode():
                expected = models[kind].decode(torch.from_numpy(codes[:levels, None]))[0, 0]
            assert rate == 16000
            assert samples.shape == (320 * codes.shape[1],)
            # but for the order of sums: the codec decodes in blocks
            assert np.abs(samples - expected.clamp(-1, 1).numpy()).max() < 1e-6
    assert len(seen) > 50


@pytest.fixture(scope="module")
def detokenizers(folders):
    return {kind: detokenizer(folders[kind]) for kind in KINDS}


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), frames=st.integers(1, 60), data=st.data())
def test_a_stream_gives_the_same_samples(detokenizers, kind, frames, data):
    back = detokenizers[kind]
    codes = np.random.default_rng(frames).integers(0, 1024, (data.draw(st.sampled_from([1, 4])), frames))
    samples, rate = back.decode(codes)
    stream, pieces, begin = back.stream(), [], 0
    while begin < frames:
        end = begin + data.draw(st.integers(1, 30))
        pieces.append(stream.push(codes[:, begin:end]))
        begin = end
    # the first block of four frames is enough to begin with
    assert frames < 4 or begin < 4 or any(pieces)
    given = [piece for piece in [*pieces, stream.finish()] if piece]
    assert {piece[1] for piece in given} == {rate}
    assert np.array_equal(np.concatenate([piece[0] for piece in given]), samples)


def test_the_kinds_of_the_published_size():
    # 166 (ELU) and 192 (Snake) tensors, 481.8 MB: what the published files hold
    for kind, tensors in zip(KINDS, (166, 192), strict=True):
        state = _blank(FULL | {"activation": kind}).state_dict()
        assert len(state) == tensors
        assert sum(value.numel() * 4 for value in state.values()) == pytest.approx(481.8e6, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 20_000), rate=st.integers(4000, 48_000))
def test_frames_foretell_the_codes(elu, length, rate):
    item = (noise(length), rate)
    [codes] = elu.encode([item])
    assert elu.frames(item) == codes.shape[1] == -(-len(resampled(item)) // 320)


def resampled(item):
    return resample_poly(item[0], 16000, item[1]) if item[1] != 16000 else item[0]


def test_any_rate_and_channels(models, elu):
    wide = noise(2 * 44100).reshape(-1, 2)
    [codes] = elu.encode([(wide, 44100)])
    mono = resample_poly(wide.mean(axis=1), 160, 441).astype(np.float32)
    assert np.array_equal(codes, reference_codes(models["ELU"], mono))


def test_levels_that_are_kept(models, folders):
    item = noise(5000)
    for levels in (1, 8):
        options = {"checkpoint": str(folders["ELU"]), "codebooks": levels}
        [codes] = speech.mio_tokenizer("speech", options).encode([(item, 16000)])
        assert np.array_equal(codes, reference_codes(models["ELU"], item, levels))
        assert len(speech.mio_modalities(options)[0].codebooks) == levels


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_other_dtypes_come_close(models, folders, dtype):
    item = noise(16000)
    expected = reference_codes(models["ELU"], item, 1)
    [codes] = tokenizer(folders["ELU"], dtype=dtype).encode([(item, 16000)])
    # entries of a random codebook lie close together; by chance 1 in 1024 would agree
    assert (codes[:1] == expected).mean() > 0.2
    with torch.inference_mode():
        exact = models["ELU"].decode(torch.from_numpy(expected[:, None]))[0, 0].numpy()
    samples, _ = detokenizer(folders["ELU"], dtype=dtype).decode(expected)
    assert samples.dtype == np.float32
    assert np.abs(samples - exact).max() < 0.05 * np.abs(exact).max()


def test_only_the_model_is_imported(folders):
    code = f"""
        import sys
        from mio.plugins import speech
        made = speech.mio_tokenizer("speech", {{"checkpoint": {str(folders["Snake"])!r}}})
        print(made.encode([([0.0] * 700, 16000)])[0].shape)
        print({{"speechtokenizer", "torchaudio", "accelerate", "beartype", "tensorboard"}} & set(sys.modules))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert ran.stdout == "(4, 3)\nset()\n"
    assert ran.stderr == ""


def test_conformance(folders):
    samples = [(noise(length, length), rate) for length, rate in ((900, 16000), (16000, 16000), (7000, 8000))]
    mio.testing.check_plugin("speech", {"checkpoint": str(folders["Snake"])}, samples={"speech": samples})


# --- length


def test_too_long_is_an_error_or_cut(elu, folders, tmp_path):
    item = (noise(2 * 11025), 11025)
    with pytest.raises(DataError, match=r"2.00 s is longer than 1.5 s; .*`too_long: truncate`"):
        tokenizer(folders["ELU"], max_seconds=1.5).encode([item])
    cutting = tokenizer(folders["ELU"], max_seconds=1.5, too_long="truncate")
    [codes] = cutting.encode([item])
    beginning = (item[0][: 75 * 11025 // 50], 11025)
    assert codes.shape == (4, 75) == (4, cutting.frames(item))
    assert np.array_equal(codes, elu.encode([beginning])[0])

    path = tmp_path / "long.wav"
    soundfile.write(path, *item, subtype="FLOAT")
    options = {"checkpoint": str(folders["ELU"]), "max_seconds": 1.5}
    with pytest.raises(DataError, match=r"lasts 2.00 s, longer than 1.5 s; .*`too_long: truncate`"):
        speech.mio_datamodule("speech", options).read(path)
    samples, rate = speech.mio_datamodule("speech", options | {"too_long": "truncate"}).read(path)
    assert len(samples) == 16538  # 1.5 s, rounded up: no more is read
    assert np.array_equal(cutting.encode([(samples, rate)])[0], codes)


# --- fingerprint


def test_fingerprint_is_of_what_makes_codes(models, folders, tmp_path):
    known = tokenizer(folders["ELU"]).fingerprint
    state = models["ELU"].state_dict()

    def other(name, **options):
        changed = {key: value.clone() for key, value in state.items()}
        if name:
            changed[name].view(-1)[-1] += 1e-3
        torch.save(changed, tmp_path / "SpeechTokenizer.pt")
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        return tokenizer(tmp_path, **options).fingerprint

    assert other("") == known
    assert other("decoder.model.0.conv.conv.bias") == known
    assert other("quantizer.vq.layers.4._codebook.embed") == known
    assert other("", max_seconds=3) == known
    changes = [
        other("encoder.model.0.conv.conv.bias"),
        other("quantizer.vq.layers.3._codebook.embed"),
        other("", codebooks=5),
        other("", dtype="bf16"),
        other("", too_long="truncate"),
        other("", too_long="truncate", max_seconds=3),
    ]
    assert len({known, *changes}) == 7


# --- another decoder


def test_a_voice_decoder_takes_the_detokenizers_place(folders, tmp_path, monkeypatch):
    (tmp_path / "voice_plugin.py").write_text(
        textwrap.dedent("""
            import mio
            import numpy as np

            class Voice:
                def __init__(self, options):
                    self.options = options

                def decode(self, codes):
                    return codes.copy(), self.options["checkpoint"]

                def save(self, media, stem):
                    raise NotImplementedError

            @mio.hookimpl(tryfirst=True)
            def mio_detokenizer(modality, options):
                return Voice(options) if modality == "speech" else None
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {"speech": {"checkpoint": str(folders["Snake"]), "codebooks": 1, "tokens": "anygpt"}}
    manager = PluginManager([*discover(), local(f"voice={tmp_path / 'voice_plugin.py'}")])
    item = mio.Media("speech", (noise(3000), 16000), "noise")

    alone = Codecs(manager.enable(options))
    assert isinstance(alone.detokenizer("speech"), speechtokenizer.PretrainedDetokenizer)
    [(samples, rate)] = alone.round_trip([item])
    assert (samples.shape, rate) == ((3200,), 16000)

    together = Codecs(manager.enable({**options, "voice": {}}))
    [(codes, checkpoint)] = together.round_trip([item])
    assert codes.shape == (1, 10)
    assert np.array_equal(codes, alone.codes(item))
    assert checkpoint == str(folders["Snake"])
    sys.modules.pop("voice_plugin")


def test_tokens_of_anygpt():
    # github.com/OpenMOSS/AnyGPT, m_utils/anything2token.py; the prefix is U+1F5E3 U+FE0F
    (declared,) = speech.mio_modalities({"tokens": "anygpt", "codebooks": 1})
    assert (declared.begin, declared.end) == ("<sosp>", "<eosp>")
    assert declared.code_token.format(1023) == "<\U0001f5e3\ufe0f1023>"
    assert (declared.codebooks, declared.layout) == ((1024,), "flat")


# --- files


def test_places_of_the_files(models, folders, tmp_path, elu):
    snake = tokenizer(folders["Snake"]).fingerprint
    assert snake != elu.fingerprint
    assert tokenizer(folders["Snake"] / "speechtokenizer").fingerprint == snake
    hub = write(tmp_path / "speechtokenizer_hubert_avg", models["ELU"]).parent
    assert tokenizer(hub).fingerprint == elu.fingerprint
    weights, config = folders["Snake"] / "speechtokenizer/ckpt.dev", tmp_path / "other.json"
    config.write_text((weights.parent / "config.json").read_text())
    for options in ({}, {"config": str(config)}):
        assert speech.mio_tokenizer("speech", {"weights": str(weights), **options}).fingerprint == snake


def refused(options, *parts):
    for make in (speech.mio_tokenizer, speech.mio_detokenizer):
        with pytest.raises(UserError) as caught:
            make("speech", options)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert part in str(caught.value)


def test_missing_files(folders, tmp_path):
    refused({}, "needs SpeechTokenizer.pt or ckpt.dev: set `checkpoint`", "`hf download fnlp/SpeechTokenizer")
    refused({"checkpoint": str(tmp_path)}, f"no SpeechTokenizer.pt or ckpt.dev in {tmp_path} or its SpeechTokenizer/")
    refused({"weights": str(tmp_path / "w.pt")}, f"`weights`: {tmp_path / 'w.pt'} is not a file")
    (tmp_path / "ckpt.dev").write_bytes(b"")
    refused({"checkpoint": str(tmp_path)}, f"{tmp_path / 'config.json'} is not a file")
    refused(
        {"checkpoint": str(folders["ELU"]), "config": str(tmp_path / "c.json")},
        f"`config`: {tmp_path / 'c.json'} is not a file",
    )


def test_keys_that_do_not_fit_are_named(models, tmp_path):
    state = dict(models["ELU"].state_dict())
    state["head.weight"] = torch.zeros(1)
    del state["decoder.model.0.conv.conv.bias"]
    state["quantizer.vq.layers.0._codebook.embed"] = torch.zeros(1024, 17)
    folder = write(tmp_path / "wrong", models["ELU"])
    torch.save(state, folder / "SpeechTokenizer.pt")
    refused(
        {"checkpoint": str(folder)},
        f"{folder / 'SpeechTokenizer.pt'}: does not fit {folder / 'config.json'}",
        "missing: decoder.model.0.conv.conv.bias;",
        "of another shape: quantizer.vq.layers.0._codebook.embed [1024, 17] instead of [1024, 16];",
        "surplus: head.weight;",
    )
    # the configuration of the other kind
    snake = write(tmp_path / "mixed", models["ELU"], "Snake")
    refused({"checkpoint": str(snake)}, "missing: encoder.model.1.block.0.alpha", "and 21 more")


class Executes:
    """Pickled, it creates the file when it is loaded by a loader that executes."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_that_are_none(models, tmp_path):
    folder, trap = write(tmp_path / "a", models["ELU"]), tmp_path / "executed"
    contents = [b"", b"no archive", (folder / "SpeechTokenizer.pt").read_bytes()[:5000]]
    for content in contents:
        (folder / "SpeechTokenizer.pt").write_bytes(content)
        refused({"checkpoint": str(folder)}, f"{folder / 'SpeechTokenizer.pt'}: not a checkpoint of tensors")
    torch.save({"x": Executes(trap)}, folder / "SpeechTokenizer.pt")
    refused({"checkpoint": str(folder)}, "not a checkpoint of tensors")
    assert not trap.exists()
    torch.save({"generator": models["ELU"].state_dict()}, folder / "SpeechTokenizer.pt")
    refused({"checkpoint": str(folder)}, "save the model's state_dict alone")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "Softmax"}, "`activation` is 'Softmax', must be one of ELU, Snake"),
        ({"n_q": 3}, "has 3 levels; lower `codebooks`"),
        ({"codebook_size": 512}, "`codebook_size` is 512"),
        ({"sample_rate": 24000}, "24000 samples a second in steps of 320"),
        ({"strides": 320, "dimension": "16"}, "dimension, strides must be whole numbers"),
    ],
)
def test_configurations_that_do_not_fit(models, tmp_path, changes, message):
    folder = write(tmp_path / "a", models["ELU"], **changes)
    refused({"checkpoint": str(folder)}, f"{folder / 'config.json'}: {message}")


def test_configurations_that_are_none(models, tmp_path):
    folder = write(tmp_path / "a", models["ELU"])
    for text, message in (("{", "not a configuration in JSON"), ("[]", "holds list"), ("{}", "lacks n_filters")):
        (folder / "config.json").write_text(text)
        refused({"checkpoint": str(folder)}, message)


# --- options and codes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebooks": 0}, "`codebooks` is 0"),
        ({"codebooks": "4"}, "`codebooks` must be a whole number, not the text '4'"),
        ({"dtype": "int8"}, "`dtype` is `int8`, not one of `float32`, `bf16`, `fp16`"),
        ({"too_long": "split"}, "`too_long` is `split`, not one of `error`, `truncate`"),
        ({"tokens": "gpt"}, "`tokens` is `gpt`, not one of `mio`, `anygpt`"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        speech.mio_modalities(options)


def test_devices(folders, monkeypatch):
    refused({"checkpoint": str(folders["ELU"]), "device": "tpux"}, "`device` is 'tpux', which torch does not know")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused({"checkpoint": str(folders["ELU"]), "device": "cuda"}, "torch sees no GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = tokenizer(folders["ELU"], device="cuda")
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: "a worker")
    with pytest.raises(UserError, match=r"cannot be used by data workers; set `device: cpu`"):
        made.encode([(noise(320), 16000)])


def test_written_levels_are_the_first_ones(folders):
    views = {"generate": [1, 2]}
    with pytest.raises(UserError, match=r"`views` writes the codebooks \[1, 2\]"):
        detokenizer(folders["ELU"], views=views)
    assert detokenizer(folders["ELU"], views={"generate": [0, 1]}).decode(np.zeros((2, 3), int))[0].shape == (960,)


def test_codes_that_cannot_be_decoded(folders):
    back = detokenizer(folders["ELU"])
    for codes in (np.zeros((5, 3), int), np.zeros((4, 0), int), np.zeros(4, int)):
        with pytest.raises(DataError, match=r"speech has codes \[1..4, frames\]"):
            back.decode(codes)
    with pytest.raises(DataError, match=r"0..1023, these reach -1..0"):
        back.decode(np.array([[0, -1]]))
    with pytest.raises(DataError, match=r"these reach 0..1024"):
        back.decode(np.array([[0, 1024]]))


def test_saved_speech(folders, tmp_path):
    back = detokenizer(folders["ELU"])
    media = back.decode(np.zeros((4, 5), int))
    path = back.save(media, tmp_path / "answer")
    samples, rate = soundfile.read(path)
    assert (path.name, rate, samples.shape) == ("answer.wav", 16000, (1600,))
    assert np.abs(samples - media[0]).max() <= 2**-15

"""Figures of the benchmarks against what their reference implementations say, and against closed forms.

`benchmark_figures.json` holds what pycocoevalcap 1.2 (with Stanford's tokenizer, in Java), GT-Vision-Lab/VQA and
transformers 5.24 say of 200 made items each: `python benchmarks/metrics.py --vqa VQA --write FILE`.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch

from mio import DataError, UserError
from mio.plugins.benchmarks.metrics import captions, pictures, vqa, word_errors
from mio.plugins.benchmarks.metrics.penn_treebank import words
from mio.plugins.benchmarks.metrics.recognition import Recogniser

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import made_items

SAID = json.loads((Path(__file__).parent / "benchmark_figures.json").read_text(encoding="utf-8"))
CAPTIONS = made_items.captions()


@pytest.fixture(scope="module")
def tokenised():
    return [words(answer) for answer, _ in CAPTIONS], [
        [words(text) for text in references] for _, references in CAPTIONS
    ]


def test_captions_have_the_words_of_the_reference():
    assert [" ".join(words(answer)) for answer, _ in CAPTIONS] == SAID["words"]
    assert len(SAID["words"]) == made_items.COUNT
    assert any("n't" in text.split() for text in SAID["words"])  # they are odd ones


@pytest.mark.parametrize(
    ("caption", "expected"),
    [  # as Stanford's PTBTokenizer 3.4.1 said, punctuation left out
        ("Ho'ohu and Pe'e roads on Kauai", "ho'ohu and pe'e roads on kauai"),
        ("A sign with W. This is", "a sign with w this is"),
        ("rock'n'roll, 'tis d'you gimme", "rock 'n' roll 't is d'you gim me"),
        ("10:30a.m. or 5p.m., 1.5m & 1,000s", "10:30 a.m. or 5p m. 1.5 m & 1,000 s"),
        ("2010-12-25 v2.0 $5.99/lb", "2010 -12 -25 v2 .0 $ 5.99 / lb"),
        ("a <b>bold</b> @user #hash a_b _a", "a <b> bold </b> @user #hash a_b _ a"),
        ("no.5 fig. 3 No. Miss. miss.", "no. 5 fig. 3 no miss. miss"),
        ("½ £2 30° 日本語 café— … !!", "1/2 # 2 30 ° 日本語 café !!"),
        ("", ""),
    ],
)
def test_words_of_odd_captions(caption, expected):
    assert " ".join(words(caption)) == expected


def test_figures_of_captions_are_those_of_the_reference(tokenised):
    said, references = tokenised
    scores = captions.cider(said, references)
    assert scores == pytest.approx(SAID["cider"], abs=1e-6)
    assert captions.bleu(said, references) == pytest.approx(SAID["bleu_4"], abs=1e-6)
    found = [captions.rouge(*pair) for pair in zip(said, references, strict=True)]
    assert found == pytest.approx(SAID["rouge_l"], abs=1e-6)
    assert len({round(score, 6) for score in scores}) > 100
    assert scores[0] != pytest.approx(captions.cider(said[:50], references[:50])[0])  # weights are those of the set


def test_captions_that_are_not_there():
    assert captions.cider([(), ("a",)], [[("a", "cat")], [("a", "dog")]])[0] == 0
    assert captions.rouge((), [("a", "cat")]) == 0
    assert captions.bleu([()], [[("a", "cat")]]) == pytest.approx(0, abs=1e-6)


def test_answers_to_questions_count_as_in_the_reference():
    found = [vqa.accuracy(*item) for item in made_items.answers()]
    assert found == pytest.approx(SAID["vqa"], abs=1e-6)
    assert {round(value, 6) for value in found} == {0, 0.3, 0.6, 0.9, 1}
    for answer, given in made_items.answers():
        assert vqa.accuracy(answer, given) <= vqa.best(given) + 1e-9


def edit_distance(first: list[str], second: list[str]) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    table[:, 0], table[0, :] = range(len(first) + 1), range(len(second) + 1)
    for row, word in enumerate(first, start=1):
        for column, other in enumerate(second, start=1):
            replaced = table[row - 1, column - 1] + (word != other)
            table[row, column] = min(replaced, table[row - 1, column] + 1, table[row, column - 1] + 1)
    return int(table[-1, -1])


def test_word_errors_are_edit_distances_of_normalised_words():
    items = made_items.transcriptions()
    normalised = iter(SAID["normalised"])
    expected = [(next(normalised).split(), next(normalised).split()) for _ in items]
    found = [word_errors.word_errors(*item) for item in items]
    assert found == [(edit_distance(said, wanted), len(wanted)) for said, wanted in expected]
    total = jiwer.wer([" ".join(wanted) for _, wanted in expected], [" ".join(said) for said, _ in expected])
    assert sum(errors for errors, _ in found) / sum(count for _, count in found) == pytest.approx(total, abs=1e-6)
    assert word_errors.word_errors("two words", "um") == (2, 0)  # nothing is left of what was said


def test_a_missing_normaliser_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    word_errors._normaliser.cache_clear()
    with pytest.raises(UserError, match=r"need Whisper's normaliser: pip install 'mio\[benchmarks\]'"):
        word_errors.word_errors("a", "b")
    word_errors._normaliser.cache_clear()


# ---- pictures


def picture(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)


def test_structural_similarity_is_its_formula():
    """Of flat pictures, whose variances are 0: only the means differ."""
    first, second = 60, 180
    flat = [np.full((20, 30, 3), value, np.uint8) for value in (first, second)]
    c1 = (0.01 * 255) ** 2
    expected = (2 * first * second + c1) / (first**2 + second**2 + c1)
    assert pictures.ssim(*flat) == pytest.approx(expected, abs=1e-5)
    assert pictures.ssim(picture(1), picture(1)) == pytest.approx(1, abs=1e-6)
    assert pictures.ssim(flat[0][..., 0], flat[0]) == pytest.approx(1, abs=1e-6)  # grey
    assert pictures.ssim(picture(1), picture(2)) < 0.9


def test_frechet_distance_is_its_closed_form():
    """Of features on axes of their own, the covariances commute: sum of (s - t)^2 beside the means' distance."""
    rng = np.random.default_rng(0)
    size, width = 400, 4
    both = rng.normal(size=(size, 2, width)).astype(np.float32)
    for side in range(2):  # exactly uncorrelated, of unit variance
        centred = both[:, side] - both[:, side].mean(axis=0)
        both[:, side] = np.linalg.qr(centred)[0] * math.sqrt(size - 1)
    spread, shift = np.array([1, 2, 3, 0.5]), np.array([0.5, -1, 0, 2])
    both[:, 0] = both[:, 0] * spread + shift
    expected = float(np.sum(shift**2) + np.sum((spread - 1) ** 2))
    assert pictures.frechet_distance(list(both)) == pytest.approx(expected, abs=1e-4)
    assert pictures.frechet_distance([np.stack([row, row]) for row in both[:, 0]]) == pytest.approx(0, abs=1e-4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP checkpoint with random weights."""
    return make_clip(tmp_path_factory.mktemp("clip"))


def make_clip(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    letters = {letter: number + 3 for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.WordLevel({"<p>": 0, "<s>": 1, "</s>": 2, **letters}, unk_token="<p>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<p>", bos_token="<s>", eos_token="</s>", model_max_length=77
    ).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_likeness_is_the_cosine_of_its_embeddings(clip):
    from transformers import AutoProcessor, CLIPModel

    model, processor = CLIPModel.from_pretrained(clip), AutoProcessor.from_pretrained(clip)
    loaded = pictures.Clip(clip)
    drawn, wanted, texts = [picture(1), picture(2)], [picture(3), picture(2)], ["a dog", "two cats run"]

    def embedded(image: np.ndarray) -> np.ndarray:
        pixels = processor(images=[torch.from_numpy(image).permute(2, 0, 1)], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            return model.get_image_features(pixels).pooler_output[0].double().numpy()

    def read(text: str) -> np.ndarray:
        with torch.no_grad():
            return model.get_text_features(**processor(text=[text], return_tensors="pt")).pooler_output[0].numpy()

    def cosine(first: np.ndarray, second: np.ndarray) -> float:
        return 100 * float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))

    expected = [cosine(embedded(one), embedded(other)) for one, other in zip(drawn, wanted, strict=True)]
    assert loaded.likeness(drawn, wanted) == pytest.approx(expected, abs=1e-3)
    assert expected[1] == pytest.approx(100)
    expected = [max(0, cosine(embedded(one), read(text))) for one, text in zip(drawn, texts, strict=True)]
    assert max(expected) > 1
    assert loaded.likeness(drawn, texts) == pytest.approx(expected, abs=1e-3)


def test_checkpoints_that_are_none_are_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights")
    for load, option in (
        (lambda: pictures.Clip(tmp_path), "clip"),
        (lambda: pictures.Inception(weights), "inception"),
        (lambda: Recogniser(tmp_path), "recogniser"),
    ):
        with pytest.raises(UserError, match=rf"^plugins.benchmarks: `{option}`: {tmp_path}") as caught:
            load()
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        pictures.read(weights)


def test_the_recogniser_is_given_one_channel_of_floats():
    given = []

    class Pipeline:
        type = "seq2seq_whisper"

        def __call__(self, sound, **options):
            given.append((sound["raw"], sound["sampling_rate"], options))
            return {"text": "heard"}

    recogniser = Recogniser.__new__(Recogniser)
    recogniser._pipeline, recogniser._asked = Pipeline(), {"generate_kwargs": {"language": "english"}}
    wave = np.linspace(-1, 1, 1000, dtype=np.float32)
    for samples in (wave, np.round(wave * 32767).astype(np.int16), np.stack([wave, wave], axis=1)):
        assert recogniser.heard((samples, 24_000)) == "heard"
        raw, rate, options = given.pop()
        assert raw.dtype == np.float32
        assert raw == pytest.approx(wave, abs=1e-4)
        assert rate == 24_000
        assert options == {"generate_kwargs": {"language": "english"}}
    recogniser.heard((np.tile(wave, 40), 1000))  # 40 s
    assert given.pop()[2]["return_timestamps"]
    with pytest.raises(DataError, match="holds no samples"):
        recogniser.heard((wave[:0], 24_000))

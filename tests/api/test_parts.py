"""Prompts as Python programs write them: every form is the same prompt, and a mistake is one line that says where."""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted_model import World

from mio import Codes, Control, Media, UserError
from mio.api.forms import to_png, to_wav
from mio.api.parts import PartReader

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
SOUND = np.sin(np.arange(1600) / 5).astype(np.float32), 16_000


@cache
def made_model():
    """With pictures, videos of them and sound; its tokenizers are never asked."""
    plugins = {
        "text": {"tokenizer": "bytes"},
        "image": {"tokenizer": "patch_vq", "size": 8, "patch": 2, "codebook_size": 64},
        "speech": {"tokenizer": "mel_rvq"},
        "video": {},
        "melody": {},
        "parley": {},
    }
    return World({}, plugins=plugins).model()


@pytest.fixture
def reader(tmp_path):
    return PartReader(made_model(), tmp_path)


def same(media, modality, data):
    found = media.data if isinstance(media.data, np.ndarray) else np.asarray(media.data[0])
    return media.modality == modality and np.array_equal(found, data)


def test_pictures_come_in_many_forms(reader):
    image = Image.fromarray(PIXELS)
    for part in (
        PIXELS,
        image,
        {"type": "image", "image": PIXELS},
        {"type": "image", "image": image},
        {"type": "image", "data": PIXELS},
        Media("image", PIXELS, "mine"),
    ):
        [text, media, more] = reader.prompt(["a", part, "b"])
        assert (text, more) == ("a", "b")
        assert same(media, "image", PIXELS)
    [media] = reader.prompt(PIXELS)
    assert media.key == reader.prompt([image])[0].key  # so that it is encoded once
    assert media.key != reader.prompt([PIXELS[::-1]])[0].key


def test_files_and_addresses_stay_files(reader, tmp_path):
    (tmp_path / "a.png").write_bytes(to_png(PIXELS))
    address = "data:image/png;base64," + base64.b64encode(to_png(PIXELS)).decode()
    named = [{"type": "image", "path": "a.png"}, {"type": "image", "image": tmp_path / "a.png"}]
    given = [
        {"type": "image", "url": address},
        {"type": "image", "image": {"bytes": to_png(PIXELS)}},
        {"type": "image", "image": to_png(PIXELS)},
    ]
    for part in [*named, *given]:
        [media] = reader.prompt([part])
        assert same(reader._model.codecs.opened(media), "image", PIXELS)
    assert len({reader.prompt([part])[0].key for part in given}) == 1
    first = reader.prompt([named[0]])[0].key
    (tmp_path / "a.png").write_bytes(to_png(PIXELS[1:]))
    assert reader.prompt([named[0]])[0].key != first  # the same key would mean the same codes


def test_sound_is_of_the_first_modality_of_its_type_unless_it_is_named(reader):
    samples, rate = SOUND
    for part in (SOUND, {"array": samples, "sampling_rate": rate}, {"type": "speech", "speech": SOUND}):
        [media] = reader.prompt([part])
        assert same(media, "speech", samples)
    assert reader.prompt([SOUND])[0].key == reader.prompt([{"type": "speech", "data": SOUND}])[0].key
    [media] = reader.prompt([{"type": "speech", "data": to_wav(SOUND)}])
    assert np.abs(reader._model.codecs.opened(media).data[0] - samples).max() < 1e-3


def test_a_video_is_a_list_of_pictures_among_the_parts(reader):
    [media] = reader.prompt([[PIXELS, PIXELS]])
    assert (media.modality, len(media.data)) == ("video", 2)
    assert [one.modality for one in reader.prompt([PIXELS, PIXELS])] == ["image", "image"]
    assert reader.prompt([np.stack([PIXELS, PIXELS])])[0].modality == "video"


def test_other_modalities_take_what_their_tokenizers_take(reader):
    [media] = reader.prompt([{"type": "melody", "melody": (0, 1, 2)}])
    assert (media.modality, media.data) == ("melody", (0, 1, 2))
    assert reader.prompt([{"type": "melody", "data": (0, 1, 2)}])[0].key == media.key
    codes = Codes("melody", np.array([[0, 1]]))
    assert reader.prompt([codes, {"type": "melody", "melody": codes}]) == [codes, codes]


def test_control_tokens_are_parts(reader):
    assert reader.prompt([{"type": "control", "name": "own"}, Control("own")]) == [Control("own"), Control("own")]


def test_conversations_have_turns(reader):
    turns = reader.prompt(
        [
            {"role": "system", "content": "Be short."},
            {"role": "human", "content": ["What is it? ", PIXELS]},
            {"role": "assistant", "content": [{"type": "text", "text": "A square."}]},
            {"role": "user", "content": "Sure?"},
        ]
    )
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert [turn["content"] for turn in turns[2:]] == [["A square."], ["Sure?"]]
    assert same(turns[1]["content"][1], "image", PIXELS)
    assert reader.prompt({"role": "user", "content": "a"}) == [{"role": "user", "content": ["a"]}]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("", "prompt: is empty"),
        ([], "prompt: is empty"),
        (["", ""], "prompt: is empty"),
        (["a", 5], "prompt, part 1: must be a string, media .* not `5`"),
        (None, "not `None`"),
        (["a", np.zeros((2, 2))], r"part 1: .* not ndarray of float64 \[2, 2\]"),
        (["\ud800"], "part 0: holds characters that are not valid UTF-8"),
        ([{"text": "a"}], "part 0: must have a `type`.* it has `text`"),
        ([{"type": "imag", "image": PIXELS}], "no modality `imag` in this run; did you mean `image`?"),
        ([{"type": "image"}], "`image` holds `image` or .* this has nothing"),
        ([{"type": "image", "image": PIXELS, "path": "a"}], "this has `image`, `path`"),
        ([{"type": "image", "imgae": PIXELS}], "this has `imgae`; did you mean `image`?"),
        ([{"type": "image", "image": None}], "part 0: an image is .* not NoneType"),
        ([{"type": "image", "image": "b.png"}], "b.png: no such file"),
        ([{"type": "image", "url": "https://a.b/c.png"}], "nothing is fetched from a network"),
        ([{"type": "image", "image": np.zeros((2, 2, 9), np.uint8)}], r"uint8 \[2, 2, 9\]"),
        ([{"type": "speech", "speech": PIXELS}], "part 0: an item of sound is a pair"),
        ([{"type": "text", "text": 5}], "`text` must be a string, not `5`"),
        ([{"type": "control", "name": "owl"}], "no control token `owl` in this run; did you mean `own`?"),
        ([Codes("imag", np.zeros((1, 2)))], "no modality `imag`"),
        ([{"type": "image", "image": Codes("melody", np.zeros((1, 2)))}], "codes of `melody` are given as `image`"),
        ([Media("music", 1, "a")], "no modality `music`"),
        ([{"role": "user"}], "message 0: has no `content`"),
        ([{"role": "usr", "content": "a"}], "message 0: a message has the role `usr`"),
        ([{"role": 5, "content": "a"}], "message 0: `role` must be a string"),
        ([{"role": "user", "content": "a", "name": "b"}], "message 0: has `name` beside"),
        ([{"role": "user", "content": "a"}, "b"], "message 1: must be"),
        ([{"role": "user", "content": []}], "message 0: is empty"),
        ([{"role": "user", "content": ["a", {"type": "x", "x": 1}]}], "message 0, part 1: no modality `x`"),
    ],
)
def test_mistakes_say_where_they_are(reader, prompt, told):
    with pytest.raises(UserError, match=told) as caught:
        reader.prompt(prompt)
    assert "\n" not in str(caught.value)


def test_objects_without_a_modality_of_their_type_are_refused():
    reader = PartReader(World({}).model())
    with pytest.raises(UserError, match="media type `image`, which this run has no modality for; it has text, melody"):
        reader.prompt([PIXELS])


WORDS = st.sampled_from(
    ["type", "text", "image", "speech", "video", "melody", "role", "content", "user", "assistant", "path", "url",
     "data", "bytes", "control", "name", "own", "array", "sampling_rate", "a.png", "data:image/png;base64,AAAA", ""]
)  # fmt: skip
LEAVES = (
    WORDS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=20)
    | st.sampled_from(
        [PIXELS, SOUND, SOUND[0], Image.fromarray(PIXELS), Codes("image", np.zeros((1, 4), int)), object()]
    )
)


@given(
    st.recursive(LEAVES, lambda one: st.lists(one, max_size=4) | st.dictionaries(WORDS, one, max_size=4), max_leaves=12)
)
@settings(max_examples=400, deadline=None)
def test_whatever_is_given_is_a_prompt_or_a_mistake(prompt):
    found, told = [], ""
    try:
        found = PartReader(made_model()).prompt(prompt)
    except UserError as error:
        told = str(error)
    assert bool(found) != bool(told)
    assert "\n" not in told
    assert len(told) < 1000

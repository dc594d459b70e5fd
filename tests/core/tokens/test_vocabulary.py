import json
from dataclasses import replace

import numpy as np
import pytest
from mio_world import DECLARED, IMAGE, MUSIC, SPEECH, TEXT, VIDEO, FakeText

from mio import Modality
from mio.core.errors import VocabularyError
from mio.core.tokens.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.build(FakeText(), DECLARED)


def test_mio_has_its_published_size(vocabulary):
    # vocab_size of m-a-p/MIO-7B: 64,000 text + 6 special + 4,096 speech + 8,192 image
    assert vocabulary.size == 76294
    assert vocabulary.rows == 76416
    assert vocabulary.rows % 128 == 0


def test_golden_ids_of_mio(vocabulary):
    golden = {
        "t0": 0,
        "<spch>": 64000,
        "</spch>": 64001,
        "[SPCH]": 64002,
        "<image>": 64003,
        "</image>": 64004,
        "[IMG]": 64005,
        "<spch0>": 64006,
        "<spch1024>": 65030,  # numbers run on through the codebooks
        "<spch4095>": 68101,
        "<img0>": 68102,
        "<img8191>": 76293,
    }
    assert {token: vocabulary.id(token) for token in golden} == golden
    assert {token: vocabulary.token(index) for token, index in golden.items()} == {token: token for token in golden}
    assert vocabulary.begin("speech") == 64000
    assert vocabulary.end("image") == 64004
    assert vocabulary.code_ids("speech", 1) == range(65030, 66054)
    assert vocabulary.begins == {64000: "speech", 64003: "image"}
    assert vocabulary.specials.im_end == 7


def test_every_id_has_one_token(vocabulary):
    tokens = [vocabulary.token(index) for index in range(vocabulary.size)]
    assert len(set(tokens)) == vocabulary.size
    assert [vocabulary.id(token) for token in tokens] == list(range(vocabulary.size))


def test_an_id_outside_has_no_token(vocabulary):
    for index in (-1, vocabulary.size):
        with pytest.raises(VocabularyError, match="outside the vocabulary"):
            vocabulary.token(index)
    with pytest.raises(VocabularyError, match="no token `<other>`"):
        vocabulary.id("<other>")
    with pytest.raises(VocabularyError, match="no plugin in use declares the modality `music`"):
        vocabulary.modality("music")


def test_block_of_agrees_with_the_blocks(vocabulary):
    for index, block in enumerate(vocabulary.blocks):
        assert (vocabulary.block_of[block.start : block.start + block.size] == index).all()
        assert (np.flatnonzero(vocabulary.block_of == index) == np.array(block.ids)).all()
    assert (vocabulary.block_of[vocabulary.size :] == -1).all()


def test_growth_appends_and_moves_nothing(vocabulary):
    grown = Vocabulary.build(FakeText(), [*DECLARED, ("melody", MUSIC)], base=vocabulary)
    assert [grown.token(index) for index in range(vocabulary.size)] == [
        vocabulary.token(index) for index in range(vocabulary.size)
    ]
    assert grown.id("<somu>") == 76294
    assert grown.code_ids("music", 0).start == 76296
    assert grown.size == 76294 + 2 + 8192


def test_order_of_plugins_does_not_move_ids_of_the_base(vocabulary):
    shuffled = Vocabulary.build(FakeText(), DECLARED[::-1], base=vocabulary)
    assert shuffled.blocks == vocabulary.blocks
    assert shuffled.fingerprint == vocabulary.fingerprint


def test_a_base_in_another_order_keeps_it():
    # special ids as in the released MIO-7B: 64003 <spch>, 64004 </image>, 64005 <image>
    order = ["[SPCH]", "</spch>", "[IMG]", "<spch>", "</image>", "<image>"]
    own = Vocabulary.build(FakeText(), DECLARED).to_json()
    blocks = {block["name"]: block for block in own["blocks"]}
    rest = [name for name in blocks if name not in order and name != "text"]
    start = 0
    own["blocks"] = []
    for name in ["text", *order, *rest]:
        own["blocks"].append(blocks[name] | {"start": start})
        start += blocks[name]["size"]
    released = Vocabulary.build(FakeText(), DECLARED, base=Vocabulary.from_json(own))
    assert (released.begin("image"), released.begin("speech"), released.end("image")) == (64005, 64003, 64004)
    assert released.token(64005) == "<image>"


def test_blocks_of_an_absent_plugin_stay_and_come_back(vocabulary):
    without = Vocabulary.build(FakeText(), [("text", TEXT), ("image", IMAGE), ("melody", MUSIC)], base=vocabulary)
    assert without.size == vocabulary.size + 2 + 8192
    absent = {block.name for block in without.blocks if block.absent}
    assert absent == {"<spch>", "</spch>", "[SPCH]", *(f"speech/codebook{q}" for q in range(4))}
    assert without.token(64006) == "<spch0>"
    back = Vocabulary.build(FakeText(), [*DECLARED, ("melody", MUSIC)], base=without)
    assert back.code_ids("speech", 0) == vocabulary.code_ids("speech", 0)
    assert not any(block.absent for block in back.blocks)


def test_codebooks_may_be_added(vocabulary):
    deeper = replace(SPEECH, codebooks=(1024,) * 5)
    grown = Vocabulary.build(FakeText(), [("text", TEXT), ("speech", deeper), ("image", IMAGE)], base=vocabulary)
    assert grown.code_ids("speech", 4) == range(76294, 77318)
    assert grown.token(76294) == "<spch4096>"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (replace(IMAGE, codebooks=(4096,)), ["image/codebook0", "8192", "4096", "new name"]),
        (replace(IMAGE, code_token="<i{}>"), ["image/codebook0", "<img{}>", "<i{}>"]),
        (replace(IMAGE, codebooks=()), ["image/codebook0", "fewer codebooks", "views"]),
    ],
)
def test_a_changed_block_is_an_error(vocabulary, changed, words):
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.build(FakeText(), [("text", TEXT), ("image", changed)], base=vocabulary)
    assert all(word in str(caught.value) for word in words)


def test_swapped_codebooks_are_an_error():
    two = replace(SPEECH, codebooks=(10, 20))
    base = Vocabulary.build(FakeText(), [("text", TEXT), ("speech", two)])
    with pytest.raises(VocabularyError, match=r"speech/codebook0.*10 ids.*20"):
        Vocabulary.build(FakeText(), [("text", TEXT), ("speech", replace(two, codebooks=(20, 10)))], base=base)


@pytest.mark.parametrize("text", [FakeText(size=64001), FakeText(fingerprint="llama")])
def test_another_text_tokenizer_is_an_error(vocabulary, text):
    with pytest.raises(VocabularyError, match=rf"block `text`.*64000.*{text.size}.*use the text tokenizer"):
        Vocabulary.build(text, DECLARED, base=vocabulary)


def _other(**changes):
    fields = {"name": "other", "codebooks": (4,), "begin": "<o>", "end": "</o>", "code_token": "<o{}>"}
    return Modality(**(fields | changes))


@pytest.mark.parametrize(
    ("other", "claimed"),
    [
        (_other(name="image"), "image"),
        (_other(begin="<image>"), "<image>"),
        (_other(code_token="<img{}>"), "<img0>"),
        (_other(specials=("<img17>",)), "<img17>"),
        (_other(code_token="<im{}>", codebooks=(3,), specials=("<image>",)), "<image>"),
    ],
)
def test_two_plugins_that_claim_one_name_are_both_named(other, claimed):
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.build(FakeText(), [("text", TEXT), ("image", IMAGE), ("rival", other)])
    assert all(f"`{word}`" in str(caught.value) for word in (claimed, "image", "rival"))


def test_a_new_plugin_can_not_take_tokens_of_an_absent_one(vocabulary):
    rival = _other(code_token="<spch{}>")
    with pytest.raises(VocabularyError, match=r"<spch0>.*`speech`.*`rival`"):
        Vocabulary.build(FakeText(), [("text", TEXT), ("rival", rival)], base=vocabulary)


def test_one_plugin_may_share_a_special_token():
    first = replace(IMAGE, specials=("<state>",))
    second = _other(specials=("<state>",))
    shared = Vocabulary.build(FakeText(), [("text", TEXT), ("both", first), ("both", second)])
    assert sum(block.name == "<state>" for block in shared.blocks) == 1
    with pytest.raises(VocabularyError, match="opens both `image` of plugin `both` and `other`"):
        Vocabulary.build(FakeText(), [("text", TEXT), ("both", first), ("both", _other(begin="<image>"))])


def test_a_token_of_the_text_tokenizer_can_not_be_declared():
    with pytest.raises(VocabularyError, match=r"`t17` of plugin `rival` is already a token of the text tokenizer"):
        Vocabulary.build(FakeText(), [("text", TEXT), ("rival", _other(specials=("t17",)))])


def test_text_is_declared_once():
    with pytest.raises(VocabularyError, match="exactly one plugin must declare the text modality"):
        Vocabulary.build(FakeText(), [("image", IMAGE)])


def test_chat_tokens_may_be_blocks_of_their_own():
    text = FakeText()
    text.specials = {"pad": 0, "bos": 1, "eos": 2}
    with pytest.raises(VocabularyError, match="no special token for im_start, im_end"):
        Vocabulary.build(text, [("text", TEXT)])
    declared = replace(TEXT, specials=("<|im_start|>", "<|im_end|>"))
    assert Vocabulary.build(text, [("text", declared)]).specials.im_end == 64001


def test_saved_and_loaded(vocabulary, tmp_path):
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded.blocks == vocabulary.blocks
    assert loaded.fingerprint == vocabulary.fingerprint
    assert loaded.specials == vocabulary.specials
    assert (loaded.block_of == vocabulary.block_of).all()
    with pytest.raises(VocabularyError, match="need the text tokenizer"):
        loaded.token(5)
    again = Vocabulary.build(FakeText(), DECLARED, base=loaded)
    assert again.token(5) == "t5"
    assert again.blocks == vocabulary.blocks


def _gap(content):
    content["blocks"][2]["start"] += 1


def _duplicate(content):
    content["blocks"][2]["name"] = content["blocks"][1]["name"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.update(version=2), "version 2"),
        (lambda content: content.update(format="x"), "no vocabulary file"),
        (lambda content: content.pop("blocks"), "damaged"),
        (lambda content: content["blocks"][0].update(extra=1), "damaged"),
        (_gap, "damaged"),
        (_duplicate, "damaged"),
    ],
)
def test_a_damaged_file_is_named(vocabulary, tmp_path, damage, message):
    content = vocabulary.to_json()
    damage(content)
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(content))
    with pytest.raises(VocabularyError, match=message) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)


def test_fingerprint_tells_vocabularies_apart(vocabulary):
    others = [
        Vocabulary.build(FakeText(fingerprint="llama"), DECLARED),
        Vocabulary.build(FakeText(), [("text", TEXT), ("image", IMAGE), ("speech", SPEECH), ("video", VIDEO)]),
        Vocabulary.build(FakeText(), [*DECLARED[:3], ("melody", MUSIC)]),
    ]
    assert len({vocabulary.fingerprint, *(other.fingerprint for other in others)}) == 4

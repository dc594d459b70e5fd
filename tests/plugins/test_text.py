import json
import subprocess
import sys
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio import UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.values import TextTokenizer, Trainable
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins import text as plugin
from mio.plugins.text.bpe import BpeTokenizer
from mio.plugins.text.byte_tokenizer import SPECIALS, ByteTokenizer
from mio.plugins.text.pretrained import PretrainedTokenizer

CORPUS = [f"the number {number} is followed by {number + 1}, then by {number + 2}; say it" for number in range(200)]


@pytest.fixture(scope="module")
def bpe():
    tokenizer = BpeTokenizer(280)
    tokenizer.fit(CORPUS, seed=0)
    return tokenizer


@pytest.fixture
def tokenizers(bpe):
    return [bpe, ByteTokenizer()]


def write_json(path, content):
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tokenizer of the Llama kind: SentencePiece BPE with byte fallback and a dummy prefix; bos, eos, unk."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(" ", "▁")])
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=names, show_progress=False)
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    content["normalizer"]["normalizers"].insert(0, {"type": "Prepend", "prepend": "▁"})
    content["decoder"] = json.loads(
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ).__getstate__()
    )
    write_json(folder / "tokenizer.json", content)
    write_json(
        folder / "tokenizer_config.json",
        {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None},
    )
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory, bpe):
    """A tokenizer of the Qwen kind: byte-level, no bos, ChatML tokens; extended by a token that is not text."""
    folder = tmp_path_factory.mktemp("qwen")
    bpe.save_weights(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    size = bpe.size
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] += [
        {"id": size, "content": "<tool>", "special": False, **flags},
        {"id": size + 1, "content": "<img0>", "special": True, **flags},
    ]
    write_json(folder / "tokenizer.json", content)
    write_json(
        folder / "special_tokens_map.json", {"eos_token": "<|endoftext|>", "bos_token": None, "pad_token": "<unk>"}
    )
    return folder


def test_tokenizers_follow_the_contract(tokenizers, llama, qwen):
    for tokenizer in [*tokenizers, PretrainedTokenizer(str(llama)), PretrainedTokenizer(str(qwen))]:
        assert isinstance(tokenizer, TextTokenizer)
        assert tokenizer.fingerprint
        tokens = [tokenizer.token(index) for index in range(tokenizer.size)]
        assert len(set(tokens)) == tokenizer.size
        declared = plugin.mio_modalities({"tokenizer": str(llama)} if tokenizer.token(1) == "<s>" else {})
        assert Vocabulary.build(tokenizer, [("text", declared[0])]).specials.bos == tokenizer.specials["bos"]
    assert [isinstance(tokenizer, Trainable) for tokenizer in tokenizers] == [True, False]


@given(st.text(max_size=40))
def test_any_text_comes_back(bpe, text):
    for tokenizer in (bpe, ByteTokenizer()):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= index < tokenizer.size for index in ids)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=10), max_size=4))
def test_any_pieces_come_back_from_pretrained_tokenizers(llama, qwen, pieces):
    for folder in (llama, qwen):
        tokenizer = PretrainedTokenizer(str(folder))
        ids = [index for piece in pieces for index in tokenizer.encode(piece)]
        assert tokenizer.decode(ids) == "".join(pieces)


def test_special_strings_in_a_text_stay_text(bpe, llama, qwen):
    text = "a <|im_end|> and </s> or <|endoftext|> and <unk>"
    for tokenizer in (bpe, ByteTokenizer(), PretrainedTokenizer(str(llama)), PretrainedTokenizer(str(qwen))):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(tokenizer.specials.values())
        assert tokenizer.decode(ids) == text
        marked = [tokenizer.specials["bos"], *ids, tokenizer.specials["eos"]]
        assert tokenizer.decode(marked) == text


def foreign(folder, kind):
    """A tokenizer whose own vocabulary holds its special tokens, found in a text by the library itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    specials = ("<s>", "</s>", "<|im_end|>")
    letters = sorted(set("".join(specials) + "abc helo0xA"))
    vocab = {token: index for index, token in enumerate(dict.fromkeys(["<unk>", *letters]))}
    merges = []
    for special in specials:
        for end in range(2, len(special) + 1):
            vocab.setdefault(special[:end], len(vocab))
            merges.append((special[: end - 1], special[end - 1]))
    merges = list(dict.fromkeys(merges))
    if kind == "unigram":
        scores = [(token, 0.0 if token in specials else -float(len(token))) for token in vocab]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    elif kind in ("words", "pieces"):
        names = {"unk_token": "<unk>"} if kind == "words" else {"unk_token": "<unk>", "continuing_subword_prefix": ""}
        tokenizer = Tokenizer({"words": models.WordLevel, "pieces": models.WordPiece}[kind](vocab, **names))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", ignore_merges=kind == "whole"))
    tokenizer.decoder = decoders.Fuse()
    assert {vocab[special] for special in specials} & set(tokenizer.encode("</s>").ids)
    content = json.loads(tokenizer.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": vocab[special], "content": special, **flags} for special in specials]
    content["added_tokens"].sort(key=lambda token: token["id"])
    write_json(folder / "tokenizer.json", content)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    return {vocab[special] for special in specials}


@pytest.mark.parametrize("kind", ["unigram", "words", "pieces", "merges", "whole"])
def test_special_strings_stay_text_whatever_the_model_finds(tmp_path, kind):
    specials = foreign(tmp_path, kind)
    tokenizer = PretrainedTokenizer(str(tmp_path))
    for text in ("</s>", "hello <|im_end|> </s>", "a<s>b</s><|im_end|>"):
        ids = tokenizer.encode(text)
        assert not specials & set(ids)
        if kind not in ("words", "pieces"):
            assert tokenizer.decode(ids) == text
    assert tokenizer.token(tokenizer.specials["eos"]) == "</s>"
    assert tokenizer.decode([tokenizer.specials["eos"]]) == ""


def test_added_tokens_of_letters_beyond_ascii_come_back(qwen, bpe, tmp_path):
    content = json.loads((qwen / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = ["<é>", "ñandú", "[Ġ]", "数字", "<Ã©>"]
    content["added_tokens"] += [{"id": bpe.size + 2 + n, "content": token, **flags} for n, token in enumerate(added)]
    write_json(tmp_path / "tokenizer.json", content)
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|endoftext|>"})
    tokenizer = PretrainedTokenizer(str(tmp_path))
    for text in (*added, "café <é> señor ñandú [Ġ]", "Ã© <Ã©>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<é>") == [bpe.size + 2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content["model"].update(vocab={}), "is empty"),
        (lambda content: content["model"]["vocab"].update(zzz="7"), "'zzz' has the id '7'"),
        (lambda content: content["model"]["vocab"].update(zzz=-1), "'zzz' has the id -1"),
        (lambda content: content["model"]["vocab"].update(zzz=1 << 40), "'zzz' has the id"),
        (lambda content: content["added_tokens"].append({"content": 5, "id": 9}), "the token 5 has the id 9"),
        (lambda content: content.update(model=[]), "is not a tokenizer"),
    ],
)
def test_vocabularies_that_are_none_are_refused(qwen, tmp_path, change, told):
    content = json.loads((qwen / "tokenizer.json").read_text())
    change(content)
    write_json(tmp_path / "tokenizer.json", content)
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|endoftext|>"})
    with pytest.raises(UserError, match=told):
        PretrainedTokenizer(str(tmp_path))


def test_digits_are_single_tokens(bpe):
    assert [bpe.token(index) for index in bpe.encode("2024")] == list("2024")


def test_training_is_deterministic_and_survives_saving(bpe, tmp_path):
    again = BpeTokenizer(280)
    figures = again.fit(CORPUS, seed=7)
    assert again.fingerprint == bpe.fingerprint
    assert figures["size"] == 280
    assert figures["characters_per_token"] > 1.5
    again.save_weights(tmp_path)
    loaded = BpeTokenizer(280)
    loaded.load(tmp_path)
    assert loaded.fingerprint == bpe.fingerprint
    assert loaded.encode("the number 17 <|im_end|>") == bpe.encode("the number 17 <|im_end|>")
    other = BpeTokenizer(380)
    other.fit(["an entirely different text of other words"] * 5, seed=0)
    assert other.fingerprint != bpe.fingerprint
    assert other.size < 380  # so few words have no more pairs to merge
    assert other.size == len({other.token(index) for index in range(other.size)})


def test_an_untrained_tokenizer_says_so(tmp_path):
    untrained = BpeTokenizer(300)
    assert untrained.size == 300
    for use in (lambda: untrained.fingerprint, lambda: untrained.encode("a"), lambda: untrained.save_weights(tmp_path)):
        with pytest.raises(UserError, match="not trained yet"):
            use()
    with pytest.raises(UserError, match=r"tokenizer\.json: the trained text tokenizer is missing"):
        untrained.load(tmp_path)


def test_qwen_kind_encodes_as_transformers_does(qwen):
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_file=str(qwen / "tokenizer.json"))
    tokenizer = PretrainedTokenizer(str(qwen))
    for text in ("say the number 12", " then", "<tool> by", "naïve 日本"):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False)


def test_llama_kind_encodes_as_transformers_does_without_the_dummy_prefix(llama):
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_file=str(llama / "tokenizer.json"))
    tokenizer = PretrainedTokenizer(str(llama))
    for text in ("say the number 12", "then", "日本"):
        assert tokenizer.encode(f" {text}") == reference.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text) != reference.encode(text, add_special_tokens=False)


def test_special_tokens_of_a_folder(llama, qwen, bpe):
    assert PretrainedTokenizer(str(llama)).specials == {"pad": 0, "bos": 1, "eos": 2}
    assert PretrainedTokenizer(str(llama / "tokenizer.json")).specials == {"pad": 0, "bos": 1, "eos": 2}
    assert plugin.mio_modalities({"tokenizer": str(llama)})[0].specials == ("<|im_start|>", "<|im_end|>")
    assert PretrainedTokenizer(str(qwen)).specials == bpe.specials
    assert plugin.mio_modalities({"tokenizer": str(qwen)})[0].specials == ()


def test_eos_stands_in_for_bos_and_pad(llama, tmp_path):
    content = json.loads((llama / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        name = {"<s>": "<begin>", "<unk>": "<other>"}.get(token["content"])
        if name:
            content["model"]["vocab"][name] = content["model"]["vocab"].pop(token["content"])
            token["content"] = name
    content["model"]["unk_token"] = "<other>"
    write_json(tmp_path / "tokenizer.json", content)
    assert PretrainedTokenizer(str(tmp_path)).specials == {"pad": 2, "bos": 2, "eos": 2}


def test_size_drops_tokens_of_an_extended_checkpoint(qwen, bpe):
    whole, cut = PretrainedTokenizer(str(qwen)), PretrainedTokenizer(str(qwen), bpe.size + 1)
    assert (whole.size, cut.size) == (bpe.size + 2, bpe.size + 1)
    assert whole.token(bpe.size + 1) == "<img0>"
    assert cut.encode("<tool>") == [bpe.size]
    assert max(cut.encode("<img0>")) < bpe.size
    assert whole.fingerprint != cut.fingerprint
    with pytest.raises(UserError, match="cuts into the 280 tokens"):
        PretrainedTokenizer(str(qwen), 279)


def test_gaps_between_ids(qwen, bpe, tmp_path):
    content = json.loads((qwen / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzzz"] = bpe.size + 1
    added = content["added_tokens"]
    content["added_tokens"] = [token | {"id": token["id"] + 2} if token["id"] >= bpe.size else token for token in added]
    write_json(tmp_path / "tokenizer.json", content)
    with pytest.raises(UserError, match=f"gap before {bpe.size + 2} "):
        PretrainedTokenizer(str(tmp_path))
    assert PretrainedTokenizer(str(tmp_path), bpe.size + 2).token(bpe.size) == f"<unused_{bpe.size}>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokeniser": "bpe"}, "`bpe` has no option `tokeniser`; it has `tokenizer`, `size`"),
        ({"tokenizer": 3}, "must be `bpe`, `bytes`, `imported`, or the folder"),
        ({"size": -1}, "`size` is -1; it must be at least 0"),
        ({"size": True}, "`size` must be a whole number, not true"),
        ({"size": 100}, "has 261 tokens .* at least, not 100"),
        ({"tokenizer": "bytes", "size": 300}, "`bytes` has no option `size`; it has `tokenizer`"),
        ({"tokenizer": "/nowhere/yi"}, r"there is no /nowhere/yi.*save_pretrained"),
    ],
)
def test_mistakes_in_the_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        (plugin.mio_modalities(options), plugin.mio_tokenizer("text", options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot read"), ("[]", "is not a mapping"), ("{}", "is not a tokenizer of the library")],
)
def test_a_damaged_folder_is_named(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        PretrainedTokenizer(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_without_eos_is_refused(llama, tmp_path):
    content = json.loads((llama / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "</s>"]
    del content["model"]["vocab"]["</s>"]
    write_json(tmp_path / "tokenizer.json", content)
    with pytest.raises(UserError, match="names no eos_token"):
        PretrainedTokenizer(str(tmp_path))


def test_hooks_answer_for_text_alone():
    assert isinstance(plugin.mio_tokenizer("text", {}), BpeTokenizer)
    assert plugin.mio_tokenizer("text", {}).size == 1024
    assert isinstance(plugin.mio_tokenizer("text", {"tokenizer": "bytes"}), ByteTokenizer)
    assert plugin.mio_tokenizer("image", {}) is None
    assert plugin.mio_datamodule("image") is None
    assert ByteTokenizer().size == 256 + len(SPECIALS)


def test_data_module(tmp_path):
    module = plugin.mio_datamodule("text")
    (tmp_path / "a.txt").write_text("déjà vu", encoding="utf-8")
    assert module.read(tmp_path / "a.txt") == "déjà vu"
    characters = module.filters["characters"]
    assert characters({"text": "abc"}, {"minimum": 4}) == "too short"
    assert characters({"text": "abc"}, {"maximum": 2}) == "too long"
    assert characters({"text": "abc"}, {"minimum": 3, "maximum": 3}) == ""
    assert characters({"caption": "abc"}, {"field": "caption", "minimum": 3}) == ""
    with pytest.raises(UserError, match="has no option `longest`"):
        characters({"text": "abc"}, {"longest": 2})


PARAMETERS = {  # rows of the release, and the parameters that its weights on Hugging Face add up to
    "yi-6b": (64000, 6_061_035_520),
    "llama-2-7b": (32000, 6_738_415_616),
    "mistral-7b": (32000, 7_241_732_096),
    "mixtral-8x7b": (32000, 46_702_792_704),
    "qwen2.5-7b": (152064, 7_615_616_512),
    "qwen3-8b": (151936, 8_190_735_360),
}


def parameters(config, rows):
    """Parameters of a decoder of the Llama family with untied embeddings, counted from its shapes."""
    head = config.head_width or config.width // config.heads
    queries, keys = config.heads * head, (config.kv_heads or config.heads) * head
    attention = config.width * (2 * queries + 2 * keys)
    attention += (queries + 2 * keys) * config.qkv_bias + 2 * head * config.qk_norm
    ffn = 3 * config.width * config.ffn_width * max(config.experts, 1) + config.width * config.experts
    return 2 * rows * config.width + config.layers * (attention + ffn + 2 * config.width) + config.width


@pytest.mark.parametrize("name", PARAMETERS)
def test_backbones_have_their_published_number_of_parameters(name):
    rows, published = PARAMETERS[name]
    assert parameters(TransformerConfig(**plugin.mio_backbones()[name]), rows) == published


def test_every_backbone_is_checked():
    backbones = plugin.mio_backbones()
    assert backbones.keys() == PARAMETERS.keys()
    known = {field.name for field in fields(TransformerConfig)}
    assert all(preset.keys() <= known for preset in backbones.values())
    # what no count of parameters shows, from each release's config.json
    assert {name: preset["rope_theta"] for name, preset in backbones.items()} == {
        "yi-6b": 5e6,
        "llama-2-7b": 1e4,
        "mistral-7b": 1e4,
        "mixtral-8x7b": 1e6,
        "qwen2.5-7b": 1e6,
        "qwen3-8b": 1e6,
    }
    assert [name for name, preset in backbones.items() if preset["norm_eps"] == 1e-6] == ["qwen2.5-7b", "qwen3-8b"]
    assert [name for name, preset in backbones.items() if preset.get("sliding_window")] == ["mistral-7b"]


def test_importing_the_plugin_is_light():
    code = (
        "import sys, mio.plugins.text; print([m for m in ('torch', 'tokenizers', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

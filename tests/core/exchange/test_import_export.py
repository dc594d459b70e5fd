"""Every family in and out: against transformers' own models, and against itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
import yaml
from mio_world import DECLARED, FakeCodecs, FakeText
from repositories import FAMILIES, make_model, train_sentencepiece, write_bpe, write_json
from safetensors.torch import load_file, save_file

import mio
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.exchange.chat_template import chat_template
from mio.core.exchange.reading import ImportOptions, import_folder
from mio.core.exchange.writing import OWN, export_run, parse_size
from mio.core.model.cache import KVCache
from mio.core.recipe.schema import LossConfig
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.writing import CheckpointWriter
from mio.core.runs.lock import Lock, accept_changes
from mio.core.runs.run import Run
from mio.core.tokens.chat import chat_document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

SPARE = 13
"""Rows that the embedding has beyond the tokens, as Qwen's."""
MEDIA = """
name: media
plugins:
  text: {tokenizer: bytes}
  image: {tokenizer: patch_vq}
  speech: {tokenizer: mel_rvq}
model: {width: 32, layers: 2, heads: 2, qk_norm: true, tied_embeddings: true}
data: {form: chat, system: {default: "You are \\"MIO\\".\\nAnswer: {{ 1 }} ü"}}
"""


@pytest.fixture(scope="module")
def manager():
    return PluginManager.discover()


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def source(family, tmp_path, monkeypatch):
    """A repository of the family in several shards, and its model."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "Some-Model"
    folder.mkdir()
    model = make_model(family, write_bpe(folder) + SPARE)
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder, model


@pytest.fixture(scope="module")
def media_run(tmp_path_factory, manager):
    """A run with media blocks as training would leave it, random weights; one block belongs to an absent plugin."""
    from mio.core.recipe.compose import compose
    from mio.core.recipe.model import transformer_config
    from mio.core.recipe.resolved import to_yaml
    from mio.core.runs.lock import lock_run
    from mio.core.runs.weights import save_weights
    from mio.core.tokens.codecs import Codecs
    from mio.core.tokens.tokenizer_files import save_record
    from mio.core.tokens.vocabulary import Vocabulary
    from mio.core.training.module import MioModule

    folder = tmp_path_factory.mktemp("runs") / "media"
    (folder / "tokenizers").mkdir(parents=True)
    (folder.parent / "media.yaml").write_text(MEDIA)
    recipe = compose([str(folder.parent / "media.yaml")], [], manager)
    plugins = manager.enable(recipe.plugins)
    vocabulary = Vocabulary.build(Codecs(plugins).text, plugins.modalities())
    del recipe.plugins["speech"]
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    grown = Vocabulary.build(Codecs(plugins).text, manager.enable(recipe.plugins).modalities(), base=vocabulary)
    grown.save(folder / "vocabulary.json")
    torch.manual_seed(0)
    module = MioModule(transformer_config(recipe, manager), grown, recipe.train)
    with torch.no_grad():
        module.transformer.embedding.weight.mul_(10)
    save_weights(module.transformer, folder)
    write_json(folder / "summary.json", {})
    fingerprints = {"text": Codecs(plugins).text.fingerprint}
    save_record(folder / "tokenizers", fingerprints)
    lock_run(folder, recipe, plugins, grown, fingerprints)
    run = Run(folder, manager)
    run.__dict__["codecs"] = Codecs(run.plugins)  # the patch tokenizer is not trained, and not needed here
    return run


@torch.no_grad()
def greedy(run, prompt, count):
    """Decoding with the cache, every id allowed but those of absent plugins."""
    transformer, size = run.transformer, run.vocabulary.size
    allowed = torch.ones(size, dtype=torch.bool)
    for block in run.vocabulary.blocks:
        allowed[block.start : block.start + block.size] = not block.absent
    cache = KVCache(transformer.config, 1, len(prompt) + count)
    tokens, made = torch.tensor([prompt]), []
    while True:
        hidden = transformer(tokens, cache.positions(tokens.shape[1]), cache=cache).hidden[:, -1]
        cache.advance(tokens.shape[1])
        tokens = transformer.logits(hidden, size).masked_fill(~allowed, -torch.inf).argmax(-1, keepdim=True)
        made.append(int(tokens))
        if len(made) == count:
            return made


@torch.no_grad()
def logits(run, tokens):
    hidden = run.transformer(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape)).hidden
    return run.transformer.logits(hidden, run.vocabulary.size)


def generated(model, prompt, count):
    """Greedy tokens of transformers under the export's own generation_config.json, which may not stop early here."""
    made = model.generate(torch.tensor([prompt]), min_new_tokens=count, max_new_tokens=count)
    return made[0, len(prompt) :].tolist()


@torch.no_grad()
def test_import_export_and_back(source, manager, tmp_path):
    folder, model = source
    made = import_folder(folder, [], [], manager)
    run = Run.open(made.folder, manager)
    size = run.vocabulary.size
    tokens = torch.randint(size, (2, 50))
    assert (made.unnamed, made.unmapped, made.new) == (SPARE, (), ())
    torch.testing.assert_close(logits(run, tokens), model(tokens).logits[..., :size], atol=1e-4, rtol=1e-4)

    out = tmp_path / "out"
    export_run(run, out, shard_size="40KB")
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.config.model_type == model.config.model_type
    torch.testing.assert_close(logits(run, tokens), loaded(tokens).logits, atol=1e-4, rtol=1e-4)
    prompt = tokens[0, :9].tolist()
    loaded.generation_config.eos_token_id = None
    assert generated(loaded, prompt, 64) == greedy(run, prompt, 64)

    back = import_folder(out, [], [], manager, ImportOptions(name="back"))
    assert back.restored
    names = ("recipe.yaml", "recipe.lock")  # which have the run's name, and what hangs on it
    assert digests(back.folder, but=names) == digests(made.folder, but=names)
    locks = [Lock.read(path) for path in (made.folder, back.folder)]
    assert (locks[0].run, locks[0].history) == (locks[1].run, locks[1].history)
    recipes = [yaml.safe_load((path / "recipe.yaml").read_text()) for path in (made.folder, back.folder)]
    assert recipes[0] | {"name": "back"} == recipes[1]


def digests(folder, but):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def test_every_token_has_its_id_and_its_string_in_transformers(media_run, tmp_path):
    out = tmp_path / "out"
    export_run(media_run, out)
    vocabulary = media_run.vocabulary
    for tokenizer in (
        transformers.AutoTokenizer.from_pretrained(out),
        transformers.PreTrainedTokenizerFast.from_pretrained(out),
    ):
        ids = list(range(vocabulary.size))
        strings = [vocabulary.token(index) for index in ids]
        assert len(tokenizer) == vocabulary.size
        assert tokenizer.convert_tokens_to_ids(strings) == ids
        assert tokenizer.convert_ids_to_tokens(ids) == strings
        media = [index for block in vocabulary.blocks[1:] for index in block.ids]
        written = "".join(vocabulary.token(index) for index in media)
        assert tokenizer(written, add_special_tokens=False).input_ids == media
        assert tokenizer.decode(media) == written
        span = [vocabulary.begin("image"), *vocabulary.code_ids("image", 0)[:3], vocabulary.end("image")]
        text = media_run.codecs.text.encode("héllo 7")
        assert tokenizer("héllo 7<image><img0><img1><img2></image>").input_ids == [
            vocabulary.specials.bos,
            *text,
            *span,
        ]
        assert tokenizer.decode([*text, *span], skip_special_tokens=True) == "héllo 7"
        for name in ("bos", "eos", "pad"):
            assert getattr(tokenizer, f"{name}_token_id") == getattr(vocabulary.specials, name)


def test_the_chat_template_is_the_chat_form(media_run, tmp_path):
    out = tmp_path / "out"
    export_run(media_run, out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    asked = [{"role": "user", "content": "draw 7 {x}"}]
    for messages in (
        [*asked, {"role": "assistant", "content": ""}],
        [{"role": "system", "content": "Be brief."}, *asked, {"role": "assistant", "content": ""}],
    ):
        document = chat_document(messages, media_run.recipe.data.system, output="")
        expected = media_run.renderer.prompt(document).tokens.tolist()
        made = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)
        assert made["input_ids"] == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": "<image><img5></image>"}, " what?"]}]
    text = tokenizer.apply_chat_template(parts, tokenize=False)
    assert text.endswith("<|im_start|>user\n<image><img5></image> what?<|im_end|>\n")


def test_the_chat_template_knows_what_is_given():
    """Jinja's rendering of the template itself, beside the documents that training makes."""
    from transformers.utils.chat_template_utils import render_jinja_template

    picture = mio.Modality(name="image", codebooks=(8,), begin="<image>", end="</image>", code_token="<img{}>")
    voice = mio.Modality(name="speech", codebooks=(8,), begin="<spch>", end="</spch>", code_token="<spch{}>")
    system = {"default": "You are MIO.", "given_speech": "GIVEN", "given_image": "You see it.", "speech": "Aloud."}
    template = chat_template(system, [picture, voice])
    for asked, answered, expected in (
        ("<image><img5></image> what?", "seven", "You see it."),
        ("<image><img5></image> or <spch><spch1></spch>?", "seven", "GIVEN"),
        ("what?", "<image><img5></image>", "You are MIO."),
        ("<image><img5></image>", "<spch><spch1></spch>", "Aloud."),
    ):
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        (text,), _ = render_jinja_template([messages], chat_template=template, bos_token="")
        assert text.startswith(f"<|im_start|>system\n{expected}<|im_end|>\n")


def test_the_chat_template_writes_control_tokens_where_messages_name_them():
    """Token strings and mask beside the documents that training makes of the same conversations."""
    from transformers.utils.chat_template_utils import render_jinja_template

    said = [("p", mio.ControlToken(name="noise", token="<2>", plain_text=True)),
            ("p", mio.ControlToken(name="think", token="<think>"))]  # fmt: skip
    vocabulary = Vocabulary.build(FakeText(), DECLARED, said)
    renderer = Renderer(vocabulary, FakeCodecs(), LossConfig())
    system = {"default": "You are MIO.", "text": "Write."}
    strings = {token.name: token.token for _, token in said}
    template = chat_template(system, [declared for _, declared in DECLARED], strings)
    think = {"type": "control", "name": "think"}
    special = {1: "", 6: "<|im_start|>", 7: "<|im_end|>"}

    def spelled(tokens):
        text = (chr(max(0, one - 100)) if one < 64000 else vocabulary.token(one) for one in tokens)
        return "".join(special.get(one, string) for one, string in zip(tokens, text, strict=True))

    for turns, contents in (
        ([{"content": "Hm.", "control": "noise", "end_tag": False}], [[mio.Control("noise"), "Hm."]]),
        ([{"content": [think, "Yes."]}, {"content": "No."}], [[mio.Control("think"), "Yes."], "No."]),
        ([{"content": "", "control": "noise"}], [[mio.Control("noise")]]),
    ):
        messages, ours = [], []
        for turn, content in zip(turns, contents, strict=True):
            messages += [{"role": "user", "content": "a"}, {"role": "assistant", **turn}]
            ours += [messages[-2], {"role": "assistant", **turn, "content": content}]
        rendered = renderer.render(chat_document(ours, system))
        (text,), (marked,) = render_jinja_template(
            [messages], chat_template=template, bos_token="", return_assistant_tokens_mask=True
        )
        assert text == spelled(rendered.tokens.tolist())
        learnt = rendered.tokens[rendered.weights > 0].tolist()
        assert "".join(text[start:end] for start, end in marked) == spelled(learnt)
    wrong = [{"role": "assistant", "content": "x", "control": "nois"}]
    with pytest.raises(Exception, match="no control token `nois`: there are noise, think"):
        render_jinja_template([wrong], chat_template=template, bos_token="")


def test_the_chat_template_marks_what_is_learnt(media_run, tmp_path):
    export_run(media_run, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    asked = [{"type": "text", "text": "draw "}, {"type": "text", "text": "7"}]
    for answer in ("ü 👍", [{"type": "text", "text": "one"}, " two"], None, []):
        messages = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": "first"},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": answer},
        ]
        said = [answer] if isinstance(answer, str) else [p["text"] if isinstance(p, dict) else p for p in answer or []]
        texts = [["draw ", "7"], "first", "more", said]
        ours = [{"role": m["role"], "content": c} for m, c in zip(messages, texts, strict=True)]
        rendered = media_run.renderer.render(chat_document(ours, media_run.recipe.data.system))
        made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert made["input_ids"] == rendered.tokens.tolist()
        assert made["assistant_masks"] == (rendered.weights > 0).astype(int).tolist()
    unlearnt = [*messages[:3], {"role": "assistant", "content": "x", "weight": 0}]
    made = tokenizer.apply_chat_template(unlearnt, return_dict=True, return_assistant_tokens_mask=True)
    assert sum(made["assistant_masks"]) == len("first") + 1
    for wrong in ([{"type": "image", "image": "a.png"}], [5], 5):
        with pytest.raises(Exception, match=r"cannot be written by this template|must be a string"):
            tokenizer.apply_chat_template([{"role": "user", "content": wrong}])


@torch.no_grad()
def test_padding_and_absent_blocks_are_never_generated(media_run, tmp_path):
    """Rows of zeros would have the logit 0, which is more than most."""
    out = tmp_path / "out"
    export_run(media_run, out)
    vocabulary = media_run.vocabulary
    absent = {index for block in vocabulary.blocks if block.absent for index in block.ids}
    assert len(absent) > 500
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == vocabulary.size < vocabulary.rows
    assert set(model.generation_config.suppress_tokens) == absent
    for start in range(3):
        prompt = [1, 72 + start, 101]
        model.generation_config.eos_token_id = None
        made = generated(model, prompt, 64)
        assert made == greedy(media_run, prompt, 64)
        assert not absent & set(made)
    stops = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert stops == [vocabulary.specials.im_end, vocabulary.specials.eos]


def test_a_checkpoint_is_exported_where_it_is_named(media_run, tmp_path, manager):
    """Of a run that is not finished, and with the checkpoint's weights, not the run's."""
    folder = tmp_path / "runs/unfinished"
    (folder / "tokenizers").mkdir(parents=True)
    for file in ("recipe.yaml", "recipe.lock", "vocabulary.json", "tokenizers/tokenizers.json"):
        shutil.copyfile(media_run.folder / file, folder / file)
    weights = {f"model.{name}": tensor * 2 for name, tensor in media_run.weights().items()}
    writer = CheckpointWriter(folder / "checkpoints")
    writer.save(3, weights, {}, loss=None)
    writer.wait()
    with pytest.raises(UserError, match="holds no finished run"):
        Run.open(folder, manager)
    run = Run.open(latest(folder / "checkpoints"), manager)
    run.__dict__["codecs"] = media_run.codecs
    export_run(run, tmp_path / "out")
    exported = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(exported["model.norm.weight"], 2 * media_run.weights()["norm.weight"])
    assert "`generation_config.json` is greedy" in (tmp_path / "out/README.md").read_text()
    # once the run has come to its end there are figures, of other weights
    figures = {"caption": {"accuracy": 0.5, "n": 2, "intervals": {"accuracy": [0.1, 0.9]}}}
    (folder / "summary.json").write_text(json.dumps({"tasks": figures}))
    run.recipe.generate = {"text": {"temperature": 0.7}}
    export_run(run, tmp_path / "early")
    shutil.copyfile(media_run.folder / "model.safetensors", folder / "model.safetensors")
    result = Run(folder, manager)
    result.__dict__["codecs"] = media_run.codecs
    result.recipe.generate = {"text": {"beams": 3}}
    export_run(result, tmp_path / "last")
    for name, has in (("early", False), ("last", True)):
        card = (tmp_path / name / "README.md").read_text()
        assert ("Held-out figures" in card, (tmp_path / name / "mio/summary.json").exists()) == (has, has)
        way = "searches with 3 beams" if has else "draws tokens at temperature 0.7"
        assert f"`generation_config.json` {way}. transformers" in card


def test_an_export_is_restored_by_plugins_that_declare_the_same(media_run, tmp_path, manager, monkeypatch):
    export_run(media_run, tmp_path / "out")
    lock = Lock.read(tmp_path / "out/mio")
    [name, *_] = lock.spans
    changed = {**lock.spans, name: {**lock.spans[name], "layout": "another"}}
    replace(lock, spans=changed).save(tmp_path / "out/mio" / "recipe.lock")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"`{name}` declares `layout` .*, but the run was made with another"):
        import_folder(tmp_path / "out", [], [], manager)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def tied(folder, change):
    """A model with `tie_word_embeddings`, its tensors changed."""
    folder.mkdir()
    size = write_bpe(folder)
    make_model("llama-tied-llama3", size).save_pretrained(folder)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return size


@torch.no_grad()
@pytest.mark.parametrize("kind", ["differs", "alike", "alone"])
def test_a_head_beside_a_tied_embedding_is_what_transformers_makes_of_it(tmp_path, manager, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    changes = {
        "differs": lambda tensors: tensors | {head: torch.randn_like(tensors[embedding])},
        "alike": lambda tensors: tensors | {head: tensors[embedding].clone()},
        "alone": lambda tensors: {head if name == embedding else name: tensor for name, tensor in tensors.items()},
    }
    size = tied(tmp_path / "source", changes[kind])
    made = import_folder(tmp_path / "source", [], [], manager)
    assert made.untied == (kind == "differs")
    run = Run.open(made.folder, manager)
    tokens = torch.randint(size, (1, 20))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "source")
    torch.testing.assert_close(logits(run, tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    export_run(run, tmp_path / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(again(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=1e-4)


def test_a_run_with_media_comes_back(media_run, tmp_path, manager, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_run(media_run, tmp_path / "out", shard_size="20KB")
    restored = import_folder(tmp_path / "out", [], [], manager)
    vocabulary = media_run.vocabulary
    assert (restored.folder / "vocabulary.json").read_bytes() == (media_run.folder / "vocabulary.json").read_bytes()
    assert (restored.folder / "recipe.yaml").read_bytes() == (media_run.folder / "recipe.yaml").read_bytes()
    old, new = (load_file(folder / "model.safetensors") for folder in (media_run.folder, restored.folder))
    assert old.keys() == new.keys()
    for name in old.keys() - {"embedding.weight"}:
        assert torch.equal(old[name], new[name])
    rows = new["embedding.weight"]
    assert torch.equal(rows[: vocabulary.size], old["embedding.weight"][: vocabulary.size])
    assert rows.shape[0] == vocabulary.rows
    assert not rows[vocabulary.size :].any()  # padding is never read nor predicted


def test_a_text_tokenizer_from_a_folder_travels_with_the_export(tmp_path, manager, monkeypatch):
    """The recipe names a folder that is not there where the export is read."""
    monkeypatch.chdir(tmp_path)
    for name in ("tokenizer", "source"):
        (tmp_path / name).mkdir()
        size = write_bpe(tmp_path / name)
    make_model("llama", size).save_pretrained(tmp_path / "source")
    made = import_folder(tmp_path / "source", [], [], manager)
    recipe = yaml.safe_load((made.folder / "recipe.yaml").read_text())
    recipe["plugins"]["text"] = {"tokenizer": "tokenizer"}
    (made.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    accept_changes(made.folder, manager)
    run = Run.open(made.folder, manager)
    assert run.vocabulary.size == size  # the same files have the same fingerprint, whichever way they are named
    export_run(run, tmp_path / "out")
    (tmp_path / "tokenizer").rename(tmp_path / "elsewhere")
    back = import_folder(tmp_path / "out", [], [], manager, ImportOptions(name="back"))
    again = Run.open(back.folder, manager)
    assert again.recipe.plugins["text"] == {"tokenizer": "imported"}
    assert again.vocabulary.fingerprint == run.vocabulary.fingerprint
    assert again.codecs.text.encode("the number 17") == run.codecs.text.encode("the number 17")


@pytest.mark.parametrize(
    ("kind", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("keep", torch.float32)]
)
def test_types(tmp_path, manager, monkeypatch, kind, dtype):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "source"
    folder.mkdir()
    make_model("llama", write_bpe(folder)).save_pretrained(folder)
    made = import_folder(folder, [], [], manager, ImportOptions(dtype=kind))
    stored = load_file(made.folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    original = load_file(folder / "model.safetensors")["model.norm.weight"]
    assert torch.equal(stored["norm.weight"], original.to(dtype))
    run = Run.open(made.folder, manager)
    assert run.transformer.norm.weight.dtype == torch.float32
    export_run(run, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    export_run(run, tmp_path / "wide", dtype="fp32")
    assert load_file(tmp_path / "wide/model.safetensors")["model.norm.weight"].dtype == torch.float32


def test_a_stage_starts_from_an_import_and_grows(tmp_path, manager, monkeypatch):
    """A plain backbone without ChatML: text, two new tokens; then a stage adds the blocks of a modality."""
    from mio.core.recipe.compose import compose
    from mio.core.recipe.model import transformer_config
    from mio.core.runs.weights import start_weights
    from mio.core.tokens.vocabulary import Vocabulary
    from mio.core.training.module import MioModule

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "source"
    folder.mkdir()
    size = train_sentencepiece(folder / "tokenizer.model")
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    model = make_model("llama", size)
    model.save_pretrained(folder)
    made = import_folder(folder, [], [], manager)
    assert made.new == ("<|im_start|>", "<|im_end|>")
    parent = Run.open(made.folder, manager)
    assert [block.name for block in parent.vocabulary.blocks] == ["text", "<|im_start|>", "<|im_end|>"]
    rows = parent.weights()["embedding.weight"]
    theirs = model.model.embed_tokens.weight.detach()
    assert torch.equal(rows[:size], theirs)
    distance = (rows[size : size + 2] - theirs.mean(0)).norm(dim=1)
    assert (distance < 0.3 * (theirs - theirs.mean(0)).norm(dim=1).mean()).all()
    child = {
        "name": "child",
        "plugins": {"text": parent.recipe.plugins["text"], "image": {"tokenizer": "patch_vq"}},
        "model": parent.recipe.model,
    }
    (tmp_path / "child.yaml").write_text(yaml.safe_dump(child))
    recipe = compose(["child.yaml"], [], manager)
    vocabulary = Vocabulary.build(
        parent.codecs.text, manager.enable(recipe.plugins).modalities(), base=parent.vocabulary
    )
    module = MioModule(transformer_config(recipe, manager), vocabulary, recipe.train)
    report = start_weights(module.transformer, module.vocabulary, parent, seed=0)
    assert report == {"kept": size + 2, "new": 66, "absent": 0}
    assert torch.equal(module.transformer.embedding.weight[:size].detach(), theirs)


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("700B", 700), ("2KB", 2000)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "0GB", "-1GB", "5GiB"])
def test_what_is_no_size(text):
    with pytest.raises(UserError, match="is not a size"):
        parse_size(text)


class TestMistakes:
    @pytest.fixture
    def exported(self, media_run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        export_run(media_run, tmp_path / "out")
        return tmp_path / "out"

    def test_a_folder_that_holds_something_is_not_overwritten(self, media_run, exported):
        with pytest.raises(UserError, match="exists and is not empty"):
            export_run(media_run, exported)

    def test_a_run_is_not_overwritten_and_nothing_is_left_behind(self, exported, manager, tmp_path):
        import_folder(exported, [], [], manager)
        with pytest.raises(UserError, match=r"runs/media exists already; give another `--name`"):
            import_folder(exported, [], [], manager)
        (exported / OWN / "vocabulary.json").write_text("{}")
        with pytest.raises(UserError, match=r"vocabulary\.json: is not what the run wrote"):
            import_folder(exported, [], [], manager, ImportOptions(name="other"))
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["media"]

    def test_an_export_changed_afterwards(self, exported, manager):
        config = json.loads((exported / "config.json").read_text())
        config["rope_parameters"]["rope_theta"] = 5e5
        write_json(exported / "config.json", config)
        with pytest.raises(UserError, match=r"config.json and mio/recipe.yaml disagree on `rope_theta`"):
            import_folder(exported, [], [], manager)

    def test_an_export_with_other_rows(self, exported, manager):
        model = transformers.AutoModelForCausalLM.from_pretrained(exported)
        model.resize_token_embeddings(model.config.vocab_size + 3)
        model.save_pretrained(exported)
        with pytest.raises(UserError, match="the model was changed since its export"):
            import_folder(exported, [], [], manager)

    def test_an_export_brings_its_own_recipe(self, exported, manager):
        with pytest.raises(UserError, match="brings its own recipe"):
            import_folder(exported, ["stage1"], [], manager)

    @pytest.mark.parametrize("file", ["recipe.yaml", "vocabulary.json"])
    def test_half_an_export(self, exported, manager, file):
        (exported / OWN / file).unlink()
        with pytest.raises(UserError, match=f"{file} is missing"):
            import_folder(exported, [], [], manager)

    @pytest.mark.parametrize("kind", ["fp8", "float32", ""])
    def test_unknown_types(self, media_run, exported, manager, kind):
        with pytest.raises(UserError, match="is none of keep, bf16, fp16, fp32"):
            import_folder(exported, [], [], manager, ImportOptions(dtype=kind))
        with pytest.raises(UserError, match="is none of keep"):
            export_run(media_run, exported.parent / "other", dtype=kind)
        assert not (exported.parent / "other").exists()

"""Repositories laid out as the published MIO and AnyGPT ones: rows are found by token string, whatever their order.

Each row of the made-up embedding holds its own number, so that a row says where it came from.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from repositories import train_sentencepiece, write_json
from safetensors.torch import load_file, save_file

from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.exchange.reading import ImportOptions, import_folder
from mio.core.exchange.text import text_tokenizer
from mio.core.exchange.tokens import FolderTokens
from mio.core.exchange.writing import export_run
from mio.core.runs.run import Run

YI = ("<|startoftext|>", "<|endoftext|>", "<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>")
MIO_SPECIALS = ("[SPCH]", "</spch>", "[IMG]", "<spch>", "</image>", "<image>")
"""In the order of their ids in MIO-7B's config.json."""
IMAGE = [f"<img{code}>" for code in range(8192)]
SPEECH = [f"<spch{code}>" for code in range(4096)]
MIO_RECIPE = """
name: mio
plugins: {text: {tokenizer: 01-ai/Yi-6B}, image: {tokenizer: seed}, speech: {tokenizer: speechtokenizer}, video: {}}
model: {preset: yi-6b}
"""
ANYGPT_RECIPE = "name: anygpt\nplugins: {text: {}, anygpt: {}}"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_theta": 5e6,
    "max_position_embeddings": 4096,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mio.yaml").write_text(MIO_RECIPE)
    (tmp_path / "anygpt.yaml").write_text(ANYGPT_RECIPE)


@pytest.fixture(scope="module")
def manager():
    return PluginManager.discover([f"anygpt={Path(__file__).with_name('anygpt_plugin.py')}"])


def write_repository(folder: Path, specials: tuple[str, ...], added: list[str], files: str = "added_tokens") -> int:
    """Tokenizer and weights. Returns the size of the text tokenizer's own model; `added` follow it in order.

    `files` says where the added tokens are: `added_tokens` (slow tokenizers before transformers 4.34),
    `added_tokens_decoder` (slow ones since), or `tokenizer` (fast ones).
    """
    folder.mkdir()
    size = train_sentencepiece(folder / "tokenizer.model", specials)
    ids = {token: size + place for place, token in enumerate(added)}
    config = {"bos_token": specials[0], "eos_token": specials[1], "unk_token": "<unk>"}
    if files == "added_tokens":
        write_json(folder / "added_tokens.json", dict(sorted(ids.items())))
    elif files == "added_tokens_decoder":
        config["added_tokens_decoder"] = {str(i): {"content": t, "special": t[0] == "["} for t, i in ids.items()}
    else:
        from mio.core.exchange.sentencepiece import added_token, read_sentencepiece

        definition = read_sentencepiece(folder / "tokenizer.model").definition()
        definition["added_tokens"] += [added_token(index, token, special=False) for token, index in ids.items()]
        write_json(folder / "tokenizer.json", definition)
        (folder / "tokenizer.model").unlink()
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "config.json", CONFIG | {"vocab_size": size + len(added)})
    write_weights(folder, size + len(added))
    return size


def write_weights(folder: Path, rows: int) -> None:
    width, half = 8, 4
    layer = "model.layers.0."
    numbers = torch.arange(rows, dtype=torch.float32)[:, None]
    tensors = {
        "model.embed_tokens.weight": numbers.repeat(1, width),
        "lm_head.weight": -numbers.repeat(1, width),
        "model.norm.weight": torch.ones(width),
        f"{layer}input_layernorm.weight": torch.ones(width),
        f"{layer}post_attention_layernorm.weight": torch.ones(width),
        f"{layer}self_attn.q_proj.weight": torch.randn(width, width),
        f"{layer}self_attn.k_proj.weight": torch.randn(half, width),
        f"{layer}self_attn.v_proj.weight": torch.randn(half, width),
        f"{layer}self_attn.o_proj.weight": torch.randn(width, width),
        f"{layer}self_attn.rotary_emb.inv_freq": torch.ones(2),
        **{f"{layer}mlp.{name}_proj.weight": torch.randn(width, width) for name in ("gate", "up", "down")},
    }
    first, second = dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for name, shard in zip(names, (first, second), strict=True):
        torch.save(shard, folder / name)
    places = dict.fromkeys(first, names[0]) | dict.fromkeys(second, names[1])
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": places})


def sources(made, manager) -> dict[str, int]:
    """Token string -> the row of the repository that it was read from; embedding and head must agree."""
    run = Run.open(made.folder, manager)
    vocabulary = made.vocabulary
    rows, head = run.weights()["embedding.weight"], run.weights()["head.weight"]
    assert torch.equal(rows, -head)
    assert rows.shape[0] == vocabulary.rows
    assert not rows[vocabulary.size :].any()
    return {vocabulary.token(index): int(rows[index, 0]) for index in range(vocabulary.size)}


ORDERS = {
    "speech first": [*MIO_SPECIALS, *SPEECH, *IMAGE],
    "image first": [*MIO_SPECIALS, *IMAGE, *SPEECH],
    "specials last": [*IMAGE, *SPEECH, *MIO_SPECIALS],
    "interleaved": [
        *(t for pair in zip(IMAGE[:4096], SPEECH, strict=True) for t in pair),
        *IMAGE[4096:],
        *MIO_SPECIALS,
    ],
}


@pytest.mark.parametrize("files", ["added_tokens", "added_tokens_decoder", "tokenizer"])
@pytest.mark.parametrize("order", ORDERS)
def test_mio(tmp_path, manager, order, files):
    repository = tmp_path / "MIO-7B-Instruct"
    size = write_repository(repository, YI, ORDERS[order], files)
    made = import_folder(repository, ["mio.yaml"], [], manager, ImportOptions(name="mio", text=size))
    vocabulary = made.vocabulary
    assert [block.name for block in vocabulary.blocks][1:5] == ["<image>", "</image>", "<spch>", "</spch>"]
    assert vocabulary.blocks[0].size == size
    found = sources(made, manager)
    declared = {token for block in vocabulary.blocks[1:] for token in block.strings()}
    assert declared >= {"<image>", "</image>", "<spch>", "</spch>", *IMAGE, *SPEECH}
    for place, token in enumerate(ORDERS[order]):
        if token in declared:
            assert found[token] == size + place
    for index in range(size):
        assert found[vocabulary.token(index)] == index
    # ids of the second speech codebook run on where the first ends
    assert vocabulary.token(vocabulary.code_ids("speech", 1).start) == "<spch1024>"
    assert set(made.unmapped) == set(MIO_SPECIALS) - declared
    assert made.unnamed == 0
    assert (made.new, set(made.overruled)) == ((), {"width", "layers", "heads", "kv_heads", "head_width", "ffn_width",
                                                     "norm_eps"})  # fmt: skip
    specials = vocabulary.specials
    assert (specials.bos, specials.eos, specials.im_start, specials.im_end) == (1, 2, 6, 7)


def test_tokens_added_to_the_text_stay_text(tmp_path, manager):
    """Without a size, everything below the first token of a plugin is text: nobody else would keep it."""
    repository = tmp_path / "MIO-7B"
    size = write_repository(repository, YI, ORDERS["speech first"])
    made = import_folder(repository, ["mio.yaml"], [], manager)
    declared = {token for block in made.vocabulary.blocks[1:] for token in block.strings()}
    kept = next(place for place, token in enumerate(MIO_SPECIALS) if token in declared)
    assert made.vocabulary.blocks[0].size == size + kept
    found = sources(made, manager)
    assert [found[token] for token in MIO_SPECIALS[:kept]] == list(range(size, size + kept))


ANYGPT = [
    "[Human]", "[MMGPT]", "<eoh>", "<eos>",
    *(f"<👀{code}>" for code in range(8192)), "<soim>", "<eoim>",
    *(f"<🗣\ufe0f{code}>" for code in range(1024)), "<sosp>", "<eosp>",
    *(f"<🎶{code}>" for code in range(8192)), "<somu>", "<eomu>",
    "<-Res->", "<-Ins->",
]  # fmt: skip
"""stage1_pretrain.py and stage2_sft.py add them in this order."""


def test_anygpt(tmp_path, manager):
    repository = tmp_path / "AnyGPT-chat"
    size = write_repository(repository, ("<s>", "</s>"), ANYGPT)
    made = import_folder(repository, ["anygpt.yaml"], [], manager)
    vocabulary = made.vocabulary
    found = sources_with_new(made, manager)
    assert {token: found[token] for token in ANYGPT} == {token: size + place for place, token in enumerate(ANYGPT)}
    assert vocabulary.blocks[0].size == size + 4  # [Human], [MMGPT], <eoh> and <eos> are text
    assert made.new == ("<|im_start|>", "<|im_end|>")
    assert made.unmapped == ()
    options = Run.open(made.folder, manager).recipe.plugins["text"]
    assert options == {"tokenizer": "imported", "specials": ["<|im_start|>", "<|im_end|>"]}
    text = text_tokenizer(Run.open(made.folder, manager).plugins, made.folder)  # there are no tokenizers of media
    ids = text.encode("[Human]: the number 7<eoh> [MMGPT]: <🎶5>")
    assert [text.token(index) for index in ids if index >= size] == ["[Human]", "<eoh>", "[MMGPT]"]
    assert text.decode(ids) == "[Human]: the number 7<eoh> [MMGPT]: <🎶5>"  # codes in a text are no codes


def test_an_imported_model_goes_out_without_tokenizers_of_media(tmp_path, manager):
    """Under mio's order, in safetensors; and comes back as it was."""
    repository = tmp_path / "MIO-7B"
    size = write_repository(repository, YI, ORDERS["interleaved"])
    made = import_folder(repository, ["mio.yaml"], [], manager, ImportOptions(text=size))
    exported = export_run(Run.open(made.folder, manager), tmp_path / "out")
    assert exported.size == made.vocabulary.size
    tokens = FolderTokens.read(tmp_path / "out")
    rows = load_file(tmp_path / "out/model.safetensors")["model.embed_tokens.weight"]
    old = FolderTokens.read(repository)
    assert tokens.ids.keys() == old.ids.keys() - set(made.unmapped)
    for token, index in tokens.ids.items():
        assert int(rows[index, 0]) == old.ids[token]
    back = import_folder(tmp_path / "out", [], [], manager, ImportOptions(name="back"))
    files = [(folder / "model.safetensors").read_bytes() for folder in (made.folder, back.folder)]
    assert files[0] == files[1]


def sources_with_new(made, manager):
    rows = Run.open(made.folder, manager).weights()["embedding.weight"]
    return {made.vocabulary.token(index): int(rows[index, 0].round()) for index in range(made.vocabulary.size)}


def test_other_names_are_given_by_hand(tmp_path, manager):
    """AnyGPT's image tokens read as those of mio's own plugin."""
    repository = tmp_path / "AnyGPT-base"
    size = write_repository(repository, ("<s>", "</s>"), ANYGPT)
    (tmp_path / "seed.yaml").write_text("plugins: {text: {}, image: {tokenizer: seed}}")
    tokens = ["<img{}>=<👀{}>", "<image>=<soim>", "</image>=<eoim>", "<|im_end|>=<-Ins->"]
    declared = {m.name: m for _, m in manager.enable({"image": {"tokenizer": "seed"}}).modalities()}["image"]
    tokens += [f"{token}=<-Res->" for token in declared.specials]
    made = import_folder(repository, ["seed.yaml"], [], manager, ImportOptions(tokens=tokens))
    found = sources_with_new(made, manager)
    assert [found[f"<img{code}>"] for code in range(8192)] == list(range(size + 4, size + 4 + 8192))
    assert (found["<image>"], found["</image>"]) == (size + 8196, size + 8197)
    assert found["<|im_end|>"] == size + len(ANYGPT) - 1
    assert made.new == ("<|im_start|>",)
    assert "<🎶0>" in made.unmapped
    assert len(made.unmapped) == 1026 + 8194 + (0 if declared.specials else 1)


class TestMistakes:
    @pytest.fixture
    def repository(self, tmp_path):
        folder = tmp_path / "repository"
        self.size = write_repository(folder, ("<s>", "</s>"), ANYGPT)
        return folder

    def fails(self, manager, folder, recipes=("anygpt.yaml",), **options):
        with pytest.raises(UserError) as caught:
            import_folder(folder, list(recipes), [], manager, ImportOptions(**options))
        assert not Path("runs").exists() or not list(Path("runs").iterdir())
        return str(caught.value)

    def change(self, path, change):
        content = json.loads(path.read_text())
        change(content)
        write_json(path, content)

    def test_missing_codes(self, repository, manager):
        def change(content):
            for code in range(100, 105):
                del content[f"<👀{code}>"]

        self.change(repository / "added_tokens.json", change)
        told = self.fails(manager, repository)
        assert "the tokenizer has no `<👀100>`, `<👀101>`, `<👀102>` and 2 more" in told
        assert "plugin `anygpt` declares `<👀{}>`" in told
        assert "--token '<👀{}>=THEIRS'" in told

    def test_the_variation_selector_is_pointed_out(self, repository, manager):
        path = repository / "added_tokens.json"
        path.write_text(path.read_text().replace("\ufe0f", ""))
        told = self.fails(manager, repository)
        assert r"it has '<\U0001f5e30>', which looks the same" in told
        made = import_folder(repository, ["anygpt.yaml"], [], manager, ImportOptions(tokens=["<🗣\ufe0f{}>=<🗣{}>"]))
        assert sources_with_new(made, manager)["<🗣\ufe0f7>"] == self.size + ANYGPT.index("<🗣\ufe0f7>")

    def test_two_ids_for_one_string(self, repository, manager):
        path = repository / "added_tokens.json"
        path.write_text(path.read_text().replace("{", '{"<soim>": 5,', 1))
        assert "key `<soim>` occurs twice" in self.fails(manager, repository)
        self.change(
            repository / "tokenizer_config.json",
            lambda content: content.update(added_tokens_decoder={"7": {"content": "<eoim>"}}),
        )
        write_json(path, {token: self.size + place for place, token in enumerate(ANYGPT)})
        assert "the token '<eoim>' has the id 7, elsewhere it has" in self.fails(manager, repository)

    def test_one_id_for_two_strings(self, repository, manager):
        self.change(repository / "added_tokens.json", lambda content: content.update({"<x>": content["<soim>"]}))
        assert "'<x>' and '<soim>' both have the id" in self.fails(manager, repository)

    def test_one_token_for_two_things(self, repository, manager):
        told = self.fails(manager, repository, tokens=["<eoim>=<soim>"])
        assert "its token `<soim>` would become both `<soim>` and `<eoim>`" in told

    @pytest.mark.parametrize(
        ("token", "told"),
        [
            ("<eom>=<x>", "`<eom>` is not a token of the recipe's plugins; did you mean `<eomu>`?"),
            ("<eoim>", "`<eoim>` is not a token of the recipe's plugins"),
            ("<👀{}>=<x>", "must hold one `{}`"),
            ("<eoim>=<x{}>", "must be one token string"),
            ("<eoim>=", "must be one token string"),
            ("<eoim>=<nothing>", "`<eoim>` is called `<nothing>` by `--token`"),
        ],
    )
    def test_wrong_names(self, repository, manager, token, told):
        assert told in self.fails(manager, repository, tokens=[token])

    def test_text_that_would_take_in_codes(self, repository, manager):
        told = self.fails(manager, repository, text=self.size + 5)
        assert f"would take in `<👀0>`, id {self.size + 4}; give `--text-size {self.size + 4}`" in told

    def test_a_model_without_the_modality(self, tmp_path, manager):
        write_repository(tmp_path / "plain", ("<s>", "</s>"), [])
        told = self.fails(manager, tmp_path / "plain")
        assert "the tokenizer has no `<soim>`" in told
        assert "or leave the plugin out of the recipe: a later stage adds it" in told

    def test_fewer_rows_than_tokens(self, repository, manager):
        write_weights(repository, self.size + 100)
        self.change(repository / "config.json", lambda content: content.update(vocab_size=self.size + 100))
        told = self.fails(manager, repository)
        assert f"the embedding only {self.size + 100} rows" in told

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"model_type": "gpt2"}, "config.json: `model_type` 'gpt2' is not supported"),
            (
                {"intermediate_size": 16},
                "`model.layers.0.mlp.gate_proj.weight` is [8, 8], by config.json it is [16, 8]",
            ),
            ({"num_hidden_layers": 2}, "config.json says `num_hidden_layers` 2, but its weights hold only 1 of them"),
            ({"model_type": "qwen2"}, "its weights lack the tensor `model.layers.0.self_attn.q_proj.bias`"),
        ],
    )
    def test_config_and_weights_that_do_not_fit(self, repository, manager, changes, told):
        self.change(repository / "config.json", lambda content: content.update(changes))
        assert told in self.fails(manager, repository)

    def test_tensors_without_a_place(self, repository, manager):
        shard = repository / "pytorch_model-00001-of-00002.bin"
        content = torch.load(shard, weights_only=True)
        torch.save(content | {"model.layers.1.mlp.up_proj.weight": torch.zeros(8, 8)}, shard)
        assert "`model.layers.1.mlp.up_proj.weight` has no place in the model that config.json describes" in self.fails(
            manager, repository
        )

    def test_no_tokenizer(self, repository, manager):
        (repository / "tokenizer.model").unlink()
        assert "holds neither tokenizer.json nor tokenizer.model" in self.fails(manager, repository)

    def test_a_recipe_without_text(self, repository, manager, tmp_path):
        (tmp_path / "silent.yaml").write_text("plugins: {anygpt: {}}")
        assert "no plugin under `plugins:` declares `text`" in self.fails(manager, repository, ["silent.yaml"])

    def test_safetensors_come_first(self, repository, manager):
        """Where a repository has both, nothing of the `.bin` files is opened."""
        tensors: dict = {}
        for shard in sorted(repository.glob("*.bin")):
            tensors |= torch.load(shard, weights_only=True)
            shard.write_bytes(b"damaged")
        save_file(tensors, repository / "model.safetensors")
        made = import_folder(repository, ["anygpt.yaml"], [], manager)
        assert sources_with_new(made, manager)["<soim>"] == self.size + ANYGPT.index("<soim>")

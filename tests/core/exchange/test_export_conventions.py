"""What other programs look for in an export: card, template, generation defaults, grammar."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from conftest import MELODY
from mio_world import DECLARED, FakeText

from mio import ControlToken, Modality
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.exchange.grammar_file import ending_controls, grammar_content, unfilled
from mio.core.exchange.writing import export_run
from mio.core.runs.run import Run
from mio.core.tokens.vocabulary import Vocabulary

CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A small run with codes; commands and examples run elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
    return Run(finished, PluginManager.discover())


@pytest.fixture
def exported(run, tmp_path):
    export_run(run, tmp_path / "tunes", license="Apache-2.0")
    return tmp_path / "tunes"


def front_matter(folder):
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_says_what_the_hub_reads(exported):
    head, text = front_matter(exported)
    assert head == {
        "library_name": "transformers",
        "pipeline_tag": "any-to-any",
        "license": "apache-2.0",
        "tags": ["mio", "multimodal", "text", "melody"],
    }
    assert "| `melody` | codes of 1 codebook | codes of 1 codebook |" in text
    assert "names no licence" not in text


@pytest.mark.parametrize(
    ("license", "head"),
    [("", {}), ("MIT", {"license": "mit"}), ("MIT OR Apache-2.0",
                                            {"license": "other", "license_name": "MIT OR Apache-2.0"})],
)  # fmt: skip
def test_the_licence_is_the_recipe_s_or_left_out(run, tmp_path, license, head):
    run.recipe.license = license
    export_run(run, tmp_path / "out")
    found, text = front_matter(tmp_path / "out")
    assert {key: value for key, value in found.items() if key.startswith("license")} == head
    assert ("names no licence" in text) == (not license)


@pytest.mark.parametrize("wrong", ["a\nb: c", "MIT or Apache", "x" * 200, "-", "MIT AND"])
def test_what_is_no_licence_is_refused(run, tmp_path, wrong, capsys):
    assert app.run(["export", str(run.folder), str(tmp_path / "out"), f"--license={wrong}"]) == 2
    assert "is not an SPDX identifier or expression such as `Apache-2.0`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_examples_of_the_card_run(exported, capsys):
    """In transformers and in mio, as they stand there."""
    text = (exported / "README.md").read_text(encoding="utf-8")
    [code] = CODE.findall(text)
    exec(compile(code, "README.md", "exec"), {})
    assert "<m" in capsys.readouterr().out
    commands = re.findall(r"^    mio (.*)$", text, re.MULTILINE)
    assert [one.split()[0] for one in commands] == ["import", "generate"]
    for command in commands:
        assert app.run([word.strip('"') for word in command.split()]) == 0


def test_generation_defaults_are_those_that_both_programs_obey(exported):
    """Beside them, what vLLM takes no notice of stays for transformers."""
    content = json.loads((exported / "generation_config.json").read_text())
    assert content["do_sample"] is False
    assert content["top_k"] == 1
    assert content["skip_special_tokens"] is False
    assert isinstance(content["eos_token_id"], list)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {"do_sample": False, "top_k": 1}),
        ({"default": {"temperature": 0.9, "top_p": 0.8}, "text": {"min_p": 0.1}},
         {"do_sample": True, "temperature": 0.9, "top_k": 0, "top_p": 0.8, "min_p": 0.1}),
        ({"default": {"temperature": 0.9, "top_k": 7, "by": {"text": {"temperature": 0.4, "repetition_penalty": 1.2}}}},
         {"do_sample": True, "temperature": 0.4, "top_k": 7, "top_p": 1.0, "repetition_penalty": 1.2}),
        ({"text": {"beams": 4}, "melody": {"temperature": 2}}, {"do_sample": False, "top_k": 1, "num_beams": 4}),
    ],
)  # fmt: skip
def test_they_are_what_the_recipe_says_of_answers_of_text(run, tmp_path, said, expected):
    """transformers reads the file without a word against it, but for `top_k` where nothing is drawn."""
    from transformers import GenerationConfig

    run.recipe.generate = said
    export_run(run, tmp_path / "out")
    content = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert {key: content[key] for key in content if key not in ("suppress_tokens", "skip_special_tokens")
            and not key.endswith("_id")} == expected  # fmt: skip
    config = GenerationConfig.from_pretrained(tmp_path / "out")
    assert {key: getattr(config, key) for key in expected} == expected
    config.validate()


def test_the_template_is_a_file_of_its_own_that_transformers_reads(exported):
    from transformers import AutoTokenizer

    template = (exported / "chat_template.jinja").read_text(encoding="utf-8")
    assert "{%- generation -%}" in template
    assert "chat_template" not in json.loads((exported / "tokenizer_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.chat_template == template
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]
    made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [one for one, learnt in zip(made["input_ids"], made["assistant_masks"], strict=True) if learnt]
    assert tokenizer.decode(marked) == "bc<|im_end|>"


def test_an_export_from_before_these_conventions_is_imported(exported, tmp_path):
    """It had its template in `tokenizer_config.json`, and neither card nor grammar."""
    config = json.loads((exported / "tokenizer_config.json").read_text())
    config["chat_template"] = (exported / "chat_template.jinja").read_text()
    (exported / "tokenizer_config.json").write_text(json.dumps(config))
    for file in ("chat_template.jinja", "README.md", "grammar.json"):
        (exported / file).unlink()
    assert app.run(["import", str(exported), "--name", "back"]) == 0
    assert Run.open(tmp_path / "runs/back", PluginManager.discover()).vocabulary.size


def test_the_grammar_says_every_id_of_the_vocabulary(run, exported):
    content = json.loads((exported / "grammar.json").read_text())
    vocabulary = run.vocabulary
    assert (content["format"], content["version"]) == ("mio-grammar", 2)
    assert content["size"] == vocabulary.size
    melody = content["spans"]["melody"]
    assert melody["begin"] == vocabulary.begin("melody")
    assert [melody["begin_token"], melody["end_token"]] == [vocabulary.token(melody[one]) for one in ("begin", "end")]
    for number, block in enumerate(melody["codebooks"]):
        assert range(block["start"], block["start"] + block["size"]) == vocabulary.code_ids("melody", number)
    frames = vocabulary.modality("melody").frames
    assert melody["frames"] == {"minimum": frames.minimum, "maximum": frames.maximum, "step": 1}
    assert content["stop"] == vocabulary.specials.eos
    assert content["context"] == run.recipe.data.packing.context


def test_what_other_programs_cannot_go_on_with_is_neither_opened_nor_left_unended():
    """Media of heads, media that are only read, and control tokens that end an answer."""
    picture = Modality(name="picture", begin="<p>", end="</p>")
    smell = Modality(name="smell", begin="<smell>")
    over = ControlToken(name="over", token="<over>", action="stop")
    think = ControlToken(name="think", token="<think>", action="insert", insert="So")
    said = [("p", over), ("p", think), ("p", ControlToken(name="hush", token="~", plain_text=True, action="silence"))]
    vocabulary = Vocabulary.build(FakeText(size=400), [*DECLARED, ("p", picture), ("p", smell)], said)
    assert unfilled(vocabulary, {"picture"}) == [vocabulary.id("<p>"), vocabulary.id("<smell>")]
    assert unfilled(vocabulary, {"picture", "image"})[0] == vocabulary.begin("image")
    assert ending_controls(vocabulary) == [vocabulary.id("<over>")]
    content = grammar_content(vocabulary, 7, 64, made={"picture"}, read={"picture", "smell"})
    assert content["ends"] == [2, 7, vocabulary.id("<over>")]
    assert [content["spans"][name]["written"] for name in ("picture", "smell", "speech")] == [
        "head",
        None,
        [0, 1, 2, 3],
    ]
    assert [content["spans"][name]["read"] for name in ("picture", "smell", "speech")] == ["encoder", "encoder", [0]]
    assert content["sequences"]["video"] == {"of": ["image"], "minimum": 2, "maximum": 8, "written": True}
    assert [one["ids"] for one in content["controls"]] == [list(vocabulary.controls.ids[one.name]) for _, one in said]


def test_an_export_writes_no_codes_that_nothing_decodes(run, tmp_path, monkeypatch):
    export_run(run, tmp_path / "before")
    before = json.loads((tmp_path / "before/grammar.json").read_text())["spans"]["melody"]
    monkeypatch.setattr(type(run.plugins), "detokenizer", lambda *_: None)
    run.codecs.__dict__.pop("undecodable", None)
    run.codecs._supplied.clear()
    export_run(run, tmp_path / "out")
    content = json.loads((tmp_path / "out/grammar.json").read_text())
    assert content["spans"]["melody"] == {**before, "written": None}
    assert before["written"]
    never = json.loads((tmp_path / "out/generation_config.json").read_text())["suppress_tokens"]
    assert run.vocabulary.begin("melody") in never


def test_items_of_parts_that_nothing_decodes_are_not_written_either():
    vocabulary = Vocabulary.build(FakeText(size=400), DECLARED)
    content = grammar_content(vocabulary, 7, 64, undecodable={"image"})
    assert content["spans"]["image"]["written"] is None
    assert content["sequences"]["video"]["written"] is False

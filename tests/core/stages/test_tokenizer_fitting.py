"""What trainable tokenizers learn from, and what is said where that is nothing."""

import base64
import json
from itertools import pairwise

import pytest

from mio.core.contract.values import DataModule, Modality, Template
from mio.core.errors import DataError, PluginError
from mio.core.recipe.data_schema import DataConfig, GroupConfig, MixtureConfig, SourceConfig
from mio.core.recipe.schema import Recipe
from mio.core.stages.tokenizer_fitting import _looked_at, fitting_items
from mio.core.tokens import temporary
from mio.core.tokens.codecs import Codecs


class Plugins:
    """Sketches are files of JSON; how many of them were files at once is counted."""

    def control_tokens(self):
        return []

    def encoder(self, modality):  # noqa: ARG002
        return None

    def head(self, modality):  # noqa: ARG002
        return None

    def __init__(self):
        self.files = []

    def modalities(self):
        sketch = Modality(name="sketch", codebooks=(8,), begin="<sk>", end="</sk>")
        return [("made", Modality(name="text", text=True)), ("made", sketch)]

    def sources(self):
        return {}

    def filters(self):
        return {}

    def templates(self):
        return {"pairs": ("made", (Template(direction="read", prompt="{sketch}", response="{word}"),))}

    def datamodule(self, modality):
        return DataModule(read=self.read, suffixes=(".skt",)) if modality == "sketch" else DataModule()

    def read(self, path):
        self.files.append(len([found for found in path.parent.iterdir() if found.suffix == ".skt"]))
        return json.loads(path.read_bytes())


def items(folder, rows, names, **source):
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = SourceConfig(dataset="jsonl", options={"path": str(folder / "data.jsonl")}, **source)
    data = DataConfig(groups={"g": GroupConfig(sources={"s": config})})
    plugins = Plugins()
    recipe = Recipe(name="made", data=data, mixture=MixtureConfig(ratios={"g": 1}))
    return fitting_items(recipe, plugins, Codecs(plugins), names), plugins


def held(value):
    return {"bytes": base64.b64encode(json.dumps(value).encode()).decode()}


def test_media_are_read_one_at_a_time_and_broken_ones_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_folders", {})
    rows = [{"sketch": held([i]), "word": f"w{i}"} for i in range(20)]
    rows += [{"sketch": {"bytes": "abcd"}, "word": "broken"}, {"word": "none"}, {"sketch": held([3]), "word": "again"}]
    found, plugins = items(tmp_path, rows, ["text", "sketch"], templates="pairs")
    assert [media.data for media in found["sketch"]] == [[i] for i in range(20)]
    assert found["text"][:2] == ["w0", "w1"]
    assert max(plugins.files) <= 2  # the last record's goes when the next one's is there


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"word": "a"}] * 3, r"g/s: 3 records or media .*data\.jsonl:1: template `pairs/read` needs field `sketch`"),
        ([{"sketch": [], "word": "a"}], "template `pairs/read`: field `sketch` is empty"),
        ([{"sketch": held([1]), "word": float("nan")}], r"data\.jsonl:1: `word` is NaN"),
        (
            [{"sketch": {"bytes": "abcd"}, "word": "a"}],
            r"data\.jsonl:1: media given as bytes: cannot be read as sketch",
        ),
        ([{"sketch": {"bytes": 3}, "word": "a"}], "`bytes` must be bytes"),
    ],
)
def test_the_reason_surfaces_where_nothing_is_left(tmp_path, rows, words):
    with pytest.raises(DataError, match=f"the tokenizer of `sketch` has to be trained.*{words}") as caught:
        items(tmp_path, rows, ["sketch"], templates="pairs")
    assert "\n" not in str(caught.value)


def test_a_recipe_without_such_media_says_so(tmp_path):
    rows = [{"parts": ["a"]}]
    with pytest.raises(DataError, match="no `sketch` that can be read; add a source of it, or leave its plugin out"):
        items(tmp_path, rows, ["sketch"])


def test_a_split_that_cannot_validate_is_told_before_tokenizers_are_trained():
    class WithCorpus(Plugins):
        def sources(self):
            def corpus(split, options):  # noqa: ARG001
                if split != "train":
                    raise DataError(f"there is no split `{split}`")
                return [{"word": "one"}]

            return {"made/words": ("made", corpus)}

    config = SourceConfig(dataset="made/words", validation_split="tset")
    recipe = Recipe(
        name="made", data=DataConfig(groups={"g": GroupConfig({"s": config})}), mixture=MixtureConfig(ratios={"g": 1})
    )
    with pytest.raises(PluginError, match="there is no split `tset`"):
        fitting_items(recipe, WithCorpus(), Codecs(WithCorpus()), ["text"])


@pytest.mark.parametrize("size", [0, 3, 2000, 2001, 3999, 4000, 7999, 20_000])
def test_a_source_is_looked_at_from_its_beginning_to_its_end(size):
    found = [index for index, _ in _looked_at(list(range(size)))]
    assert len(found) == min(size, 2000)
    assert found[:1] == [0][: len(found)]
    assert all(after - before <= -(-size // 2000) for before, after in pairwise([*found, size]))

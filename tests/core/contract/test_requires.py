"""Plugins that a recipe has to list beside another."""

from __future__ import annotations

from types import ModuleType

import pytest
from conftest import ROOT

from mio import Modality, PluginError, hookimpl
from mio.cli import app
from mio.core.contract.discovery import Candidate
from mio.core.contract.overview import overview
from mio.core.contract.plugins import PluginManager
from mio.core.contract.requires import completed

SKETCH = Modality(name="sketch", codebooks=(16,), begin="<s>", end="</s>", code_token="<s{}>")


def plugin(requires=None, declares=()):
    module = ModuleType("made")
    module.mio_modalities = hookimpl(lambda: list(declares), specname="mio_modalities")
    if requires is not None:
        module.mio_requires = hookimpl(requires, specname="mio_requires")
    return module


def manager(**plugins):
    return PluginManager(Candidate(name, "test 1.0", name, lambda made=made: made) for name, made in plugins.items())


def test_a_recipe_that_lacks_a_plugin_is_refused_with_the_line_to_add():
    found = manager(tints=plugin(lambda: ["sketch"]), sketch=plugin(declares=[SKETCH]))
    with pytest.raises(PluginError) as refused:
        found.enable({"tints": {}}).modalities()
    assert str(refused.value) == (
        "plugin `tints` needs `sketch`, which is not among the recipe's plugins; add `sketch: {}` under `plugins:`"
    )
    assert found.enable({"tints": {}, "sketch": {}}).modalities() == [("sketch", SKETCH)]  # in any order


def test_one_that_is_not_installed_is_said_to_be():
    found = manager(tints=plugin(lambda: ["sketsh"]), sketch=plugin(declares=[SKETCH]))
    message = "no plugin `sketsh` is installed; did you mean `sketch`?; install its package, and add `sketsh: {}`"
    for lacking in (found.enable({"tints": {}, "sketch": {}}).modalities, lambda: completed(found, {"tints": {}})):
        with pytest.raises(PluginError) as refused:
            lacking()
        assert message in str(refused.value)


def test_another_plugin_that_declares_the_modality_will_do():
    found = manager(tints=plugin(lambda: ["sketch"]), pencil=plugin(declares=[SKETCH]))
    assert found.enable({"tints": {}, "pencil": {}}).modalities() == [("pencil", SKETCH)]
    assert found.enable({"tints": {}, "pencil": {}}).lacking() == []


def test_it_may_hang_on_the_options():
    found = manager(tints=plugin(lambda options: options.get("of", [])), sketch=plugin(declares=[SKETCH]))
    assert found.enable({"tints": {}}).lacking() == []
    assert found.enable({"tints": {"of": ["sketch"]}}).lacking() == [("tints", "sketch")]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("sketch", "str must be a list or tuple"),
        (None, "nothing must be a list or tuple"),
        (["sketch", 3, ""], "3 must be the name of a plugin; '' must be the name of a plugin"),
        (["tints"], "`tints` names itself"),
    ],
)
def test_answers_are_checked(answer, problem):
    with pytest.raises(PluginError) as refused:
        manager(tints=plugin(lambda: answer)).enable({"tints": {}}).modalities()
    assert str(refused.value) == f"plugin `tints`, hook `mio_requires`, answer: {problem}"


def test_what_is_needed_is_added_through_several_plugins_and_before_them():
    found = manager(
        tints=plugin(lambda options: ["lines"] if options["warm"] else []),
        lines=plugin(lambda: ["sketch"]),
        sketch=plugin(lambda: ["tints"], declares=[SKETCH]),
    )
    made = completed(found, {"tints": {"warm": True}})
    assert list(made.items()) == [("sketch", {}), ("lines", {}), ("tints", {"warm": True})]
    assert completed(found, made) == made


def test_the_built_in_plugins_say_what_they_need():
    found = PluginManager.discover()
    needs = {
        name: [needed for _, needed in found.enable({name: {}}).lacking()]
        for name, candidate in found.candidates.items()
        if not candidate.problem and "mio_requires" in candidate.hooks
    }
    speech = {"audio_tower": ["speech"]}
    assert needs == {name: ["image"] for name in ("flow_head", "mm_interleaved", "video", "vision_tower")} | speech
    assert found.enable({"flow_head": {"modality": "depth"}}).lacking() == [("flow_head", "depth")]
    assert ("requires", "image", "") in overview(found, "video", {})


def test_a_recipe_is_checked_and_plugins_are_shown_and_checked(tmp_path, monkeypatch, capsys):
    (tmp_path / "tints.py").write_text(
        "import mio\n\n\n@mio.hookimpl\ndef mio_requires():\n    return ['melody']\n", encoding="utf-8"
    )
    (tmp_path / "r.yaml").write_text(
        "name: r\nplugins: {text: {tokenizer: bytes}, tints: {}}\nmixture: {ratios: {words: 1}}\n"
        "data: {groups: {words: {sources: {a: {dataset: jsonl, options: {path: a.jsonl}, templates: text}}}}}\n"
    )
    (tmp_path / "a.jsonl").write_text('{"text": "la"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", f"tints.py:melody={ROOT}/tests/packages/mio-melody/mio_melody.py")
    assert app.run(["recipe", "check", "r.yaml"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "plugin `tints` needs `melody`" in line
    assert "add `melody: {}` under `plugins:`" in line
    assert app.run(["recipe", "check", "r.yaml", "plugins.melody={}"]) == 0
    capsys.readouterr()
    assert app.run(["plugins", "show", "tints"]) == 0
    assert capsys.readouterr().out.split() == ["requires", "melody"]
    assert app.run(["plugins", "check", "tints"]) == 0
    assert "declarations are valid" in capsys.readouterr().out

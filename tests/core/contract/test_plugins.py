"""Discovery that survives broken plugins, hook signatures, and the validation of what plugins return."""

from __future__ import annotations

import math
import sys
import textwrap
from dataclasses import replace
from importlib import metadata
from types import ModuleType, SimpleNamespace

import pytest

import mio
from mio import (
    Choices,
    ControlToken,
    ControlTokens,
    DataModule,
    Decoding,
    Frames,
    Measure,
    Modality,
    PluginError,
    Task,
    Template,
    hookimpl,
)
from mio.core.contract import discovery
from mio.core.contract.discovery import HOOKS, Candidate
from mio.core.contract.plugins import PluginManager
from mio.core.contract.validation import modality_problems

CODES = Modality(name="sketch", codebooks=(16,), begin="<s>", end="</s>", code_token="<s{}>")


def plugin(**hooks):
    """A plugin module with the given functions as hooks."""
    module = ModuleType("made")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function, specname=name))
    return module


def manager(**plugins):
    return PluginManager(Candidate(name, "test 1.0", name, lambda made=made: made) for name, made in plugins.items())


def enabled(**plugins):
    return manager(**plugins).enable({name: {} for name in plugins})


def declaring(*modalities):
    return plugin(mio_modalities=lambda: list(modalities))


# discovery


def fake_entry_points(monkeypatch, *entries):
    def entry_points(group):
        assert group == "mio"
        return list(entries)

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def entry(name, target, dist="acme 2.0"):
    made = metadata.EntryPoint(name, target, "mio")
    package, version = dist.split()
    vars(made)["dist"] = SimpleNamespace(name=package, version=version)
    return made


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes importable modules; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        written.append(name)
        return tmp_path / f"{name}.py"

    yield write
    for name in written:
        sys.modules.pop(name, None)


WORKING = """
    import mio
    @mio.hookimpl
    def mio_modalities():
        return []
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise OSError('libcodec.so\\nis missing')", "OSError: libcodec.so is missing (broken_plugin.py:1)"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "implements no hook"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_work(monkeypatch, modules, text, reason):
    modules("broken_plugin", text)
    modules("working_plugin", WORKING)
    fake_entry_points(monkeypatch, entry("broken", "broken_plugin"), entry("fine", "working_plugin"))
    found = PluginManager.discover()
    assert found.enable({"fine": {}}).names == ["fine"]
    broken = found.candidates["broken"]
    assert reason in broken.problem
    assert "\n" not in broken.problem
    assert broken.origin == "acme 2.0"
    with pytest.raises(PluginError, match=r"plugin `broken` \(acme 2.0\) does not work"):
        found.enable({"fine": {}, "broken": {}})


def test_a_missing_plugin_is_an_error_with_the_nearest_name():
    found = manager(speech=declaring(), image=declaring())
    with pytest.raises(PluginError, match=r"no plugin `speach`.*did you mean `speech`\?.*installed: image, speech"):
        found.enable({"speach": {}})


def test_two_packages_with_one_plugin_name_are_both_named(monkeypatch, modules):
    modules("working_plugin", WORKING)
    fake_entry_points(monkeypatch, entry("twin", "working_plugin"), entry("twin", "working_plugin", dist="other 1.0"))
    with pytest.raises(PluginError, match=r"acme 2.0.*and by other 1.0"):
        PluginManager.discover().enable({"twin": {}})


def test_local_plugins_come_from_files_folders_modules_and_the_environment(monkeypatch, modules, tmp_path):
    fake_entry_points(monkeypatch)
    file = modules("local_file", WORKING)
    modules("local_module", WORKING)
    (tmp_path / "local_package").mkdir()
    (tmp_path / "local_package" / "__init__.py").write_text(textwrap.dedent(WORKING))
    monkeypatch.setenv("MIO_PLUGINS", str(file))
    found = PluginManager.discover(["local_module", f"named={tmp_path / 'local_package'}"])
    assert list(found.candidates) == ["local_file", "local_module", "named"]
    assert [candidate.problem for candidate in found.candidates.values()] == ["", "", ""]
    sys.modules.pop("local_package")


def test_a_local_file_called_like_another_module_is_refused(monkeypatch, tmp_path):
    fake_entry_points(monkeypatch)
    (tmp_path / "json.py").write_text(textwrap.dedent(WORKING))
    with pytest.raises(PluginError, match="another module is called `json`"):
        PluginManager.discover([str(tmp_path / "json.py")])


def test_a_local_plugin_does_not_quietly_replace_an_installed_one(monkeypatch, modules):
    file = modules("taken", WORKING)
    fake_entry_points(monkeypatch, entry("taken", "taken"))
    with pytest.raises(PluginError, match=r"`taken` is claimed by acme 2.0 and by .*taken.py"):
        PluginManager.discover([str(file)])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two plugins, one of them below `src`."""
    fake_entry_points(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    root = tmp_path / "mio-doodle"
    (root / "mio_doodle").mkdir(parents=True)
    (root / "mio_doodle/__init__.py").write_text(textwrap.dedent(WORKING))
    (root / "src/doodle_deep").mkdir(parents=True)
    (root / "src/doodle_deep/__init__.py").touch()
    (root / "src/doodle_deep/inner.py").write_text(
        "import mio\nfrom doodle_deep import __name__ as above\n"
        "class Deep:\n    @mio.hookimpl\n    def mio_modalities(self):\n        return []\nplugin = Deep()\n"
    )
    yield root
    for name in ("mio_doodle", "doodle_deep", "doodle_deep.inner"):
        sys.modules.pop(name, None)


def test_a_local_plugin_has_the_name_that_its_project_gives_it(project):
    def found(*targets):
        return [(one.name, one.problem) for one in PluginManager.discover(targets).candidates.values()]

    package, inner = project / "mio_doodle", project / "src/doodle_deep/inner.py"
    assert found(str(package)) == [("mio_doodle", "")]  # nothing declares it
    (project / "pyproject.toml").write_text("[project]\nentry-points.mio.doodle = 'mio_doodle'\n")
    for place in (project, package, package / "__init__.py"):
        assert found(str(place)) == [("doodle", "")]
        assert found(f"other={place}") == [("other", "")]
    assert found(str(project), str(package)) == [("doodle", "")]  # the same in other words
    (project / "pyproject.toml").write_text(
        "[project.entry-points.mio]\ndoodle = 'mio_doodle'\ndeep = 'doodle_deep.inner:plugin'\n"
    )
    assert found(str(package), str(inner)) == [("doodle", ""), ("deep", "")]
    assert found(f"deep={project}") == [("deep", "")]
    with pytest.raises(PluginError, match=r"declares deep, doodle; say which: `NAME=.*mio-doodle`"):
        found(str(project))


@pytest.mark.parametrize("text", [None, "[project", "[project]\nname = 'x'\n", "project = 3"])
def test_a_folder_without_a_plugin_is_refused(project, text):
    if text is not None:
        (project / "pyproject.toml").write_text(text)
    with pytest.raises(PluginError, match=r"mio-doodle: has neither `__init__.py` nor a `pyproject.toml` with an"):
        PluginManager.discover([str(project)])
    (project / "pyproject.toml").write_text("[project]\nentry-points.mio.doodle = 'elsewhere'\n")
    with pytest.raises(PluginError, match="declares `elsewhere`, which is not in it nor in `src`"):
        PluginManager.discover([str(project)])


# hooks


def test_every_hook_of_the_contract_is_known():
    assert set(HOOKS) == {
        "mio_modalities", "mio_tokenizer", "mio_detokenizer", "mio_datamodule",
        "mio_encoder", "mio_adapters", "mio_head", "mio_control_tokens", "mio_session", "mio_synthesiser",
        "mio_sources", "mio_backbones", "mio_tasks", "mio_recipes", "mio_loggers",
        "mio_layouts", "mio_paths", "mio_requires", "mio_commands",
    }  # fmt: skip


def test_a_misspelt_hook_is_reported_with_the_nearest_name():
    problem = manager(odd=plugin(mio_tokeniser=lambda: None)).candidates["odd"].problem
    assert problem == "`mio_tokeniser` is not a hook; did you mean `mio_tokenizer`?"


def test_a_hook_with_an_unknown_argument_is_reported_with_the_nearest_name():
    problem = manager(odd=plugin(mio_modalities=lambda option: option)).candidates["odd"].problem
    assert problem == "`mio_modalities` has no argument `option`; did you mean `options`? (it has: options)"


def test_a_hook_without_its_marker_is_reported():
    module = ModuleType("made")
    module.mio_sources = lambda: {}
    assert "`mio_sources` lacks the marker `@mio.hookimpl`" in manager(odd=module).candidates["odd"].problem


def test_hooks_take_the_arguments_that_they_name_and_the_plugins_own_options():
    seen = {}

    def modalities(options):
        seen["modalities"] = options
        return [CODES]

    one = plugin(mio_modalities=modalities)
    two = plugin(
        mio_tokenizer=lambda modality, options: seen.update(tokenizer=(modality, options)),
        mio_datamodule=lambda: None,
    )
    plugins = manager(one=one, two=two).enable({"two": {"a": 2}, "one": {"a": 1}})
    with pytest.raises(PluginError, match="no plugin supplies a tokenizer for `sketch`"):
        plugins.tokenizer("sketch")
    assert seen == {"modalities": {"a": 1}, "tokenizer": ("sketch", {"a": 1})}
    assert plugins.datamodule("sketch") == DataModule()
    assert plugins.names == ["two", "one"]


class Decoder:
    def __init__(self, by):
        self.by = by

    def decode(self, codes):
        return codes

    def save(self, media, stem):
        return media, stem


def test_the_first_plugin_that_answers_wins_in_the_recipes_order_unless_one_is_tried_first():
    def answering(by, **options):
        module = declaring(CODES) if by == "a" else ModuleType(by)
        module.mio_detokenizer = hookimpl(lambda: Decoder(by), **options, specname="mio_detokenizer")
        return module

    assert enabled(a=answering("a"), b=answering("b")).detokenizer("sketch").by == "a"
    assert enabled(b=answering("b"), a=answering("a")).detokenizer("sketch").by == "b"
    assert enabled(a=answering("a"), b=answering("b", tryfirst=True)).detokenizer("sketch").by == "b"
    assert enabled(a=declaring(CODES)).detokenizer("sketch") is None


def test_a_crash_inside_a_plugin_is_raised_with_a_note_that_names_it():
    def crash():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        enabled(bad=plugin(mio_modalities=crash)).modalities()
    assert caught.value.__notes__ == ["raised by plugin `bad` in `mio_modalities`"]


def test_a_users_mistake_that_a_plugin_finds_names_the_plugin():
    def refuse():
        raise mio.UserError("unknown option `siez`")

    with pytest.raises(PluginError, match="plugin `bad`: unknown option `siez`"):
        enabled(bad=plugin(mio_modalities=refuse)).modalities()


# values


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Sketch"}, "name"),
        ({"name": "3d"}, "name"),
        ({"name": 3}, "name"),
        ({"parts": "image"}, "at most one of"),
        ({"text": True}, "at most one of"),
        ({"codebooks": (16, 0)}, "codebooks"),
        ({"codebooks": [16]}, "codebooks"),
        ({"codebooks": (True,)}, "codebooks"),
        ({"code_token": "<s>"}, "code_token"),
        ({"code_token": "<s{}{}>"}, "code_token"),
        ({"code_token": ""}, "code_token"),
        ({"begin": ""}, "begin"),
        ({"end": ""}, "end"),
        ({"begin": "a b"}, "begin"),
        ({"end": "<s>"}, "declared twice"),
        ({"specials": ("</s>",)}, "declared twice"),
        ({"specials": "<x>"}, "specials"),
        ({"layout": "flatt"}, "layout"),
        ({"codebooks": (16, 16)}, "layout"),
        ({"views": {"read": (0,)}}, "views"),
        ({"views": {"understand": (1,)}}, "views.understand"),
        ({"views": {"understand": ()}}, "views.understand"),
        ({"views": {"understand": 0}}, "views"),
        ({"codebooks": (4, 4), "layout": "delayed", "views": {"understand": (1, 0)}}, "views.understand"),
        ({"frames": Frames(minimum=0)}, "frames.minimum"),
        ({"frames": Frames(minimum=5, maximum=4)}, "frames.maximum"),
        ({"frames": 16}, "frames"),
    ],
)
def test_a_wrong_declaration_is_refused_by_plugin_hook_and_field(changes, field):
    with pytest.raises(PluginError) as caught:
        enabled(acme=declaring(replace(CODES, **changes))).modalities()
    assert str(caught.value).startswith("plugin `acme`, hook `mio_modalities`, modality")
    assert field in str(caught.value)


def test_all_problems_of_one_declaration_are_told_at_once():
    bad = replace(CODES, name="X", codebooks=(0,), begin="", layout="spiral", frames=Frames(minimum=0, maximum=-1))
    text = "; ".join(modality_problems(bad))
    for field in ("`name`", "`codebooks`", "`begin`", "`layout`", "`frames.minimum`", "`frames.maximum`"):
        assert field in text


def test_a_right_declaration_of_each_kind_is_accepted():
    speech = Modality(
        name="voice", codebooks=(8, 8), begin="<v>", end="</v>", code_token="<v{}>",
        layout="codebook_major", views={"understand": (0,)},
    )  # fmt: skip
    film = Modality(name="film", parts="sketch")
    declared = enabled(
        a=declaring(Modality(name="text", text=True)), b=declaring(CODES, film), c=declaring(speech)
    ).modalities()
    assert declared == [("a", Modality(name="text", text=True)), ("b", CODES), ("b", film), ("c", speech)]


def test_two_plugins_that_claim_one_thing_are_both_named():
    other = replace(CODES, name="other", begin="<o>", end="</o>", code_token="<o{}>")
    for second, what in [
        (CODES, "modality `sketch`"),
        (replace(other, end="</s>"), "token `</s>`"),
        (replace(other, code_token="<s{}>"), "code token `<s{}>`"),
        (replace(other, begin="<s7>"), "token `<s7>`"),
    ]:
        with pytest.raises(PluginError) as caught:
            enabled(one=declaring(CODES), two=declaring(second)).modalities()
        assert what in str(caught.value)
        assert "`one`" in str(caught.value)
        assert "`two`" in str(caught.value)


def test_a_token_that_one_plugin_has_twice_names_it_once():
    with pytest.raises(PluginError, match="token `<s7>`: plugin `one` has it twice"):
        enabled(one=declaring(replace(CODES, begin="<s7>"))).modalities()


def test_a_modality_of_parts_has_no_borders_of_its_own():
    film = Modality(name="film", parts="sketch", begin="<film>", end="</film>")
    with pytest.raises(PluginError, match=r"`begin`: the parts are spans with borders of their own.*; `end`: "):
        enabled(one=declaring(CODES, film)).modalities()


def test_a_modality_of_parts_needs_the_modality_of_its_parts():
    with pytest.raises(PluginError, match="`parts`: no plugin of the recipe declares a modality `sketch`"):
        enabled(film=declaring(Modality(name="film", parts="sketch"))).modalities()


TASK = Task(
    name="draw",
    template=Template(direction="draw", prompt="{caption}", response="{sketch}"),
    records=lambda count: [],  # noqa: ARG005
    output="sketch",
    judge=lambda answers, records: [],  # noqa: ARG005
)


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (
            replace(TASK, output="skech"),
            "`output`: 'skech' is no modality of the plugins in use; did you mean `sketch`",
        ),
        (
            replace(TASK, decoding=Decoding(by={"skech": {"top_k": 1}})),
            "`decoding`: `by.skech`: no modality of the plugins in use; did you mean `sketch`",
        ),
        (replace(TASK, decoding=Decoding(by={"sketch": {"topk": 1}})), "no option `by.sketch.topk`"),
        (replace(TASK, name="a b"), "`name`"),
        (replace(TASK, judge=None), "`judge`"),
        (replace(TASK, template=Template(direction="", response="{sketch}")), "`template`: `direction`"),
        (replace(TASK, template=Template(direction="d", response="{sketch")), "`template`: `response`"),
        ("draw", "returned str where a `mio.Task` is expected"),
        (replace(TASK, measures=()), "`measures`: tuple must be a tuple of at least one `mio.Measure`"),
        (replace(TASK, measures=("wer",)), "`measures[0]`: str, not a `mio.Measure`"),
        (replace(TASK, measures=(Measure(), Measure())), "`measures[1].name`: 'accuracy' is there twice"),
        (replace(TASK, measures=(Measure(name="Exact"),)), "`measures[0].name`: 'Exact' must be lower case"),
        (replace(TASK, measures=(Measure(name="n"),)), "`n` is something else in a report"),
        (replace(TASK, measures=(Measure(better="more"),)), "`measures[0].better`: 'more' must be `higher` or `lower`"),
        (replace(TASK, measures=(Measure(least=2),)), "`measures[0].least`: 2 must be below `most`, 1"),
        (replace(TASK, measures=(Measure(better="lower", most=math.inf),)), "`measures[0].worst`: is missing"),
        (replace(TASK, measures=(Measure(overall="mean"),)), "`measures[0].overall`: must be a function"),
        (replace(TASK, choices=["a"]), "`choices`: list, not a `mio.Choices`"),
        (replace(TASK, choices=Choices(field="scetch", of=list)), "no field 'scetch'; did you mean `sketch`"),
        (replace(TASK, choices=Choices(field="sketch", of=None)), "`choices`: `of` must be a function"),
        (replace(TASK, choices=Choices(field="sketch", of=list, by="tokens")), "did you mean `token`"),
    ],
)
def test_wrong_tasks_are_refused(task, field):
    acme = declaring(CODES)
    acme.mio_tasks = hookimpl(lambda: [task], specname="mio_tasks")
    with pytest.raises(PluginError) as caught:
        enabled(acme=acme).tasks()
    assert str(caught.value).startswith("plugin `acme`, hook `mio_tasks`, task")
    assert field in str(caught.value)


def test_sources_tasks_templates_of_two_plugins_must_not_collide():
    templates = {"set": (TASK.template,)}
    one, two = declaring(CODES), declaring(replace(CODES, name="b", begin="<b>", end="</b>", code_token="<b{}>"))
    for module, name in ((one, "sketch"), (two, "b")):
        module.mio_sources = hookimpl(lambda: {"corpus": print}, specname="mio_sources")
        module.mio_tasks = hookimpl(lambda: [TASK], specname="mio_tasks")
        module.mio_datamodule = hookimpl(
            lambda modality, name=name: DataModule(templates=templates) if modality == name else None,
            specname="mio_datamodule",
        )
    alone = enabled(one=one)
    assert alone.sources() == {"corpus": ("one", print)}
    assert alone.tasks() == {"draw": ("one", TASK)}
    assert alone.templates() == {"set": ("sketch", (TASK.template,))}
    both = enabled(one=one, two=two)
    for call, what in ((both.sources, "source `corpus`"), (both.tasks, "task `draw`")):
        with pytest.raises(PluginError, match=f"{what}: the plugins `one` and `two` both claim it"):
            call()
    with pytest.raises(PluginError, match="template set `set`: the modalities `sketch` and `b` both claim it"):
        both.templates()


@pytest.mark.parametrize("answer", [None, "text", {"sketch": CODES}, 3])
def test_a_hook_that_answers_with_another_type_is_refused(answer):
    with pytest.raises(PluginError, match=r"plugin `acme`, hook `mio_modalities`, answer: .* must be a list or tuple"):
        enabled(acme=plugin(mio_modalities=lambda: answer)).modalities()


def test_tokenizers_and_detokenizers_are_checked_for_their_methods():
    acme = declaring(CODES)
    acme.mio_tokenizer = hookimpl(lambda: SimpleNamespace(encode=list), specname="mio_tokenizer")
    acme.mio_detokenizer = hookimpl(lambda: SimpleNamespace(save=print), specname="mio_detokenizer")
    plugins = enabled(acme=acme)
    with pytest.raises(PluginError, match=r"`acme`, hook `mio_tokenizer`, .*`frames`: .*; `fingerprint`: missing"):
        plugins.tokenizer("sketch")
    with pytest.raises(PluginError, match=r"`acme`, hook `mio_detokenizer`, .*`decode`"):
        plugins.detokenizer("sketch")
    whole = {"decode": list, "save": print}
    acme.mio_detokenizer = hookimpl(lambda: SimpleNamespace(**whole, stream=None), specname="mio_detokenizer")
    with pytest.raises(PluginError, match=r"`acme`, hook `mio_detokenizer`, .*`stream`: .* has no such method"):
        enabled(acme=acme).detokenizer("sketch")


def test_backbones_and_recipes_come_from_all_plugins_that_work(tmp_path):
    (tmp_path / "r.yaml").write_text("name: r\n")
    good = plugin(
        mio_backbones=lambda: {"tiny": {"width": 8}}, mio_recipes=lambda: {"acme/r": str(tmp_path / "r.yaml")}
    )
    bad = plugin(mio_backbones=lambda: {"odd": {"widht": 8}}, mio_recipes=lambda: {"gone": "/nowhere.yaml"})
    found = manager(good=good, bad=bad)
    assert found.backbones() == {"tiny": ("good", {"width": 8})}
    assert "`widht`: no field of `TransformerConfig`; did you mean `width`?" in found.unanswered["bad"]
    assert found.recipes() == {"acme/r": ("good", tmp_path / "r.yaml")}
    with pytest.raises(PluginError, match="backbone `tiny`: the plugins `good` and `twin` both claim it"):
        manager(good=good, twin=plugin(mio_backbones=lambda: {"tiny": {}})).backbones()


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ({}, "dict, not a `mio.ModelLayout`"),
        (mio.ModelLayout(config={}, names={}), "`config`: dict must be a function"),
        (mio.ModelLayout(config=dict, names={"a.": 1}), "`names`: dict must be a mapping of strings to strings"),
        (mio.ModelLayout(config=dict, names={}, beside=["a."]), "`beside`: list must be a mapping of strings"),
        (mio.ModelLayout(config=dict, names={}, code_rows={}), "`code_rows`: dict must be a function or None"),
    ],
)
def test_layouts_of_models_are_checked(layout, problem):
    whole = mio.ModelLayout(config=dict, names={"model.": "model."})
    found = manager(good=plugin(mio_layouts=lambda: {"whole": whole}), bad=plugin(mio_layouts=lambda: {"odd": layout}))
    assert found.layouts() == {"whole": ("good", whole)}
    assert problem in found.unanswered["bad"]


@pytest.mark.parametrize("name", ["digits", "image", "music", "recipes", "speech", "text", "video"])
def test_the_built_in_plugins_work(name):
    candidates = {candidate.name: candidate for candidate in discovery.installed()}
    assert not candidates[name].problem
    assert candidates[name].origin == f"mio {mio.__version__}"


def test_a_task_rests_where_something_is_missing():
    resting = [
        replace(TASK, name="away", needs=("sketch", "sound"), output="sound"),
        replace(TASK, name="bare", needs=("sketch",), missing="set `plugins.acme.data` to a folder"),
        replace(TASK, name="stern", controls=("moved", "solemn")),
        replace(TASK, name="told", controls=("moved",), template=replace(TASK.template, response="{control:moved}")),
        replace(TASK, needs=("sketch",)),
    ]
    acme = declaring(CODES)
    acme.mio_tasks = hookimpl(lambda: resting, specname="mio_tasks")
    plugins = enabled(acme=acme)
    resting.append(replace(TASK, name="heard", needs=("sound",)))
    assert list(plugins.tasks()) == ["draw"]
    assert plugins.no_task("heard").startswith("task `heard`: it asks about `sound`, which the recipe does not have")
    assert (
        plugins.no_task("away")
        == "task `away`: its answers are of `sound`, which the recipe does not have (plugin `acme`)"
    )
    assert plugins.no_task("bare") == "task `bare`: set `plugins.acme.data` to a folder (plugin `acme`)"
    for name in ("stern", "told"):
        why = f"task `{name}`: it looks for the control token `moved`, which no plugin here declares (plugin `acme`)"
        assert plugins.no_task(name) == why
    acme.mio_control_tokens = hookimpl(
        lambda: ControlTokens(tokens=[ControlToken(name="moved", token="<moved>")]), specname="mio_control_tokens"
    )
    assert list(enabled(acme=acme).tasks()) == ["told", "draw"]
    assert "`solemn`" in enabled(acme=acme).no_task("stern")
    assert plugins.no_task("drew") == "no task `drew`; did you mean `draw`?; there are draw"
    other = plugin(mio_tasks=lambda: [replace(TASK, name="sums")])
    known = manager(acme=acme, extra=other).enable({"acme": {}})
    assert known.no_task("sums") == (
        "no task `sums` without the plugin `extra`, which is not in use; add `plugins.extra={}`"
    )
    for wrong, field in (
        (replace(TASK, needs="sketch"), "`needs`: str"),
        (replace(TASK, controls=3), "`controls`: int"),
        (replace(TASK, missing=None), "`missing`"),
    ):
        acme.mio_tasks = hookimpl(lambda wrong=wrong: [wrong], specname="mio_tasks")
        with pytest.raises(PluginError, match=field):
            enabled(acme=acme).tasks()

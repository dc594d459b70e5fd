import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from made_recipe import OWN, Characters, Letters, Plugins, made_recipe

from mio.core.contract.values import DataModule
from mio.core.data.plan import Plan
from mio.core.data.preflight import preflight
from mio.core.data.sample import sample
from mio.core.data.sources import build_streams, open_sources
from mio.core.data.streams import CUT_AWAY, WEIGHTLESS
from mio.core.errors import DataError, PluginError, RecipeError, UserError
from mio.core.recipe.data_schema import SourceConfig, TemplateConfig
from mio.core.tokens.rendered import Rendered


def built(recipe, plugins=None):
    return build_streams(recipe, plugins or Plugins(), Characters())


def checked(recipe, plugins=None):
    streams, sources = built(recipe, plugins)
    return preflight(sources, streams, recipe.data.max_skipped)


def text(stream, n):
    return bytes(token for token in stream.document(n).tokens.tolist() if token > 31).decode()


def test_each_direction_is_a_stream_of_all_records_in_an_order_of_its_own():
    streams, _ = built(made_recipe())
    assert [stream.name for stream in streams] == ["pairs/letters/read", "pairs/letters/write", "talk/turns"]
    assert [stream.share.share for stream in streams] == [1.5, 1.5, 1]
    read, write, turns = streams
    epoch = [text(read, n) for n in range(50)]
    assert sorted(epoch) == sorted(f"{Letters(50)[i]['word']}{i}" for i in range(50))
    assert [read.order(n) for n in range(50)] != [write.order(n) for n in range(50)]
    assert sorted(epoch) == sorted(text(read, n) for n in range(50, 100))
    record = turns.order(3)
    assert text(turns, 3) == f"user{record}?assistant{record}!".replace("\n", "")


class Augmented(Letters):
    """Records that are written otherwise, and longer, from epoch to epoch; some are broken in one epoch alone."""

    def at_epoch(self, index, epoch):
        if (index, epoch) == (7, 1):
            raise OSError("out of paper")
        record = self[index]
        return {**record, "word": record["word"] + "+" * epoch}


class Augmenting(Plugins):
    def sources(self):
        return super().sources() | {"made/letters": ("made", lambda *_: Augmented(50))}


def test_records_of_an_epoch_source_follow_the_epoch():
    read, write, turns = built(made_recipe(), Augmenting())[0]
    for n in (0, 49, 50, 120, 3 * 50 + 7):
        index, epoch = write.order(n), n // 50
        if (index, epoch) != (7, 1):
            assert text(write, n).endswith(Letters(50)[index]["word"] + "+" * epoch)
            assert write.length(n) == len(write.document(n).tokens) - 1
    # whatever was asked before: a resumed run begins anywhere
    again = built(made_recipe(), Augmenting())[0][1]
    assert [text(again, n) for n in (160, 3, 77)] == [text(write, n) for n in (160, 3, 77)]
    assert text(turns, 0) == text(turns, 30).replace(str(turns.order(30)), str(turns.order(0)))
    broken = next(n for n in range(50, 100) if read.order(n) == 7)
    assert read.length(broken) is None
    assert read.describe(broken) == "record 7 of epoch 1: OSError: out of paper"
    assert read.length(next(n for n in range(50) if read.order(n) == 7)) is not None


def test_a_record_of_an_epoch_source_is_held_out_in_all_epochs_or_none():
    recipe = made_recipe(held_out=0.3)
    write = built(recipe, Augmenting())[0][1]
    by_index = {}
    for n in range(200):
        if (write.order(n), n // 50) != (7, 1):
            by_index.setdefault(write.order(n), set()).add(write.length(n) is None)
    assert all(len(seen) == 1 for seen in by_index.values())
    assert 3 < sum(True in seen for seen in by_index.values()) < 30


def test_templates_of_one_direction_share_its_records():
    streams, _ = built(made_recipe())
    write = streams[1]
    polite = {write.order(n): "please" in text(write, n) for n in range(50)}
    assert polite == {write.order(n): "please" in text(write, n) for n in range(50, 100)}
    assert 10 < sum(polite.values()) < 40


def test_a_recipe_replaces_a_template_set():
    recipe = made_recipe()
    recipe.data.templates = {"letters": OWN}
    streams, _ = built(recipe)
    assert streams[0].share.direction == "spell"
    record = streams[0].order(0)
    assert text(streams[0], 0) == f"{record} is {Letters(50)[record]['word']}"


def test_filters_drop_records_and_are_counted_by_reason():
    recipe = made_recipe(filters={"longest": {"at": 5}})
    streams, _ = built(recipe)
    dropped = {i for i in range(50) if 1 + i % 7 > 5}
    read = streams[0]
    assert {read.order(n) for n in range(50) if read.length(n) is None} == dropped
    assert {read.reason(n) for n in range(50) if read.length(n) is None} == {"longest: too long"}
    report = checked(recipe)["pairs/letters"]
    assert report["skipped"] == {"longest: too long": 2 * len(dropped)}
    assert report["broken"] == 0


def test_lengths_are_those_of_the_documents_cut_to_the_context():
    recipe = made_recipe()
    recipe.data.packing.context = 8
    streams, _ = built(recipe)
    for stream in streams:
        for n in range(30):
            whole = len(stream._read(stream.order(n)).tokens)
            assert stream.length(n) == whole - 1
            assert len(stream.document(n).tokens) == min(whole, 9)
            assert stream.truncated(n) == min(whole, 9) - 1


def test_a_document_is_rendered_once_while_it_is_remembered():
    class Counting(Characters):
        calls = 0

        def render(self, document, blank=()):
            Counting.calls += 1
            return super().render(document, blank)

    streams, _ = build_streams(made_recipe(), Plugins(), Counting())
    for n in range(20):
        streams[0].length(n)
        streams[0].document(n)
    assert Counting.calls == 20


def test_preflight_reads_every_record_of_a_users_file_and_lists_broken_ones(tmp_path):
    lines = [json.dumps({"word": "abc", "number": i}) for i in range(300)]
    lines[17], lines[200] = "{broken", json.dumps({"word": "x"})
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines))
    recipe = made_recipe(dataset="jsonl", options={"path": str(path)})
    with pytest.raises(DataError) as caught:
        checked(recipe)
    for words in ("pairs/letters: 2 of 300", "own.jsonl:18: not valid JSON", "own.jsonl:201", "needs field `number`"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    recipe.data.max_skipped = 0.01
    report = checked(recipe)["pairs/letters"]
    assert (report["records"], report["checked"], report["broken"], len(report["problems"])) == (300, 300, 2, 2)
    assert report["skipped"] == {"broken": 4}


def test_lines_of_a_table_are_counted_one_by_one_and_notes_are_reported(tmp_path):
    import io
    import tarfile

    class Reading(Plugins):
        def datamodule(self, modality):  # noqa: ARG002
            return DataModule()

    lines = ["file_name,word,number", *(f"{i}.xyz,abc,{i}" for i in range(9)), "9.xyz,abc,9,more"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    options = {"path": str(tmp_path), "fields": {"x": "text"}}
    with pytest.raises(DataError, match=r"10 of 10 records.*metadata\.csv:2: .*nothing reads files like '0\.xyz'"):
        checked(made_recipe(dataset="folder", options=options), Reading())
    (tmp_path / "metadata.csv").write_text("\n".join(lines).replace("file_name", "x_file_name"))
    recipe = made_recipe(dataset="folder", options=options)
    recipe.data.max_skipped = 0.1
    report = checked(recipe, Reading())["pairs/letters"]
    assert (report["records"], report["broken"]) == (10, 1)
    assert "metadata.csv:11: has 4 fields, the header has 3" in report["problems"][0]

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("1.json", b'{"word": "abc", "number": 3}'), ("1.npy", b"?"), ("LICENSE", b"?")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    recipe = made_recipe(dataset="webdataset", options={"path": str(tmp_path / "a.tar")})
    [note] = checked(recipe, Reading())["pairs/letters"]["notes"]
    assert note.endswith(": without an ending (1), .npy (1)")


def test_broken_records_of_a_plugin_name_the_record_and_the_error():
    recipe = made_recipe(options={"broken": [7]})
    with pytest.raises(DataError, match=r"1 of 50 records.*record 7: OSError: disk trouble at 7"):
        checked(recipe)


def test_whatever_a_record_is_broken_for_is_told():
    class Filtering(Plugins):
        def filters(self):
            return {"long": ("text", lambda record, _: len(record["words"]) > 5)}

    with pytest.raises(DataError, match=r"50 of 50 .*: record \d+: filter `long`: KeyError: 'words'"):
        checked(made_recipe(filters={"long": {}}), Filtering())
    with pytest.raises(DataError, match=r"50 of 50 .*: record \d+: has no field `nix`, by which `held_out_by`"):
        checked(made_recipe(held_out=0.1, held_out_by=["nix"]))


@pytest.mark.parametrize(("returned", "kind"), [(None, "None"), ((one for one in ()), "a generator")])
def test_what_is_no_source_is_refused_with_its_dataset(returned, kind):
    class Shipping(Plugins):
        def sources(self):
            return super().sources() | {"made/letters": ("made", lambda *_: returned)}

    with pytest.raises(PluginError, match=f"dataset `made/letters`: its factory returned {kind}; a source with"):
        built(made_recipe(), Shipping())


def test_what_a_user_is_to_mend_is_said_with_the_source_that_says_it():
    class Missing(Letters):
        def __getitem__(self, index):
            raise UserError("letters.txt is missing; get it")

    class Shipping(Plugins):
        def sources(self):
            return super().sources() | {"made/letters": ("made", lambda *_: Missing(50))}

    with pytest.raises(UserError, match=r"^pairs/letters.*: record \d+: letters.txt is missing"):
        checked(made_recipe(), Shipping())


def test_a_source_with_nothing_left_is_an_error():
    with pytest.raises(DataError, match=r"none of 50 records checked is left: longest: too long \(100\)"):
        checked(made_recipe(filters={"longest": {"at": 0}}))


def test_mistakes_in_the_recipe_are_not_taken_for_broken_records():
    class Broken(Characters):
        def render(self, document, blank=()):  # noqa: ARG002
            raise PluginError("no tokenizer")

    streams, _ = build_streams(made_recipe(), Plugins(), Broken())
    with pytest.raises(PluginError, match="no tokenizer"):
        streams[0].length(0)


def test_sample_is_everything_or_evenly_spaced():
    assert list(sample(20_000, shipped=False)) == list(range(20_000))
    large = sample(1_000_003, shipped=False)
    gaps = Counter(b - a for a, b in pairwise(large))
    assert len(large) == 2000
    assert max(gaps) - min(gaps) <= 1
    assert len(sample(20_000, shipped=True)) == 200
    assert list(sample(30, shipped=True)) == list(range(30))


def test_every_wrong_name_is_reported_at_once():
    recipe = made_recipe(templates="leters", filters={"longst": {}})
    recipe.data.groups["talk"].sources["more"] = SourceConfig(dataset="made/turn")
    with pytest.raises(RecipeError) as caught:
        open_sources(recipe, Plugins())
    assert len(caught.value.problems) == 3
    for near in ("`letters`", "`longest`", "`made/turns`"):
        assert any(f"did you mean {near}?" in problem for problem in caught.value.problems)


def test_errors_of_a_corpus_name_plugin_and_dataset():
    with pytest.raises(PluginError, match="plugin `made`, dataset `made/letters`: no split `tran`"):
        open_sources(made_recipe(split="tran"), Plugins())
    with pytest.raises(DataError, match="`made/letters` has no records in split `train`"):
        open_sources(made_recipe(options={"size": 0}), Plugins())


def test_sources_without_a_share_are_not_opened():
    recipe = made_recipe(dataset="made/letters")
    recipe.mixture.ratios = {"pairs": 1, "talk": 0}
    assert [source.label for source in open_sources(recipe, Plugins())] == ["pairs/letters"]


class Weighted(Characters):
    """Only digits are learnt."""

    def render(self, document, blank=()):
        rendered = super().render(document, blank)
        return Rendered(
            rendered.tokens, np.isin(rendered.tokens, list(b"0123456789")).astype(np.float32), rendered.spans
        )

    def learns(self, document):
        return bool(self.render(document).weights.any())


def weighed(*lines, tmp_path, max_skipped=0.0, **packing):
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = made_recipe(dataset="jsonl", options={"path": str(tmp_path / "own.jsonl")}, directions={"read": 1})
    recipe.mixture.ratios = {"pairs": 1}
    recipe.data.max_skipped = max_skipped
    vars(recipe.data.packing).update(packing)
    streams, sources = build_streams(recipe, Plugins(), Weighted())
    return recipe, streams, sources


def test_documents_without_weight_are_dropped_counted_and_never_drawn(tmp_path):
    lines = [{"word": "a", "number": "b"}, {"word": "a", "number": "1"}, {"word": "a" * 90, "number": "2"}]
    recipe, streams, sources = weighed(*lines, tmp_path=tmp_path)
    report = preflight(sources, streams, 0.0)["pairs/letters"]
    assert report["skipped"] == {WEIGHTLESS: 1, CUT_AWAY: 1}
    plan = Plan(streams, recipe.mixture, recipe.data.packing)
    rows = [plan.next_row() for _ in range(5)]
    assert {streams[0].order(entry.n) for row in rows for entry in row} == {1}
    assert set(plan.counts[0].skipped) == {WEIGHTLESS, CUT_AWAY}


@pytest.mark.parametrize(
    ("line", "policy", "words"),
    [
        (
            {"word": "a" * 90, "number": "2"},
            "truncate",
            r"nothing to learn within the context \(3\); raise `data\.packing",
        ),
        (
            {"word": "a", "number": "b"},
            "truncate",
            r"nothing to learn \(3\); give what is to be learnt a weight above 0",
        ),
    ],
)
def test_a_source_without_any_weight_is_an_error_before_training(tmp_path, line, policy, words):
    _, streams, sources = weighed(line, line, line, tmp_path=tmp_path, too_long=policy)
    with pytest.raises(DataError, match=rf"pairs/letters: none of 3 records checked is left: {words}"):
        preflight(sources, streams, 0.0)


def test_a_direction_of_which_nothing_is_left_is_an_error(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"word": "7", "number": "b"}\n' * 3)
    recipe = made_recipe(dataset="jsonl", options={"path": str(tmp_path / "own.jsonl")})
    recipe.data.templates = {
        "letters": [
            TemplateConfig(direction="spell", response="{number}"),
            TemplateConfig(direction="count", response="{word}"),
        ]
    }
    streams, sources = build_streams(recipe, Plugins(), Weighted())
    with pytest.raises(DataError, match=r"pairs/letters/spell: none of 3 records checked is left: nothing to learn"):
        preflight(sources, streams, 0.0)


def test_unused_columns_cost_nothing_and_unknown_keys_of_turns_are_named(tmp_path):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y1", "mood": "good"}]
    lines = [{"messages": turns, "when": {"deep": [1]}, "score": float("nan")}] * 3
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = made_recipe(dataset="jsonl", options={"path": str(tmp_path / "own.jsonl")}, templates="", form="chat")
    report = checked(recipe)["pairs/letters"]
    assert (report["broken"], report["unknown"]) == (0, {"key `mood` of a turn": 3})


def test_numbers_of_options_are_finite_and_filters_refuse_theirs_before_reading():
    class Strict(Plugins):
        def filters(self):
            def longest(record, options):  # noqa: ARG001
                if set(options) - {"at"}:
                    raise UserError(f"filter `longest` has no option `{min(set(options) - {'at'})}`")
                return ""

            return {"longest": ("text", longest)}

    for filters, words in (
        ({"longest": {"at": float("nan")}}, r"`data\.groups\.pairs\.sources\.letters\.filters\.longest\.at` is nan"),
        ({"longest": {"at": [1, float("inf")]}}, r"longest\.at\[1\]` is inf"),
        ({"longest": 3}, r"filters\.longest` must be a mapping of options, not 3"),
        ({"longest": {"bt": 1}}, "filter `longest` has no option `bt`"),
    ):
        with pytest.raises(RecipeError, match=words):
            built(made_recipe(filters=filters), Strict())
    with pytest.raises(RecipeError, match=r"options\.size` is nan"):
        built(made_recipe(options={"size": float("nan")}))

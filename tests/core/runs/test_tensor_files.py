"""Files of tensors: written as the library writes them, read from every layout, refused where they are damaged."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mio.core.errors import UserError
from mio.core.exchange.model_files import ModelFiles
from mio.core.runs.tensor_files import Planned, in_file_order, write_file, write_shards

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
tensors = st.lists(
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), min_size=0, max_size=3)), min_size=1, max_size=8
)


def make(shapes):
    torch.manual_seed(0)
    return {f"tensor.{i}.ü": torch.randn(shape).to(dtype) for i, (dtype, shape) in enumerate(shapes)}


def plan(state):
    return in_file_order(Planned(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items())


def same(a, b):
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors)
def test_a_streamed_file_is_one_of_the_library(tmp_path, shapes):
    state = make(shapes)
    planned = plan(state)
    path = tmp_path / "model.safetensors"
    write_file(path, planned, ((tensor.name, state[tensor.name]) for tensor in planned))
    assert same(load_file(path), state)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    assert size % 8 == 0
    assert all(header[name]["data_offsets"][0] % tensor.itemsize == 0 for name, tensor in state.items())
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    checkpoint = ModelFiles(tmp_path)
    assert same({name: checkpoint.read(name) for name in checkpoint.tensors}, state)
    assert {name: stored[1:] for name, stored in checkpoint.tensors.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()
    }


def test_tensors_that_are_views(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    state = {"transposed": base.T, "columns": base[:, 1:3], "gradient": torch.nn.Parameter(base[1])}
    planned = plan(state)
    write_file(tmp_path / "model.safetensors", planned, ((tensor.name, state[tensor.name]) for tensor in planned))
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors, st.integers(1, 400))
def test_shards_keep_to_the_limit(tmp_path_factory, shapes, limit):
    folder = tmp_path_factory.mktemp("shards")
    state = make(shapes)
    planned = plan(state)
    count = write_shards(folder, planned, ((tensor.name, state[tensor.name]) for tensor in planned), limit)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == count
    loaded: dict = {}
    for file in files:
        content = load_file(file)
        assert content
        assert len(content) == 1 or sum(t.nbytes for t in content.values()) <= limit
        loaded |= content
    assert same(loaded, state)
    if count > 1:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == state.keys()
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in state.values())
        assert files[0].name == f"model-00001-of-{count:05d}.safetensors"
    checkpoint = ModelFiles(folder)
    assert same({name: checkpoint.read(name) for name in checkpoint.tensors}, state)


STATE = {"a": torch.randn(3, 4), "b": torch.randn(5).half(), "c": torch.randn(2).bfloat16()}


def bin_index(folder, places):
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))


def test_bin_files(tmp_path):
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    checkpoint = ModelFiles(tmp_path)
    assert same({name: checkpoint.read(name) for name in checkpoint.tensors}, STATE)
    torch.save({"a": STATE["a"]}, tmp_path / "one.bin")
    torch.save({"b": STATE["b"], "c": STATE["c"]}, tmp_path / "two.bin")
    bin_index(tmp_path, {"a": "one.bin", "b": "two.bin", "c": "two.bin"})
    checkpoint = ModelFiles(tmp_path)
    assert same({name: checkpoint.read(name) for name in ("b", "a", "c")}, STATE)


class Attack:
    def __reduce__(self):
        import os

        return os.mkdir, ("attacked",)


def refused(folder):
    with pytest.raises(UserError) as caught:
        ModelFiles(folder).check_types()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_code_in_a_bin_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(STATE | {"x": Attack()}, tmp_path / "pytorch_model.bin")
    assert "cannot be read as tensors alone" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    assert "convert it to safetensors" in refused(tmp_path)
    assert not (tmp_path / "attacked").exists()


def test_what_is_not_tensors_by_name(tmp_path):
    torch.save({"model": STATE, "step": 3}, tmp_path / "pytorch_model.bin")
    assert "is it the checkpoint of a trainer?" in refused(tmp_path)


def test_quantised_weights(tmp_path):
    save_file({"w": torch.zeros(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    assert "`w` is stored as I8" in refused(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"w": torch.zeros(4, dtype=torch.int8)}, tmp_path / "pytorch_model.bin")
    assert "`w` is stored as torch.int8" in refused(tmp_path)


def test_no_weights_at_all(tmp_path):
    assert "holds no model.safetensors, no pytorch_model.bin and no index" in refused(tmp_path)
    (tmp_path / "consolidated.00.pth").write_bytes(b"")
    assert "consolidated.00.pth, which transformers does not read" in refused(tmp_path)


def test_damaged_files(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-3])
    assert "not a complete safetensors file" in refused(tmp_path)
    path.write_bytes(b"")
    assert "not a complete safetensors file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"a": "one.bin", "b": "two.bin"}, "1 of 2 shards are missing, two.bin is one"),
        ({"a": "one.bin", "x": "one.bin"}, "promises `x` in it, which is not there"),
        ({"a": "../one.bin"}, "the shard '../one.bin' lies outside the folder"),
        ({"a": "/etc/passwd"}, "the shard '/etc/passwd' lies outside the folder"),
        ({"a": 3}, "has no `weight_map` from tensors to files"),
        (None, "has no `weight_map` from tensors to files"),
    ],
)
def test_index_and_files_that_do_not_fit(tmp_path, places, told):
    torch.save({"a": STATE["a"]}, tmp_path / "one.bin")
    bin_index(tmp_path, places)
    assert told in refused(tmp_path)


def test_one_tensor_in_two_files(tmp_path):
    for name in ("one.bin", "two.bin"):
        torch.save(STATE, tmp_path / name)
    bin_index(tmp_path, {"a": "one.bin", "b": "two.bin", "c": "two.bin"})
    assert "is also in one.bin" in refused(tmp_path)


def test_a_whole_file_counts_before_an_index(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({"old": STATE["a"]}, tmp_path / "old.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"old": "old.safetensors"}}')
    checkpoint = ModelFiles(tmp_path)
    assert checkpoint.tensors.keys() == STATE.keys()
    assert checkpoint.ignored == ("model.safetensors.index.json",)


def test_an_index_that_is_no_json(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{")
    assert "is damaged" in refused(tmp_path)

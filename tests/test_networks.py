import json

import numpy as np
import pytest
import torch

from mio import Codes, Media, UserError, media, networks


def test_devices_by_name():
    assert networks.device("cpu", "plugins.hum") == torch.device("cpu")
    with pytest.raises(UserError, match=r"plugins.hum: `device` is 'tpu9', which torch does not know"):
        networks.device("tpu9", "plugins.hum")
    if torch.cuda.is_available():
        assert networks.device("auto", "plugins.hum").type == "cuda"
    else:
        assert networks.device("auto", "plugins.hum").type == "cpu"
        with pytest.raises(UserError, match=r"plugins.hum: `device` is cuda:1, but torch sees no GPU"):
            networks.device("cuda:1", "plugins.hum")


def test_arithmetic_does_not_depend_on_what_surrounds_it():
    torch.manual_seed(0)
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    expected = a @ b
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        with networks.exact(torch.device("cpu")):
            product = a @ b
    assert product.dtype == torch.float32
    assert torch.equal(product, expected)
    assert product.is_inference()
    torch.set_float32_matmul_precision("medium")
    try:
        with networks.exact(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_one_thread_and_as_many_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with networks.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_misfits_are_named():
    needed = {"a": torch.Size([2]), "b": torch.Size([3]), "c": torch.Size([])}
    problems = networks.misfits(needed, {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)})
    assert networks.described(problems) == "missing: c; of another shape: b [4] instead of [3]; surplus: d"
    assert networks.described(networks.misfits({"a": torch.Size([2])}, {"a": torch.zeros(2)})) == ""
    assert networks.described({"missing": map(str, range(8))}) == "missing: 0, 1, 2, 3, 4 and 3 more"


def test_names_by_rules_in_their_order():
    rules = ((r"^encoder\.", ""), (r"\.linear_([qk])\.", r".\1."), (r"^a\.q\.", "query."))
    assert networks.renamed("encoder.a.linear_q.weight", rules) == "query.weight"
    assert networks.renamed("a.linear_k.b.linear_q.bias", rules) == "a.k.b.q.bias"
    assert networks.renamed("other.encoder.bias", rules) == "other.encoder.bias"


def test_files_of_tensors(tmp_path):
    path = tmp_path / "weights.pt"
    for old in (False, True):
        torch.save({"a": torch.arange(3)}, path, _use_new_zipfile_serialization=not old)
        assert networks.load_tensors(path)["a"].tolist() == [0, 1, 2]
    torch.save({"a": [torch.arange(3)]}, path)
    with pytest.raises(UserError, match="holds more than tensors by name"):
        networks.load_tensors(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="not a checkpoint of tensors"):
        networks.load_tensors(path)


def test_contents_of_a_record():
    picture, other = Media("image", None, "a"), Media("image", None, "b")
    codes = Codes("speech", np.zeros((1, 2), int))
    record = {"caption": "a hat", "image": picture, "parts": ["then", codes, (3, [other])], "nothing": None}
    assert list(media.contents(record)) == [picture, codes, other]
    assert list(media.contents("text")) == []


def test_tensors_of_a_checkpoint_are_found_by_name_whatever_its_files(tmp_path):
    from safetensors.torch import save_file

    first, second = {"a.weight": torch.ones(2)}, {"b.weight": torch.zeros(3)}
    save_file(first, tmp_path / "model-1.safetensors")
    save_file(second, tmp_path / "model-2.safetensors")
    # a shard lies beside its index, wherever that says
    index = {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "../elsewhere/model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    places = networks.tensor_places(tmp_path)
    assert {name: place.name for name, place in places.items()} == {
        "a.weight": "model-1.safetensors",
        "b.weight": "model-2.safetensors",
    }
    assert {name: value.tolist() for name, value in networks.read_tensors(places, places).items()} == {
        "a.weight": [1, 1],
        "b.weight": [0, 0, 0],
    }
    torch.save(first | second, tmp_path / "final.pt")
    places = networks.tensor_places(tmp_path / "final.pt")
    assert networks.read_tensors(places, ["b.weight"])["b.weight"].tolist() == [0, 0, 0]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2\.safetensors: missing; the checkpoint is incomplete"):
        networks.read_tensors(networks.tensor_places(tmp_path), ["b.weight"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors.index.json", b"[]", r"index\.json: not an index of shards"),
        ("model.safetensors.index.json", b"{", r"index\.json: not an index of shards"),
        ("model.safetensors", b"{", r"model\.safetensors: not a file of weights that can be read"),
        ("pytorch_model.bin", b"{", r"pytorch_model\.bin: not a checkpoint of tensors"),
        ("other.txt", b"", r"holds none of model\.safetensors, pytorch_model\.bin, .*, nor an index of their shards"),
    ],
)
def test_checkpoints_that_are_none_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        networks.tensor_places(tmp_path)
    assert "\n" not in str(caught.value)

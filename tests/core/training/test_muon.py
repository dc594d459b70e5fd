"""Muon on split matrices beside torch's own on whole ones, and who works on which matrix."""

import os
from itertools import product

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

from mio.core.distributed.regions import region
from mio.core.training import muon
from mio.core.training.muon import SplitMuon

SIZES = {"up": (24, 16), "down": (16, 24), "odd": (7, 16), "flat": (2, 16), "square": (16, 16), "tall": (40, 8)}
RATES = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}


def made():
    """Matrices among which some have numbers of rows that no mesh divides, and one fewer than ranks."""
    model = nn.Module()
    for seed, (name, shape) in enumerate(SIZES.items()):
        layer = nn.Linear(shape[1], shape[0], bias=False)
        with torch.no_grad():
            layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
        model.add_module(name, layer)
    return model


def gradient(name, step):
    generator = torch.Generator().manual_seed(1000 * step + len(name))
    return torch.randn(SIZES[name], generator=generator) * (1e-3 if name == "odd" else 1)


def trained(model, optimizer, steps=3):
    """Parameters after some steps, whole, by name."""
    for step, (name, layer) in product(range(steps), model.named_children()):
        weight = layer.weight
        given = gradient(name, step)
        split = isinstance(weight, DTensor)
        weight.grad = distribute_tensor(given, weight.device_mesh, weight.placements) if split else given
        if name == list(SIZES)[-1]:
            optimizer.step()
    return {
        name: layer.weight.detach().full_tensor() if isinstance(layer.weight, DTensor) else layer.weight.detach()
        for name, layer in model.named_children()
    }


def spread(layout, size):
    model = made()
    if layout == "full":
        return fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    if layout == "hybrid":
        return fully_shard(model, mesh=init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("replicate", "shard")))
    if layout == "none":
        return fully_shard(model, mesh=init_device_mesh("cpu", (size, 1), mesh_dim_names=("replicate", "shard")))
    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("shard", "tensor"))
    # `odd` and the rest stay whole on both ranks of a tensor-parallel pair, as a router does
    parallelize_module(model, mesh["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["shard"])


LAYOUTS = ("full", "hybrid", "none", "tensor")


def on_rank(rank, size, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    turned = []
    orthogonal = muon._orthogonal

    def counted(update, group):
        turned.append(tuple(update.shape))
        return orthogonal(update, group)

    muon._orthogonal = counted
    found = {}
    for layout in LAYOUTS:
        turned.clear()
        model = spread(layout, size)
        found[layout] = trained(model, SplitMuon(model.parameters(), **RATES)), list(turned)
    torch.save(found, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo that wakes up while the interpreter is taken down would abort the process


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [2, 4])
def test_split_matrices_move_as_whole_ones_and_each_is_orthogonalised_where_it_is_assigned(tmp_path, size):
    torch.multiprocessing.start_processes(on_rank, (size, str(tmp_path)), nprocs=size, start_method="fork")
    model = made()
    expected = trained(model, torch.optim.Muon(model.parameters(), **RATES))
    ranks = [torch.load(tmp_path / str(rank)) for rank in range(size)]
    for layout in LAYOUTS:
        for weights, _ in (rank[layout] for rank in ranks):
            for name, weight in expected.items():
                assert torch.equal(weights[name], weight), (layout, name)
        worked = [turned for _, turned in (rank[layout] for rank in ranks)]
        # what tensor parallelism leaves whole is worked on once by each of its two sides
        copies = {name: 2 if layout == "tensor" and name not in ("up", "down") else 1 for name in SIZES}
        times = 3 * sum(copies.values())
        assert sum(map(len, worked)) == times
        assert max(map(len, worked)) <= 3 * (-(-sum(copies.values()) // size) + 1)
        if layout != "tensor":
            assert sorted(shape for turned in worked for shape in turned) == sorted(list(SIZES.values()) * 3)


def rows_of(count, parts, index):
    """Rows of one of `parts` cuts as torch cuts a dimension: `chunk` leaves out the cuts that are empty."""
    cuts = torch.arange(count).chunk(parts)
    return cuts[index] if index < len(cuts) else torch.arange(0)


@pytest.mark.parametrize("rows", [1, 7, 12, 13])
@pytest.mark.parametrize(("data", "tensor"), [(3, 2), (2, 3), (4, 1)])
def test_parts_are_where_chunks_of_chunks_are(rows, data, tensor):
    """FSDP2 cuts what tensor parallelism left to a device, however uneven that is."""
    placements = (Replicate(), _StridedShard(0, split_factor=tensor), Shard(0))
    for copy, d, t in product(range(2), range(data), range(tensor)):
        (size, width), (start, first) = region((rows, 5), (2, data, tensor), (copy, d, t), placements)
        outer = rows_of(rows, tensor, t)
        expected = outer[rows_of(len(outer), data, d)]
        assert torch.arange(start, start + size).tolist() == expected.tolist()
        assert (width, first) == (5, 0)


@pytest.mark.parametrize("rows", [1, 7, 12])
def test_parts_cut_along_both_dimensions(rows):
    for d, t in product(range(3), range(2)):
        (size, width), (start, first) = region((rows, 5), (3, 2), (d, t), (Shard(0), Shard(1)))
        assert torch.arange(start, start + size).tolist() == rows_of(rows, 3, d).tolist()
        assert (first, width) == ((0, 3), (3, 2))[t]

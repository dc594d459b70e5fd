"""How the transformer is spread over devices: tensor parallelism, activation checkpointing, compilation, FSDP2.

A device mesh has three dimensions. The rows of a step are split over `replicate` and `shard`; parameters, gradients and
optimizer state are split over `shard` (FSDP2; Zhao et al. 2023, arXiv 2304.11277) and copied over `replicate` (hybrid
sharding). `tensor` splits the matrices of each layer and the vocabulary (Shoeybi et al. 2019, arXiv 1909.08053).
Experts may be split over neighbours within `shard` (see `mio.core.model.expert_parallel`).

Nothing here changes a parameter's name: checkpoints, rules and exports see the same model however it is spread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from mio.core.errors import RecipeError
from mio.core.model import attention, causal, layers, networks
from mio.core.model.expert_parallel import mixtures, prefetch, split_experts
from mio.core.model.layers import Attention, RMSNorm
from mio.core.model.lora import LORA_A, LORA_B, MAGNITUDE
from mio.core.model.networks import units
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import RuntimeConfig

DIMENSIONS = ("replicate", "shard", "tensor")


def mesh_shape(runtime: RuntimeConfig, world_size: int, devices_per_node: int) -> tuple[int, int, int]:
    """(replicate, shard, tensor) for `world_size` devices. Raises `RecipeError` where they do not divide."""
    tensor = runtime.tensor_parallel
    if world_size % tensor or (tensor <= devices_per_node and devices_per_node % tensor):
        raise RecipeError(
            [
                f"`runtime.tensor_parallel` is {tensor}, which does not divide {world_size} devices, "
                f"{devices_per_node} of them on a node; set it to a divisor of both"
            ]
        )
    data = world_size // tensor
    within = {"none": 1, "hybrid": max(1, devices_per_node // tensor), "full": data}[runtime.sharding]
    if within % runtime.expert_parallel:
        raise RecipeError(
            [
                f"`runtime.expert_parallel` is {runtime.expert_parallel}, which does not divide the devices "
                f"that parameters are split over ({within}); set it to a divisor"
            ]
        )
    return data // within, within, tensor


def device_mesh(runtime: RuntimeConfig, world_size: int, devices_per_node: int, device_type: str) -> DeviceMesh:
    """The mesh of all devices, with the dimensions `DIMENSIONS`. Needs an initialised process group."""
    shape = mesh_shape(runtime, world_size, devices_per_node)
    return init_device_mesh(device_type, shape, mesh_dim_names=DIMENSIONS)


def data_parallel(mesh: DeviceMesh) -> tuple[int, int]:
    """(rank, size) of this process among those that see different rows."""
    replicate, shard = mesh["replicate"], mesh["shard"]
    return (
        replicate.get_local_rank() * shard.size() + shard.get_local_rank(),
        replicate.size() * shard.size(),
    )


def parallelise(transformer: Transformer, mesh: DeviceMesh, runtime: RuntimeConfig, precision: str) -> None:
    """Spreads a transformer over the devices of `mesh`, in place. Its parameters become `DTensor`s.

    Parameters stay float32 and sharded; with precision `bf16` they are gathered and used in bfloat16, and gradients
    are summed in float32. The transformer may be on the meta device: nothing is allocated then.
    """
    if mesh["tensor"].size() > 1:
        split_matrices(transformer, mesh["tensor"])
    devices = runtime.expert_parallel
    experts = split_experts(transformer, mesh, devices) if devices > 1 else None
    recompute(transformer, runtime.activation_checkpointing)
    if compiles(runtime, mesh.device_type):
        compile_blocks(transformer, mesh.device_type)
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    data = mesh["replicate", "shard"] if mesh["replicate"].size() > 1 else mesh["shard"]
    shard = partial(fully_shard, mesh=data, mp_policy=policy)
    if experts is not None:
        shard = partial(shard, ignored_params=experts.elsewhere)
        for layer in mixtures(transformer):
            shard(layer.experts, mesh=experts.mesh, reshard_after_forward=runtime.reshard)
    # gathered in float32, as one process has them: autocast alone knows in which type each operation of theirs computes
    whole = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for network in _within(transformer):
        shard(network, mp_policy=whole, reshard_after_forward=runtime.reshard)
    for block in transformer.layers:
        shard(block, reshard_after_forward=runtime.reshard)
    for network in _beside(transformer):
        for part in (*units(network), network):
            shard(part, mp_policy=whole, reshard_after_forward=runtime.reshard)
        if hasattr(network, "inputs"):
            register_fsdp_forward_method(network, "inputs")
    if transformer.head is not None:
        shard(transformer.embedding, reshard_after_forward=runtime.reshard)
    # The rest, mostly the head, is gathered once per pass: the loss reads it after the forward pass.
    shard(transformer, reshard_after_forward=False)
    if experts is not None:
        prefetch(transformer)


def _within(transformer: Transformer) -> Iterator[nn.Module]:
    """Networks of plugins inside layers, each of which is gathered as a whole."""
    for block in transformer.layers:
        assert isinstance(block, layers.Block)
        yield from block.adapters.values() if block.reads else ()


def _beside(transformer: Transformer) -> Iterator[nn.Module]:
    """Networks of plugins before the first layer and after the last, which are gathered by their units."""
    yield from (*transformer.encoders.values(), *transformer.heads.values())


def compiles(runtime: RuntimeConfig, device_type: str) -> bool:
    """Whether blocks are compiled; `auto`: on GPUs."""
    return runtime.compile == "blocks" or (runtime.compile == "auto" and device_type == "cuda")


def compile_blocks(transformer: Transformer, device_type: str) -> None:
    """Compiles each block by itself, in place: they are alike, so one compilation serves all of them. The same of the
    units of encoders and heads, for any number of items. Networks of plugins inside blocks are not compiled: what comes
    before them in a block and what comes behind are graphs of their own.

    On a GPU a dense block is one graph of constant shapes; on a CPU the shapes of attention follow the documents, and
    those of experts the tokens.
    """
    # Traced by Dynamo (torch 2.11), a function of one's own that writes in place or returns what `to` did not change
    # loses its gradient without a word; as one node of the graph it keeps it, and is still compiled into it.
    for function in (layers._CpuRMSNorm, attention._Select, causal._CausalAttention, networks._Reached):
        torch.compiler.allow_in_graph(function)
    # how far a block of its queries sees is another number in each batch
    causal.together_attention = torch.compiler.disable(causal.together_attention)
    constant = device_type == "cuda" and not transformer.config.experts
    for layer in mixtures(transformer):
        if layer.exchange is not None:  # what is exchanged is no graph
            layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign]
    for block in transformer.layers:
        if not block.reads:
            block.compile(fullgraph=constant, dynamic=False if constant else None)
            continue
        for part in ("attend", "feed"):  # between them items come in other numbers in each batch
            compiled = torch.compile(getattr(block, part), fullgraph=constant, dynamic=False if constant else None)
            setattr(block, part, compiled)
    for network in _beside(transformer):
        for unit in units(network):  # every pass has another number of items
            unit.compile(dynamic=True)


def as_compiled_for_training(device_type: str) -> contextlib.AbstractContextManager[Any]:
    """For forward passes of other shapes than the training's, which are to leave compiled layers as they are.

    On a GPU shapes are constant, so that others have a graph of their own. On a CPU they would make further dimensions
    dynamic, with other kernels for the training's next shapes, and use up the number of graphs that a layer may have:
    there, such passes are not compiled.
    """
    return torch.compiler.set_stance("force_eager") if device_type == "cpu" else contextlib.nullcontext()


def split_matrices(transformer: Transformer, mesh: DeviceMesh) -> None:
    """Splits heads, hidden units and vocabulary rows over a one-dimensional mesh, in place.

    Activations between the matrices' pairs are local; what enters and leaves a pair is the same on all devices. Head
    rows are split like the embedding's, and the loss is computed in parts (`linear_cross_entropy`).
    """
    plan: dict[str, Any] = {"embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate())}
    if transformer.head is not None:
        plan["head"] = ColwiseParallel()
    for layer in ("query", "key", "value"):
        plan[f"layers.*.attention.{layer}"] = _ByOutputs()
    plan["layers.*.attention.output"] = _ByInputs()
    ffn = "layers.*.ffn.experts.*" if transformer.config.experts else "layers.*.ffn"
    plan[f"{ffn}.gate"] = plan[f"{ffn}.up"] = _ByOutputs()
    plan[f"{ffn}.down"] = _ByInputs()
    parallelize_module(transformer, mesh, plan)
    for module in transformer.layers.modules():
        if isinstance(module, Attention):
            for norm in (module.query_norm, module.key_norm):
                if isinstance(norm, RMSNorm):  # sees this device's heads only, so its gradient is a part of the sum
                    _distribute(norm, mesh, {})
                    norm.gradient = [Partial()]


class _ByOutputs(ColwiseParallel):
    """A linear layer split by its outputs, with its adapter: A is the same on every device, and DTensor sums the parts
    of its gradient."""

    def _partition_linear_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:  # noqa: ARG002
        _distribute(module, device_mesh, {"weight": 0, "bias": 0, LORA_B: 0, MAGNITUDE: 0})


class _ByInputs(RowwiseParallel):
    """A linear layer split by its inputs, with its adapter: B and the magnitude are the same on every device."""

    def _partition_linear_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:  # noqa: ARG002
        _distribute(module, device_mesh, {"weight": 1, LORA_A: 1})


def _distribute(module: nn.Module, mesh: DeviceMesh, split: Mapping[str, int]) -> None:
    """Makes `DTensor`s of a module's parameters, split along the dimension that is given, the others copied."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        placement = Shard(split[name]) if name in split else Replicate()
        spread = nn.Parameter(distribute_tensor(parameter, mesh, [placement]), requires_grad=parameter.requires_grad)
        module.register_parameter(name, spread)


def recompute(transformer: Transformer, what: str) -> None:
    """Activation checkpointing (Chen et al. 2016, arXiv 1604.06174) of each block, with the networks of plugins in it,
    and of each unit of encoders and heads, in place.

    `full` keeps only a block's input. `selective` also keeps every second matrix product and the results of a GPU's
    attention kernel, which are expensive, and recomputes the rest.
    """
    if what == "none":
        return
    for block in (*transformer.layers, *chain.from_iterable(map(units, _beside(transformer)))):
        block.forward = partial(_recomputed, block.forward, what == "selective")


def _recomputed(forward: Callable[..., Any], selective: bool, *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    extra: dict[str, Any] = {"context_fn": _selective_contexts} if selective else {}
    return checkpoint(partial(forward, **named), *arguments, use_reentrant=False, preserve_rng_state=False, **extra)


def _selective_contexts() -> Any:
    products = {"forward": 0, "recompute": 0}

    def policy(context: Any, operation: Any, *arguments: Any, **keywords: Any) -> CheckpointPolicy:  # noqa: ARG001
        if operation in _ATTENTION:
            return CheckpointPolicy.MUST_SAVE
        if operation in _PRODUCTS:
            turn = "recompute" if context.is_recompute else "forward"
            products[turn] += 1
            if products[turn] % 2:
                return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.higher_order.flex_attention,
}


def synchronise(transformer: nn.Module, last: bool) -> None:
    """Tells FSDP2 before a backward pass whether it is the step's last: only that one sums over hybrid sharding's
    copies."""
    if isinstance(transformer, FSDPModule):
        transformer.set_is_last_backward(last)
        transformer.set_requires_all_reduce(last)


def head_part(transformer: Transformer) -> tuple[Tensor, Tensor | None, Any, int]:
    """The head's rows on this device and their bias, the group that has the others (None: there are none), and the
    first row's id."""
    head, bias = transformer.head_weight, transformer.head_bias
    if not isinstance(head, DTensor):
        return head, bias, None, 0
    mesh = head.device_mesh
    rows = head.to_local()
    first = mesh.get_local_rank() * -(-head.shape[0] // mesh.size())
    return rows, bias.to_local() if isinstance(bias, DTensor) else bias, mesh.get_group(), first


def reshard(transformer: nn.Module) -> None:
    """Gives up the parameters that forward passes without a backward pass have left gathered: FSDP2 keeps those of the
    root, and of layers under `reshard: false`, for a backward pass. A training step then begins as it does otherwise.
    """
    for module in transformer.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

"""Low-rank adapters beside frozen linear layers, and vocabulary rows that are trained without their matrix.

LoRA (Hu et al. 2021, arXiv 2106.09685): y = W x + scale B A x. DoRA (Liu et al. 2024, arXiv 2402.09353): the same,
each output times magnitude / |row of W + scale B A|, in which the norm is a constant for the gradient (section 4.3).
Computed as in PEFT (`peft/tuners/lora`), with one difference: no matrix of W's size is made for the norm.

Names of parameters: `layers.0.attention.query.lora_a` [rank, inputs], `.lora_b` [outputs, rank] and, for DoRA,
`.magnitude` [outputs] beside the layer's own `.weight`; `rows.embedding` and `rows.head` [trained rows, D]. Of a head's
bias these rows are trained in its own place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.core.distributed.regions import is_split
from mio.core.errors import RecipeError
from mio.core.model.networks import buffers
from mio.core.model.vocabulary_rows import Ranges, block_ranges
from mio.core.recipe.adapters import Adapter, plan_adapters, row_problems, whole_parameters
from mio.core.recipe.model import EMBEDDING, HEAD, HEAD_BIAS, network_of
from mio.core.recipe.schema import TrainConfig
from mio.core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mio.core.model.transformer import Transformer

LORA_A, LORA_B, MAGNITUDE = "lora_a", "lora_b", "magnitude"
ROWS = {"rows.embedding": EMBEDDING, "rows.head": HEAD}
"""Parameters that replace some rows of others."""


class AdaptedLinear(nn.Linear):
    """A linear layer with an adapter, which takes the parameters of the layer that it replaces."""

    magnitude: nn.Parameter | None

    def __init__(self, base: nn.Linear, adapter: Adapter) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scale = base.in_features, base.out_features, adapter.scale
        self.weight, self.bias = base.weight, base.bias

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=base.weight.device))

        self.lora_a = empty(adapter.rank, base.in_features)
        self.lora_b = empty(base.out_features, adapter.rank)
        self.register_parameter(MAGNITUDE, empty(base.out_features) if adapter.dora else None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        bias = self.bias if self.magnitude is None else None  # DoRA scales what comes before it
        low = _summed(F.linear(x, self.lora_a)) * self.scale
        out = _summed(F.linear(x, self.weight, bias)) + F.linear(low, self.lora_b)
        if self.magnitude is None:
            return out
        # in bfloat16 the ratio, which is near 1, would lose what was learnt; its distance from 1 does not
        ratio = self.magnitude / self.row_norms()
        out = torch.addcmul(out, out, (ratio - 1).to(out.dtype))
        return out if self.bias is None else out + self.bias.to(out.dtype)

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """float32 [outputs]: the 2-norm of each row of W + scale B A.

        With row w of W and b of B, |w + scale A'b|^2 = |w|^2 + 2 scale b'(A w) + scale^2 b'(A A')b.
        """
        weight, scale = self.weight, self.scale
        with torch.autocast(weight.device.type, enabled=False):
            a, b = self.lora_a.to(weight.dtype), self.lora_b.float()
            own = _summed(torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32)).square()
            cross, gram = _summed(F.linear(weight, a)).float(), _summed(F.linear(a, a)).float()
            square = own + (b * (2 * scale * cross + scale**2 * F.linear(b, gram))).sum(1)
            return square.clamp(min=torch.finfo(torch.float32).tiny).sqrt()


def _summed(tensor: Tensor) -> Tensor:
    """What tensor parallelism computed in parts, summed over them."""
    if not is_split(tensor) or not any(placement.is_partial() for placement in tensor.placements):
        return tensor
    from torch.distributed.tensor import Replicate

    whole: Tensor = tensor.redistribute(placements=[Replicate() if p.is_partial() else p for p in tensor.placements])
    return whole


class TrainedRows(nn.Module):
    """Rows of the vocabulary that take the place of those of a frozen embedding and head.

    Gradients and optimizer state are those of these rows alone, where a mask on the gradient needs room for the matrix.

    Args:
        ranges: their ids.
        rows: rows of the whole matrix.
        width: of a row.
        embedding: whether they replace rows of the embedding,
        head: and of a head of its own.
        bias: whether the head's bias, one number per row, is trained in these rows, and nowhere else.
    """

    embedding: nn.Parameter | None
    head: nn.Parameter | None

    def __init__(self, ranges: Ranges, rows: int, width: int, embedding: bool, head: bool, bias: bool) -> None:
        super().__init__()
        self.ranges, self.bias = ranges, bias
        count = sum(end - first for first, end in ranges)
        for name, wanted in (("embedding", embedding), ("head", head)):
            self.register_parameter(name, nn.Parameter(torch.empty(count, width)) if wanted else None)
        # Not a buffer: it is made of the ranges alone, and must survive `to_empty`.
        with torch.device("cpu"):
            place, ids = torch.full((rows,), -1), torch.cat([torch.arange(*one) for one in ranges])
            place[ids] = torch.arange(count)
        self._place = place

    def embed(self, tokens: Tensor, x: Tensor) -> Tensor:
        """`x` [B, L, D], the embeddings of `tokens` int64 [B, L], with those of the trained rows in their place."""
        if self.embedding is None:
            return x
        if self._place.device != tokens.device:
            with torch.inference_mode(False):
                self._place = self._place.to(tokens.device)
        place = self._place[tokens]
        trained = F.embedding(place.clamp(min=0), self.embedding).to(x.dtype)
        return torch.where((place >= 0).unsqueeze(-1), trained, x)


def trained_ranges(vocabulary: Vocabulary, patterns: Sequence[str], known: int) -> Ranges:
    """Ids of the blocks that match patterns of `train.lora.rows`, of a stage that starts with `known` ids.

    Raises `RecipeError` with every pattern that matches no block.
    """
    if problems := row_problems(patterns, [block.name for block in vocabulary.blocks]):
        raise RecipeError(problems)
    return block_ranges(vocabulary, patterns, known)


def adapt(transformer: Transformer, train: TrainConfig, vocabulary: Vocabulary, known: int) -> None:
    """Gives a transformer the adapters and trained rows of a recipe, in place, and freezes the rest. New parameters are
    empty.

    With `precision: bf16` the frozen matrices of the layers are kept in bfloat16, in which they are multiplied anyway.

    Args:
        transformer: not spread over devices yet; may be on the meta device.
        train: of the recipe, with a rank above 0.
        vocabulary: of the stage.
        known: ids that the stage starts with.

    Raises `RecipeError` for patterns that match nothing.
    """
    lora = train.lora
    adapters = plan_adapters(transformer.config, lora)
    names = [name for name, _ in transformer.named_parameters()]
    whole = whole_parameters(names, lora, adapters)
    ranges = trained_ranges(vocabulary, lora.rows, known)
    for name, adapter in adapters.items():
        parent, _, leaf = name.rpartition(".")
        holder = transformer.get_submodule(parent)
        setattr(holder, leaf, AdaptedLinear(getattr(holder, leaf), adapter))
    transformer.frozen = frozenset([*names, *buffers(transformer)]) - whole
    freeze_parameters(transformer, transformer.frozen, train.precision)
    embedding, head = EMBEDDING in transformer.frozen, HEAD in transformer.frozen
    if ranges and (embedding or head):
        rows, bias = transformer.embedding.num_embeddings, HEAD_BIAS in transformer.frozen
        with torch.device(transformer.embedding.weight.device):
            transformer.rows = TrainedRows(ranges, rows, transformer.config.width, embedding, head, bias)
        if bias:  # as small as one of a row's numbers: the other rows' gradients are masked
            transformer.frozen -= {HEAD_BIAS}
            transformer.get_parameter(HEAD_BIAS).requires_grad_()


def freeze_parameters(transformer: Transformer, names: Collection[str], precision: str) -> None:
    """Takes gradients from parameters. With precision `bf16` matrices of layers are kept in bfloat16 from then on, in
    which they are multiplied anyway."""
    for name, parameter in transformer.named_parameters():
        if name not in names:
            continue
        parameter.requires_grad_(False)
        own = name.startswith("layers.") and not network_of(name)  # those of plugins are float32 under autocast
        if precision == "bf16" and parameter.dim() == 2 and own:
            parameter.data = parameter.data.bfloat16()


def kaiming_bound(inputs: int) -> float:
    """Bound of the uniform distribution that `lora_a` is drawn from: `kaiming_uniform_` with a = sqrt(5), as in PEFT
    and in the LoRA paper's own code."""
    return 1 / math.sqrt(inputs)


def row_pieces(ranges: Ranges, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The ids of rows `start` to `stop` of the trained rows, as (first, end) of each run of them."""
    at = 0
    for first, end in ranges:
        low, high = max(start, at), min(stop, at + end - first)
        if low < high:
            yield first + low - at, first + high - at
        at += end - first


@torch.no_grad()
def folded(weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None) -> Tensor:
    """float32 [outputs, inputs]: rows of a matrix with their adapter folded in.

    Args:
        weight: [outputs, inputs]: all columns of some of the rows.
        a, b, scale, magnitude: of the adapter; `b` and `magnitude` of the same rows.
    """
    merged = torch.addmm(weight.float(), b.float(), a.float(), alpha=scale)
    if magnitude is not None:
        merged *= (magnitude.float() / torch.linalg.vector_norm(merged, dim=1)).unsqueeze(1)
    return merged


@torch.no_grad()
def plain_parameters(transformer: Transformer, whole: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Parameters of a transformer as those of a plain one, adapters folded in and trained rows in their places.

    `whole` gathers a parameter that is split over devices. Folded ones are float32; the others are not copied.
    """
    replaced = {} if transformer.rows is None else {ROWS[f"rows.{name}"]: one for name, one in _own(transformer.rows)}
    for name, parameter in transformer.named_parameters():
        layer, _, kind = name.rpartition(".")
        module = transformer.get_submodule(layer)
        if name in ROWS or kind in (LORA_A, LORA_B, MAGNITUDE):
            continue
        tensor = whole(parameter)
        if kind == "weight" and isinstance(module, AdaptedLinear):
            magnitude = None if module.magnitude is None else whole(module.magnitude)
            tensor = folded(tensor, whole(module.lora_a), whole(module.lora_b), module.scale, magnitude)
        elif name in replaced:
            assert transformer.rows is not None
            tensor, rows, at = tensor.clone(), whole(replaced[name]), 0
            for first, end in transformer.rows.ranges:
                tensor[first:end] = rows[at : at + end - first].to(tensor.dtype)
                at += end - first
        yield name, tensor


def _own(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(module.named_parameters(recurse=False))

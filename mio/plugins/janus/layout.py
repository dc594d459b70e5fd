"""A whole Janus in the layout of transformers (`JanusForConditionalGeneration`), for `mio import`.

Codes of images have a table and a network of two layers in the place of embeddings, and a network of two layers in the
place of a head. The first is a constant for each code, which becomes its row of the embedding, exactly. The second has
no place in a head of rows: what a matrix can say of it is kept, see `head_rows`.

K codes, C channels of a code, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mio import CodeRows, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Read = Callable[[str], Tensor]

MODEL = "model."
NAMES = {"model.language_model.": "model.", "lm_head.": "lm_head."}

_TOWER = "left to the plugin `vision_tower`, which reads them by `tower: siglip` and its option `checkpoint`"
_CODEC = "left to the plugin `image`, which reads them by `tokenizer: janus` and its option `checkpoint`"
_EMBEDDING = "folded into rows of the embedding, exactly"
_HEAD = (
    "not kept as it is: a head of rows has no place for its hidden layer. Rows of the head begin as the matrix that is "
    "nearest to it, and have to be trained before images are drawn as they were (recipes/janus/stage1.yaml does)"
)
BESIDE = {
    "model.vision_model.": _TOWER,
    "model.aligner.": _TOWER,
    "model.vqmodel.": _CODEC,
    "model.generation_embeddings.": _EMBEDDING,
    "model.generation_aligner.": _EMBEDDING,
    "model.generation_head.": _HEAD,
}

_LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32_000,
}
"""Defaults of transformers' `LlamaConfig`, which a configuration inside of another may leave out."""

_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""Names of transformers, and what torch calls the approximation."""


def language_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `config.json` of the language model. Raises `UserError` for an activation of the codes' networks that is not
    GELU."""
    _approximation(config)
    text = config.get("text_config") or {}
    # what head and embedding of the whole do is said outside
    return {**_LLAMA, **text, "tie_word_embeddings": config.get("tie_word_embeddings", True)}


def code_rows(config: Mapping[str, Any], read: Read) -> Mapping[str, CodeRows]:
    """Rows of the codes of images."""
    approximation = _approximation(config)
    depth = (config.get("vq_config") or {}).get("num_hidden_layers", 2)
    return {"image": CodeRows(embedding_rows(read, depth, approximation), head_rows(read))}


def embedding_rows(read: Read, depth: int, approximation: str) -> Tensor:
    """What stands for each code in a sequence, float32 `[K, D]`: `generation_aligner` of `generation_embeddings`.

    `depth` layers of the aligner, with GELU between them (`JanusVQVAEAlignerMLP`).
    """
    from torch.nn.functional import gelu, linear

    def layer(name: str, values: Tensor) -> Tensor:
        place = f"{MODEL}generation_aligner.{name}"
        return linear(values, read(f"{place}.weight").float(), read(f"{place}.bias").float())

    values = layer("fc1", read(f"{MODEL}generation_embeddings.weight").float())
    for index in range(depth - 1):
        values = layer(f"hidden_layers.{index}", gelu(values, approximate=approximation))
    return values


def head_rows(read: Read) -> Tensor:
    """The matrix that is nearest to `generation_head`, float32 `[K, D]`: half of the product of its two.

    The head is W2 gelu(W1 h + b1) + b2. Where what the GELU is given is normal around 0, the linear function nearest to
    it in mean square has the slope E[gelu'(z)] = 1/2 (Stein's lemma, C. Stein 1981), whatever its variance. Biases have
    no place in rows.
    """
    first, second = (read(f"{MODEL}generation_head.{name}.weight").float() for name in ("proj_out", "vision_head"))
    return second @ first / 2


def _approximation(config: Mapping[str, Any]) -> str:
    activation = (config.get("vq_config") or {}).get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UserError(f"config.json: `vq_config.hidden_act` {activation!r:.40} is not supported, only {known}")
    return _ACTIVATIONS[activation]

"""A whole MM-Interleaved, for `mio import`: Vicuna's tensors under other names, two text heads in the place of one, a
vector that is added to an embedding, and the networks of this plugin beside.

V rows, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mio import ModelLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Read = Callable[[str], Tensor]

EMBEDDING = "mm_decoder.embed_tokens.weight"
ADDED = "soi_token"
HEAD, NEW = "text_decoder.head", "text_decoder.head_new"

_OWN = "left to the plugin `mm_interleaved`, which reads them by its option `checkpoint`"
_FOLDED = "folded into the head and its bias, exactly"
BESIDE = {
    EMBEDDING: "the embedding, with what is added to `<|beginofimage|>` in its row, exactly",
    ADDED: "folded into the row of `<|beginofimage|>` in the embedding, exactly",
    f"{HEAD}.": _FOLDED,
    f"{NEW}.": _FOLDED,
    "visual_tokenizer.": _OWN,
    "image_decoder.": _OWN,
    "context_feat_proj.": _OWN,
    "mm_decoder.layers.*.llama_cross_attn.": _OWN,
}


def language_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `config.json` of the language model, which is Vicuna's: without the number of rows, which has grown."""
    return {**{key: value for key, value in config.items() if key != "vocab_size"}, "model_type": "llama"}


def embedding(read: Read) -> Tensor:
    """Rows `[V, D]`: what is always added to that of `<|beginofimage|>` is in it."""
    rows = read(EMBEDDING).clone()
    begin = len(rows) - len(read(f"{NEW}.bias"))  # it is the first of the new tokens, `<|image|>` the second
    return _with_row(rows, begin, rows[begin].float() + read(ADDED)[0].float())


def head(read: Read) -> Tensor:
    """Rows `[V, D]` of one head: outputs of the second are added to the last ones of the first, and both are linear in
    the same hidden state."""
    rows, more = read(f"{HEAD}.weight").clone(), read(f"{NEW}.weight")
    for number, row in enumerate(more.float(), len(rows) - len(more)):
        rows = _with_row(rows, number, rows[number].float() + row)
    return rows


def head_bias(read: Read) -> Tensor:
    """Its bias `[V]`, float32: -100 and what was learnt from +95 on are a small number, which half precision rounds."""
    bias, more = read(f"{HEAD}.bias").float(), read(f"{NEW}.bias").float()
    bias[-len(more) :] += more
    return bias


def _with_row(rows: Tensor, number: int, row: Tensor) -> Tensor:
    """The rows with a float32 row in its place, in float32 if their own type would round it."""
    if (row.to(rows.dtype).float() != row).any():
        rows = rows.float()
    rows[number] = row
    return rows


def layout() -> ModelLayout:
    """Of a folder with the published weights, Vicuna's `config.json`, whose `model_type` is `mm_interleaved`, and its
    tokenizer, to which `<|beginofimage|>` and `<|image|>` are added."""
    return ModelLayout(
        config=language_config,
        names={"mm_decoder.layers.": "model.layers.", "mm_decoder.norm.": "model.norm."},
        beside=BESIDE,
        made={"model.embed_tokens.weight": embedding, "lm_head.weight": head, "lm_head.bias": head_bias},
    )

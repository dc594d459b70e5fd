"""The logits processor for vLLM's first model runner: `--logits-processors mio_vllm.v1:SpanGrammar`.

The interface is that of vllm/v1/sample/logits_processor/interface.py, the same in vLLM 0.32 and 0.33. vLLM refuses it
beside speculative decoding.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from mio_vllm.masks import Masks
from mio_vllm.requests import Following, Wish, grammar
from mio_vllm.rows import restrict
from mio_vllm.start import check_model


class SpanGrammar(LogitsProcessor):
    """Lets through the tokens that the span grammar of an export allows."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:  # noqa: ARG002
        self._grammar = grammar()
        self._context = check_model(vllm_config, self._grammar)
        self._masks = Masks(self._grammar.size)
        self._answers: dict[int, tuple[Following, list[int]]] = {}
        """By row, with the list that vLLM appends the answer's tokens to."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raises `GrammarError`, a `ValueError`, for arguments that no answer can meet: vLLM answers 400."""
        Wish.of(sampling_params, grammar())

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follows requests that come, go and change rows."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._answers.pop(row, None)
        for row, params, prompt, output in batch_update.added:
            following = Following(params, self._grammar, self._context - len(prompt or ()))
            self._answers[row] = following, output
        for source, target, direction in batch_update.moved:
            moved, other = self._answers.pop(source, None), self._answers.pop(target, None)
            if moved is not None:
                self._answers[target] = moved
            if direction == MoveDirectionality.SWAP and other is not None:
                self._answers[source] = other

    def apply(self, logits: Any) -> Any:
        """Restricts every row, in place."""
        places = {}
        for row, (following, output) in self._answers.items():
            for token in output[following.tokens :]:
                following.take(token)
            places[row] = following, following.answer
        restrict(logits, places, self._masks)
        return logits

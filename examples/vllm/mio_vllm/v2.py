"""The logits processor for vLLM's second model runner: `--logits-processors mio_vllm.v2:SpanGrammar`.

The interface is that of vllm/v1/worker/gpu/sample/logits_processor/interface.py, the same in vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from mio_vllm.masks import Masks
from mio_vllm.requests import Following, Wish, grammar
from mio_vllm.rows import restrict
from mio_vllm.start import check_model


class SpanGrammar(LogitsProcessor):
    """Lets through the tokens that the span grammar of an export allows."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        super().__init__(vllm_config, req_states)
        self._grammar = grammar()
        self._context = check_model(vllm_config, self._grammar)
        self._states = req_states
        self._masks = Masks(self._grammar.size)
        self._answers: dict[int, tuple[Following, int]] = {}
        """By slot, with the length of the prompt."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raises `GrammarError`, a `ValueError`, for arguments that no answer can meet: vLLM answers 400."""
        Wish.of(sampling_params, grammar())

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Begins an answer in a slot, whatever was in it. One that was interrupted begins anew: its tokens are read
        again when it is next asked about."""
        prompt = int(self._states.prompt_len.np[req_idx])
        self._answers[req_idx] = Following(sampling_params, self._grammar, self._context - prompt), prompt
        return True

    def apply(self, logits: Any, ctx: Any) -> Any:
        """Restricts every row, in place.

        A row is the place behind one token of a request. With speculative decoding a request has several: the first
        stands behind what is certain, the others behind drafts.
        """
        slots, positions = ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist()
        tokens, drafts = ctx.input_ids.tolist(), ctx.expanded_local_pos.tolist()
        places = {}
        branch = None
        for row, slot in enumerate(slots):
            following, prompt = self._answers[slot]
            said = positions[row] + 1 - prompt
            if said < 0:  # the prompt is not read to its end yet, and nothing is sampled
                continue
            if drafts[row] == 0:
                self._catch_up(slot, said, tokens[row])
                branch = following.answer
            elif branch is not None:
                branch = branch.fork()
                branch.advance(tokens[row])
            if branch is not None:
                places[row] = following, branch
        restrict(logits, places, self._masks)
        return logits

    def _catch_up(self, slot: int, said: int, last: int) -> None:
        """Gives the answer in a slot the tokens that it lacks of those `said`, whose last one is given."""
        following, prompt = self._answers[slot]
        missing = said - following.tokens
        if missing > 1:
            history = self._states.all_token_ids.gpu[slot, prompt + following.tokens : prompt + said - 1]
            for token in history.tolist():
                following.take(token)
        if missing > 0:
            following.take(last)

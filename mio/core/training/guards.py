"""Guards of training: which steps are skipped because they would do harm, and when a run stops."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from mio.core.recipe.schema import GuardConfig

TRAIN, SKIP, STOP = "train", "skip", "stop"
_LEAST = 1e-3
"""Least standard deviation, relative to the mean: where the loss hardly moves, a small step up is no spike."""


class Guard:
    """Judges steps by the loss and the gradient norm of all ranks together, so all ranks judge alike."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.not_finite = 0
        """Steps skipped because loss or gradient was not finite."""
        self.spikes = 0
        """Steps whose loss was a spike, skipped or not."""
        self.unweighted = 0
        """Steps skipped because nothing of them has a weight in the loss."""
        self.in_a_row = 0
        """Steps skipped one after the other up to now."""
        self.reason = ""
        """What is wrong with the last step, in words; empty if nothing is."""
        self._losses: deque[float] = deque(maxlen=max(2, config.spike_window))

    def judge(self, loss: float, norm: float, weight: float = 1.0) -> str:
        """`TRAIN`, `SKIP` or `STOP` for a step of this loss, gradient norm and sum of loss weights."""
        verdict, self.reason = TRAIN, ""
        if not weight:
            self.unweighted += 1
            self.reason = "nothing of it has a weight in the loss"
            verdict = SKIP
        elif not (math.isfinite(loss) and math.isfinite(norm)):
            self.not_finite += 1
            self.reason = f"the loss is {loss:g}" if not math.isfinite(loss) else f"the gradient norm is {norm:g}"
            verdict = SKIP
        elif limit := self._limit(loss):
            self.spikes += 1
            self.reason = f"the loss is {loss:.4f}, above the limit of {limit:.4f}"
            verdict = {"skip": SKIP, "warn": TRAIN, "stop": STOP}[self.config.on_spike]
        if verdict == TRAIN:
            self.in_a_row = 0
            self._losses.append(loss)
            return TRAIN
        self.in_a_row += 1
        return STOP if self.in_a_row >= max(1, self.config.max_skipped) else verdict

    def _limit(self, loss: float) -> float | None:
        """The limit that `loss` exceeds; None if it is no spike."""
        if not self.config.spike or len(self._losses) < self._losses.maxlen:  # type: ignore[operator]
            return None
        mean = sum(self._losses) / len(self._losses)
        variance = sum((value - mean) ** 2 for value in self._losses) / len(self._losses)
        limit = mean + self.config.spike * max(math.sqrt(variance), _LEAST * abs(mean))
        return limit if loss > limit else None

    def report(self) -> dict[str, int]:
        """Counts of the whole run."""
        return {"not_finite": self.not_finite, "spikes": self.spikes, "unweighted": self.unweighted}

    def state_dict(self) -> dict[str, Any]:
        return {**self.report(), "in_a_row": self.in_a_row, "losses": list(self._losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.not_finite, self.spikes, self.in_a_row = state["not_finite"], state["spikes"], state["in_a_row"]
        self.unweighted = state.get("unweighted", 0)  # earlier checkpoints have none
        self._losses.clear()
        self._losses.extend(state["losses"])

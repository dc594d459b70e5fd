"""How the rows of an optimizer step are shared out to devices and forward passes. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from mio.core.errors import RecipeError
from mio.core.recipe.schema import TrainConfig


@dataclass(frozen=True)
class StepShape:
    """One optimizer step of one rank: rank k takes the k-th contiguous share of the step's rows."""

    rows: int
    """Rows of the step over all ranks."""
    share: int
    """Rows of one rank."""
    micro_rows: int
    """Rows of one forward pass."""

    @property
    def micro_batches(self) -> int:
        """Forward passes of one rank."""
        return self.share // self.micro_rows

    @classmethod
    def of(cls, train: TrainConfig, world_size: int) -> StepShape:
        """Raises `RecipeError` if the rows do not divide among `world_size` ranks, or a rank's among its passes."""
        rows, micro = train.rows, train.micro_rows
        if rows < 1 or micro < 0:
            raise RecipeError([f"`train.rows` is {rows} and `train.micro_rows` is {micro}; rows are 1 or more"])
        if rows % world_size:
            nearest = " or ".join(str(n) for n in _multiples(rows, world_size))
            raise RecipeError(
                [f"`train.rows` is {rows}, which {world_size} devices cannot share equally; set it to {nearest}"]
            )
        share = rows // world_size
        micro = min(micro or share, share)
        if share % micro:
            divisors = [n for n in range(1, share + 1) if share % n == 0]
            best = min(divisors, key=lambda n: abs(n - micro))
            raise RecipeError(
                [
                    f"`train.micro_rows` is {micro}, which does not divide the {share} rows that each of {world_size} "
                    f"devices takes of a step; set it to {best}"
                ]
            )
        return cls(rows, share, micro)


def _multiples(rows: int, world_size: int) -> list[int]:
    below = rows // world_size * world_size
    return [n for n in (below, below + world_size) if n]

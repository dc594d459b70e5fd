"""What vLLM 0.32 and 0.33 do around a logits processor, without a model: slots, chunks, preemption, drafts, rows.

Stands for vllm/v1/worker/gpu/model_runner.py with its sampler (second runner) and vllm/v1/worker/gpu_input_batch.py
(first). The sampler draws uniformly among the tokens that the processor leaves.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import Enum, auto
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch


class LogitsProcessor:
    """Base class of both interfaces."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def apply_staged_writes(self) -> None:
        pass


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


def modules() -> dict[str, ModuleType]:
    """What stands for vLLM in `sys.modules`."""
    paths = ("vllm.v1.sample.logits_processor", "vllm.v1.worker.gpu.sample.logits_processor")
    names = {path.rsplit(".", place)[0] for path in paths for place in range(path.count(".") + 1)}
    made = {name: ModuleType(name) for name in names}
    for name in names:
        if name.endswith("logits_processor"):
            made[name].LogitsProcessor = LogitsProcessor
            made[name].MoveDirectionality = MoveDirectionality
    return made


def processor(version: str, monkeypatch: Any) -> type:
    """The processor for one of the interfaces, of a module that is imported anew."""
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, f"mio_vllm.{version}", raising=False)
    return __import__(f"mio_vllm.{version}", fromlist=["SpanGrammar"]).SpanGrammar


def params(max_tokens: int | None = 64, temperature: float = 1.0, **more: Any) -> SimpleNamespace:
    """`SamplingParams`, as far as the processor looks at them."""
    unset = {"min_tokens": 0, "ignore_eos": False, "allowed_token_ids": None, "structured_outputs": None}
    extra = {key: more.pop(key) for key in list(more) if key.startswith("mio_")}
    return SimpleNamespace(
        max_tokens=max_tokens, temperature=temperature, extra_args=extra or None, **{**unset, **more}
    )


def config(size: int, context: int) -> SimpleNamespace:
    model = SimpleNamespace(get_vocab_size=lambda: size, max_model_len=context)
    return SimpleNamespace(model_config=model)


@dataclass
class Request:
    """A request and what is known of it."""

    params: SimpleNamespace
    prompt: list[int]
    output: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens that were fed to the model."""
    place: int = -1
    """Slot, or row of the batch."""


class SecondRunner:
    """Model runner V2: requests in slots, rows in another order at every step."""

    def __init__(self, kind: type, size: int, context: int, draw: np.random.Generator, slots: int = 4) -> None:
        self.draw, self.size = draw, size
        self.free = list(range(slots))
        self.tokens = SimpleNamespace(gpu=torch.zeros(slots, context + 1, dtype=torch.int32))
        lengths = np.zeros(slots, dtype=np.int32)
        self.states = SimpleNamespace(all_token_ids=self.tokens, prompt_len=SimpleNamespace(np=lengths))
        self.processor = kind(config(size, context), self.states)

    def add(self, request: Request) -> None:
        """Takes a request in, or in again after a preemption: its tokens so far are fed again."""
        request.place, request.computed = self.free.pop(), 0
        known = [*request.prompt, *request.output]
        self.states.prompt_len.np[request.place] = len(request.prompt)
        assert self.processor.add_request(request.place, request.params)
        self.tokens.gpu[request.place].zero_()
        self.tokens.gpu[request.place, : len(known)] = torch.tensor(known, dtype=torch.int32)
        self.processor.apply_staged_writes()

    def remove(self, request: Request) -> None:
        self.free.append(request.place)

    def step(self, requests: list[Request], drafts: dict[int, list[int]]) -> dict[int, list[torch.Tensor]]:
        """One step of some requests, by number of the request in the list: the logits of its rows, of which the ones
        behind the first stand behind its drafts. A request whose prompt is not read to its end has none."""
        rows: list[tuple[int, int, int, int, int]] = []
        for number in self.draw.permutation(len(requests)):
            request = requests[number]
            known = [*request.prompt, *request.output]
            whole = len(known) - request.computed
            fed = int(self.draw.integers(1, whole + 1)) if whole > 1 else whole
            request.computed += fed
            last = request.computed - 1
            rows.append((number, request.place, known[last], last, 0))
            if request.computed == len(known):
                extra = drafts.get(int(number), [])
                rows += [(number, request.place, token, last + place, place) for place, token in enumerate(extra, 1)]
        columns = torch.tensor([row[1:] for row in rows]).T
        context = SimpleNamespace(
            expanded_idx_mapping=columns[0].int(),
            input_ids=columns[1].int(),
            pos=columns[2],
            expanded_local_pos=columns[3],
        )
        logits = self.processor.apply(torch.zeros(len(rows), self.size), context)
        found: dict[int, list[torch.Tensor]] = {}
        for (number, *_), row in zip(rows, logits, strict=True):
            request = requests[number]
            if request.computed == len(request.prompt) + len(request.output):
                found.setdefault(int(number), []).append(row)
        return found

    def commit(self, request: Request, token: int) -> None:
        self.tokens.gpu[request.place, len(request.prompt) + len(request.output)] = token
        request.output.append(token)


class FirstRunner:
    """Model runner V1: requests are rows of a batch without gaps, which move when others leave."""

    def __init__(self, kind: type, size: int, context: int, draw: np.random.Generator) -> None:
        self.draw, self.size = draw, size
        self.processor = kind(config(size, context), torch.device("cpu"), False)
        self.rows: list[Request] = []
        self._before: list[Request] = []

    def logits(self) -> torch.Tensor:
        """Of one step of all rows. What became of the rows since the last one is told first: who left, who came into
        their places and behind the others, who moved down into a gap, and who swapped places at random."""
        staying = [request for request in self._before if request in self.rows]
        gaps = [row for row, request in enumerate(self._before) if request not in self.rows]
        batch: dict[int, Request] = {row: one for row, one in enumerate(self._before) if one in staying}
        added, moved = [], []
        for request in self.rows:
            if request not in staying:
                row = gaps.pop(0) if gaps else len(self._before) + sum(one[0] >= len(self._before) for one in added)
                added.append((row, request.params, request.prompt, request.output))
                batch[row] = request
        for gap in gaps:
            last = max(batch, default=-1)
            if last > gap:
                batch[gap] = batch.pop(last)
                moved.append((last, gap, MoveDirectionality.UNIDIRECTIONAL))
        if len(batch) > 1 and self.draw.random() < 0.5:
            a, b = (int(one) for one in self.draw.choice(len(batch), 2, replace=False))
            batch[a], batch[b] = batch[b], batch[a]
            moved.append((a, b, MoveDirectionality.SWAP))
        self.rows = [batch[row] for row in range(len(batch))]
        changed = bool(added or moved or gaps)
        update = SimpleNamespace(removed=gaps, added=added, moved=moved, batch_size=len(batch)) if changed else None
        self.processor.update_state(update)
        self._before = list(self.rows)
        return self.processor.apply(torch.zeros(len(self.rows), self.size))

"""Convolutional decoders run piece by piece, so that media can be given out while their codes come.

    stages = [streams.Convolution(first, left=3, right=3), streams.Recurrent(lstm), streams.Pointwise(torch.nn.ELU()),
              streams.Upsampling(up, left=4, right=4)]
    network = streams.Blocks(stages, 4, 32)
    pieces = [network.push(features), network.push(more), network.finish()]

Each stage keeps of its past what its next outputs need, so that nothing is computed twice, and waits for as much of its
future as it looks at. What comes out, joined, is what the layers give of the whole, but for the last bits: sums are
taken in another order where a kernel gets another number of steps. `Blocks` cuts by the number of a step, never by the
calls, so these are the same however features come.

Shapes: features `[1, C, T]`, C channels and T steps of time; `None` stands for no steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

Steps = Tensor | None


class Stage(Protocol):
    """One layer of one item. A stage serves one item alone: make them anew for each."""

    def push(self, features: Tensor) -> Steps:
        """Takes the next steps. Returns the outputs that no later step changes."""

    def finish(self) -> Steps:
        """The outputs that are left, now that all steps have come."""


class Pointwise:
    """A function of single steps, such as an activation."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def push(self, features: Tensor) -> Steps:
        return self._function(features)

    def finish(self) -> Steps:
        return None


class Convolution:
    """A convolution of stride 1 behind padding of `left` and `right` steps, which together are what it shortens by.

    Padding is that of `torch.nn.functional.pad` with this mode. An item that is too short to be reflected is lengthened
    by zeros for that, as SEANet does (`pad1d` of encodec and its descendants).
    """

    def __init__(self, layer: nn.Conv1d, left: int, right: int, mode: str = "reflect") -> None:
        assert layer.stride == (1,)
        assert left + right == layer.dilation[0] * (layer.kernel_size[0] - 1)
        assert left >= right or mode != "reflect"
        self._layer, self._mode = layer, mode
        self._left, self._right = left, right
        # before anything is padded at the beginning, it has to be there
        self._needed = 1 if mode != "reflect" else max(left, right) + 1
        self._held: Steps = None
        """Padded at the beginning once `_begun`."""
        self._begun = False

    def push(self, features: Tensor) -> Steps:
        held = features if self._held is None else torch.cat((self._held, features), -1)
        if not self._begun and held.shape[-1] >= self._needed:
            held, self._begun = self._padded(held, self._left, 0), True
        self._held = held
        reach = self._left + self._right
        if not self._begun or held.shape[-1] <= reach:
            return None
        self._held = held[..., held.shape[-1] - reach :]
        return self._run(held)

    def finish(self) -> Steps:
        held = self._held
        if held is None:
            return None
        if not self._begun:
            lack = self._needed - held.shape[-1]
            padded = self._padded(nn.functional.pad(held, (0, lack)), self._left, self._right)
            return self._run(padded[..., : padded.shape[-1] - lack])
        if not self._right:
            return None
        # of what is held only the newest steps matter: those that the last outputs see, and that are reflected
        return self._run(self._padded(held, 0, self._right))

    def _padded(self, features: Tensor, left: int, right: int) -> Tensor:
        return nn.functional.pad(features, (left, right), self._mode) if left or right else features

    def _run(self, features: Tensor) -> Steps:
        return self._layer(features) if features.shape[-1] > self._left + self._right else None


class Upsampling:
    """A transposed convolution whose output is shortened by `left` and `right` steps.

    It is a matrix product whose columns are added up where they overlap: of few steps, torch's own takes several times
    as long, as it brings the weights into another order first.
    """

    def __init__(self, layer: nn.ConvTranspose1d, left: int, right: int) -> None:
        assert layer.padding == layer.output_padding == (0,)
        assert layer.dilation == (1,)
        assert layer.groups == 1
        assert layer.kernel_size[0] >= layer.stride[0]
        self._layer, self._stride, self._kernel = layer, layer.stride[0], layer.kernel_size[0]
        self._after = self._kernel - self._stride - right
        """Outputs behind those of the last step."""
        self._skipped = left
        """Outputs that are still to be left out."""
        self._begun: Tensor | None = None
        """Sums `[C, S]` of the outputs that the next steps add to."""

    def push(self, features: Tensor) -> Steps:
        inputs, count = self._layer.in_channels, features.shape[-1]
        columns = features[0].T @ self._layer.weight.reshape(inputs, -1)
        columns = columns.view(count, self._layer.out_channels, self._kernel).permute(1, 0, 2)
        reached = count - 1 - (-self._kernel // self._stride)  # in strides
        made = columns.new_zeros(self._layer.out_channels, reached * self._stride)
        if self._begun is not None:
            made[:, : self._begun.shape[-1]] = self._begun
        for first in range(0, self._kernel, self._stride):
            part = columns[..., first : first + self._stride]
            steps = made[:, first:].unfold(1, self._stride, self._stride)[:, :count]
            steps[..., : part.shape[-1]] += part
        known = count * self._stride
        self._begun = made[:, known:]
        return self._given(made[:, :known])

    def finish(self) -> Steps:
        begun, self._begun = self._begun, None
        return None if begun is None else self._given(begun[:, : self._after])

    def _given(self, made: Tensor) -> Steps:
        skipped = min(self._skipped, made.shape[-1])
        self._skipped -= skipped
        if made.shape[-1] == skipped:
            return None
        bias = self._layer.bias
        return (made if bias is None else made + bias[:, None])[None, :, skipped:]


class Recurrent:
    """An LSTM that reads forwards, over steps first (`[T, 1, C]`), plus its inputs where there is a `skip`."""

    def __init__(self, layer: nn.LSTM, skip: bool = True) -> None:
        assert not layer.bidirectional
        assert not layer.batch_first
        self._layer, self._skip = layer, skip
        self._state: tuple[Tensor, Tensor] | None = None

    def push(self, features: Tensor) -> Steps:
        steps = features.permute(2, 0, 1)
        made: Tensor
        made, self._state = self._layer(steps, self._state)
        return (made + steps if self._skip else made).permute(1, 2, 0)

    def finish(self) -> Steps:
        return None


class Residual:
    """The sum of two chains of stages of the same inputs, such as a branch and its shortcut, an empty one."""

    def __init__(self, first: Sequence[Stage], second: Sequence[Stage]) -> None:
        self._chains = Chain(first), Chain(second)
        self._held: list[Steps] = [None, None]
        """What each has given that the other has not yet."""

    def push(self, features: Tensor) -> Steps:
        return self._sum([chain.push(features) for chain in self._chains])

    def finish(self) -> Steps:
        return self._sum([chain.finish() for chain in self._chains])

    def _sum(self, given: Sequence[Steps]) -> Steps:
        both = [_joined(held, new) for held, new in zip(self._held, given, strict=True)]
        first, second = both
        if first is None or second is None:
            self._held = both
            return None
        count = min(first.shape[-1], second.shape[-1])
        self._held = [one[..., count:] if one.shape[-1] > count else None for one in (first, second)]
        return first[..., :count] + second[..., :count]


class Chain:
    """Stages one after the other."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages

    def push(self, features: Tensor) -> Steps:
        given: Steps = features
        for stage in self._stages:
            if given is None:
                return None
            given = stage.push(given)
        return given

    def finish(self) -> Steps:
        given: Steps = None
        for stage in self._stages:
            given = _joined(None if given is None else stage.push(given), stage.finish())
        return given


class Blocks:
    """Stages that get their steps in blocks, whatever comes at a time: the first of `first` steps, then each as long as
    all before it, up to `largest`. So little is waited for at the beginning, and what is given out later lasts at least
    as long as the next takes, where steps come as fast as they are played.
    """

    def __init__(self, stages: Sequence[Stage], first: int, largest: int) -> None:
        self._chain, self._first, self._largest = Chain(stages), first, largest
        self._done = 0
        """Steps of the blocks so far."""
        self._held: Steps = None

    def push(self, features: Tensor) -> Steps:
        held = features if self._held is None else torch.cat((self._held, features), -1)
        given: Steps = None
        while held.shape[-1] >= (size := min(self._largest, max(self._first, self._done))):
            given = _joined(given, self._chain.push(held[..., :size]))
            held = held[..., size:]
            self._done += size
        self._held = held
        return given

    def finish(self) -> Steps:
        given = self._chain.push(self._held) if self._held is not None and self._held.shape[-1] else None
        return _joined(given, self._chain.finish())


def _joined(first: Steps, second: Steps) -> Steps:
    if first is None or second is None:
        return second if first is None else first
    return torch.cat((first, second), -1)

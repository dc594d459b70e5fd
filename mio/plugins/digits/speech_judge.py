"""Judge of the digits world's speech: which digit does a recording say?

A small convolutional network on log-mel spectrograms, trained on the real clips of the training voices and small
variations of them, never on anything that went through a codec or model. It has its own front end, so that a flaw of a
speech tokenizer's features is not shared by the judge.

Training takes 10 s of one core, which every process that evaluates would pay: the trained network comes with the
package, so that all judge alike. `python -m mio.plugins.digits.speech_judge FILE` trains and writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mio import DataError, networks

if TYPE_CHECKING:
    import torch

RATE = 8000
FRAMES = 32
"""Frames of 20 ms of the network's input; a longer recording is squeezed into them."""
MELS = 40
COPIES = 3
"""Variations of each clip beside the clip itself."""
EPOCHS = 6
FILE = Path(__file__).with_name("speech_judge.safetensors")
"""The network that is trained with seed 0."""


class SpeechJudge:
    """Classifies recordings of one spoken digit."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network

    @classmethod
    def trained(cls) -> SpeechJudge:
        """The one that comes with the package, read once per process. Raises `DataError` for an incomplete
        installation."""
        return _shipped()

    @classmethod
    def train(cls, seed: int = 0) -> SpeechJudge:
        """Trains one, a function of `seed` and of torch's version; about 10 s on one CPU core."""
        return _trained(seed)

    def save(self, file: Path) -> None:
        from safetensors.torch import save_file

        save_file(self._network.state_dict(), file)

    def classify(self, items: Sequence[tuple[np.ndarray, int]]) -> list[int]:
        """Digit that each recording `(samples float [T] or [T, C], rate)` says. Any level, any length but zero."""
        import torch

        if not items:
            return []
        batches = torch.split(torch.stack([_features(samples, rate) for samples, rate in items]), 256)
        with torch.inference_mode():
            return [int(digit) for batch in batches for digit in self._network(batch).argmax(1)]


@cache
def _front_end() -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    from torchaudio.functional import melscale_fbanks

    return torch.hann_window(256), melscale_fbanks(129, 60.0, RATE / 2, MELS, RATE)


def log_mel(samples: np.ndarray, rate: int, hop: int) -> np.ndarray:
    """Logarithm of the power of mel bands, float32 `[frames, MELS]`, of samples `[T]` or `[T, C]`, a frame every `hop`
    samples at `RATE`. 50 dB below the loudest band counts as silence. Raises `DataError` for anything but sound."""
    import torch

    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim == 2:
        samples = samples.mean(1)
    if samples.ndim != 1 or not samples.size:
        raise DataError(f"the speech judge takes samples of shape [T] or [T, C], not {list(samples.shape)}")
    if not np.isfinite(samples).all():
        raise DataError("the speech judge takes samples that are finite numbers")
    if rate != RATE:
        from scipy.signal import resample_poly

        samples = resample_poly(samples, RATE, rate).astype(np.float32)
    window, bank = _front_end()
    spectrum = torch.stft(torch.tensor(samples), 256, hop, window=window, pad_mode="constant", return_complex=True)
    power = spectrum.abs().square().T @ bank
    # quiet noise must not tell recordings apart
    mel: np.ndarray = (power.clamp_min(1e-10 + power.max() * 1e-5)).log().numpy()
    return mel


def _features(samples: np.ndarray, rate: int) -> torch.Tensor:
    """Log-mel spectrogram float32 `[1, MELS, FRAMES]`, zero mean and unit variance: level does not matter."""
    import torch

    mel = torch.from_numpy(log_mel(samples, rate, 160)).T
    mel = (mel - mel.mean()) / (mel.std() + 1e-5)
    frames = mel.shape[1]
    if frames > FRAMES:
        return torch.nn.functional.interpolate(mel[None], FRAMES, mode="linear", antialias=False)
    missing = FRAMES - frames
    return torch.nn.functional.pad(mel, (missing // 2, missing - missing // 2), value=float(mel.min()))[None]


def _network() -> torch.nn.Module:
    from torch import nn

    def block(inputs: int, outputs: int, stride: tuple[int, int]) -> list[Any]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 24, (2, 2)),
        *block(24, 32, (2, 1)),
        *block(32, 48, (1, 2)),
        *block(48, 64, (2, 2)),
        nn.Dropout2d(0.1),
        # pooled over time only in part: the order of the sounds matters (nine is not an-ei-n)
        nn.AdaptiveAvgPool2d((5, 4)),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 20, 10),
    )


@cache
def _shipped() -> SpeechJudge:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with torch.device("meta"):  # so that no random numbers are drawn for what is not used
        network = _network()
    try:
        network.load_state_dict(load_file(FILE), assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"cannot read the judge of spoken digits in {FILE}: {error}; install mio again") from error
    return SpeechJudge(network.eval())


def _trained(seed: int) -> SpeechJudge:
    import torch

    from mio.plugins.digits.voices import DIGITS, clips, vary

    spoken = [clip for clip in clips("train") if clip.word in DIGITS]
    takes = [(clip.samples, clip) for clip in spoken]
    takes += [(vary(clip, seed * COPIES + copy), clip) for copy in range(COPIES) for clip in spoken]
    inputs = torch.stack([_features(samples, clip.rate) for samples, clip in takes])
    targets = torch.tensor([DIGITS.index(clip.word) for _, clip in takes])
    # the caller's random state stays as it was; one thread adds in one order, so cores do not change the judge
    with torch.random.fork_rng(devices=[]), networks.one_thread():
        torch.manual_seed(seed)
        network = _network()
        steps, batch = EPOCHS * (len(inputs) // 128), 128
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        network.train()
        order = torch.randperm(len(inputs))
        for step in range(steps):
            start = step * batch % (len(inputs) - batch + 1)
            if start < batch:
                order = torch.randperm(len(inputs))
            picked = order[start : start + batch]
            scores = network(_masked(inputs[picked]))
            loss = torch.nn.functional.cross_entropy(scores, targets[picked], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    network.eval()
    return SpeechJudge(network)


def _masked(inputs: torch.Tensor) -> torch.Tensor:
    """SpecAugment (Park et al., 2019) and a shift in time and frequency, one draw per item."""
    import torch

    inputs = inputs.clone()
    low = float(inputs.min())
    for item in inputs:
        band, width = int(torch.randint(MELS, ())), int(torch.randint(7, ()))
        item[:, band : band + width] = 0
        shift, lift = int(torch.randint(-4, 5, ())), int(torch.randint(-2, 3, ()))
        item.copy_(item.roll((lift, shift), (1, 2)))
    return inputs.clamp_min(low)


if __name__ == "__main__":
    SpeechJudge.train().save(Path(sys.argv[1]))

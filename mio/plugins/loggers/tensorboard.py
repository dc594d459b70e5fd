"""TensorBoard: event files in the run folder, the first of which begins with the first figures.

A run that goes on begins a file of its own with a purge: TensorBoard drops what earlier files have of later steps, and
those steps that the run folder has are written again.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mio
from mio.plugins.loggers.media import AUDIO, IMAGE, VIDEO, files

_FRAMES = 100
"""Most frames shown of a video."""


@dataclass
class Options:
    """TensorBoard has none."""


class TensorBoard:
    """Metrics as scalars, samples as text, images and audio; videos as GIFs, which its images may be."""

    remote = False

    def __init__(self) -> None:
        self._writer: Any = None
        self._folder = Path()
        self._step = 0  # the last step that the events have

    def check(self) -> None:
        pass

    def begin(self, run: mio.LoggedRun, earlier: Sequence[mio.LoggedStep]) -> str:
        self._close()
        self._folder, self._step = run.folder, max(self._step, run.step)
        for step in earlier:
            if step.step > self._step:
                self.log(step)
        return ""

    def log(self, step: mio.LoggedStep) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            there = any(self._folder.glob("events.out.tfevents.*"))
            self._writer = SummaryWriter(str(self._folder), purge_step=self._step + 1 if there else None)
        for name, value in step.metrics.items():
            self._writer.add_scalar(name, value, step.step)
        tags: dict[str, int] = {}
        for sample in step.samples:
            number = tags[sample.name] = tags.get(sample.name, -1) + 1
            self._add_sample(f"{sample.name}/{number}", sample, step.step)
        self._writer.flush()
        self._step = step.step

    def end(self, summary: Mapping[str, Any] | None) -> None:  # noqa: ARG002
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add_sample(self, tag: str, sample: mio.Sample, step: int) -> None:
        lines = [f"{name}: {text}" for name, text in (("prompt", sample.prompt), ("answer", sample.answer)) if text]
        if lines:
            self._writer.add_text(tag, "\n\n".join(lines), step)
        for place, (kind, path) in enumerate(files(sample)):
            name = f"{tag}/{place}"
            if kind == AUDIO:
                import soundfile
                import torch

                sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
                self._writer.add_audio(name, torch.from_numpy(sound.mean(axis=1))[None], step, sample_rate=rate)
            elif kind in (IMAGE, VIDEO):
                self._add_encoded(name, path, kind == VIDEO, step)

    def _add_encoded(self, tag: str, path: Path, moves: bool, step: int) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        content = _gif(path) if moves else _png(path)
        width, height = Image.open(io.BytesIO(content)).size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
        value = Summary.Value(tag=tag, image=image)
        self._writer._get_file_writer().add_summary(Summary(value=[value]), step)


def _png(path: Path) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    Image.open(path).convert("RGB").save(encoded, "PNG")
    return encoded.getvalue()


def _gif(path: Path) -> bytes:
    """The video as a GIF: its bytes if it is one."""
    if path.suffix.lower() == ".gif":
        return path.read_bytes()
    import av

    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate or 10
        decoded: Any = container.decode(video=0)
        frames = [frame.to_image() for _, frame in zip(range(_FRAMES), decoded, strict=False)]
    encoded = io.BytesIO()
    frames[0].save(encoded, "GIF", save_all=True, append_images=frames[1:], duration=int(1000 / rate), loop=0)
    return encoded.getvalue()

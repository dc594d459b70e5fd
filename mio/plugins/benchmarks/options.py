"""Options of the plugin, and what follows from them for its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mio import UserError

SPLITS: Mapping[str, tuple[str, ...]] = {
    "coco": ("test", "val", "restval", "train"),
    "flickr30k": ("test", "val", "train"),
    "vqav2": ("val", "train"),
    "ok_vqa": ("val", "train"),
    "vizwiz": ("val", "train"),
    "librispeech": ("test-clean", "test-other", "dev-clean", "dev-other"),
    "msvd_qa": ("test", "val", "train"),
    "msrvtt_qa": ("test", "val", "train"),
    "mmlu": ("test", "val", "dev"),
}
"""Splits of each data set that has any; the first is the default."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of the plugin. A folder holds a data set as it is published, see docs/benchmarks.md; a task whose folder
    is not named rests."""

    coco: str = ""
    """Folder of MS-COCO 2014 with the Karpathy splits: captions and pictures to draw."""
    flickr30k: str = ""
    """Folder of Flickr30k with the Karpathy splits: captions and pictures to draw."""
    vqav2: str = ""
    """Folder of VQA v2 with its pictures of MS-COCO."""
    ok_vqa: str = ""
    """Folder of OK-VQA with its pictures of MS-COCO."""
    vizwiz: str = ""
    """Folder of VizWiz-VQA."""
    seed_bench: str = ""
    """Folder of SEED-Bench."""
    librispeech: str = ""
    """Folder of LibriSpeech."""
    vctk: str = ""
    """Folder of VCTK 0.92."""
    msvd_qa: str = ""
    """Folder of MSVD-QA with the videos of MSVD."""
    msrvtt_qa: str = ""
    """Folder of MSRVTT-QA with the videos of MSR-VTT."""
    mmlu: str = ""
    """Folder of MMLU."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Split of a data set, by its name: `{librispeech: test-other}`."""
    clip: str = ""
    """Folder of a CLIP checkpoint that transformers reads, for `clip_i` and `clip_t`."""
    inception: str = ""
    """File of the Inception weights of FID, `weights-inception-2015-12-05-6cddaf7f.pth`, for `fid`."""
    recogniser: str = ""
    """Folder of a checkpoint that transformers reads for speech recognition, which hears what is said for VCTK."""
    image: str = "image"
    """Name of the recipe's modality of pictures."""
    speech: str = "speech"
    """Name of the recipe's modality of speech."""
    video: str = "video"
    """Name of the recipe's modality of videos."""

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if name not in SPLITS:
                raise UserError(
                    f"plugins.benchmarks: `splits.{name}`: no data set with splits; there are {', '.join(SPLITS)}"
                )
            if split not in SPLITS[name]:
                raise UserError(
                    f"plugins.benchmarks: `splits.{name}`: {split!r} is not one of {', '.join(SPLITS[name])}"
                )

    def split(self, name: str) -> str:
        """Of a data set."""
        return self.splits.get(name, SPLITS[name][0])

    def checkpoint(self, option: str, wanted: str) -> Path:
        """The file or folder that an option names. Raises `UserError` where it is not there; `wanted` says what it
        should be."""
        path = Path(getattr(self, option)).expanduser()
        if not path.exists():
            raise UserError(f"plugins.benchmarks: `{option}`: {path} is not there; name {wanted}")
        return path

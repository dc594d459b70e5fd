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


_OF_COCO = "the pictures of MS-COCO 2014 in val2014/ (of the split train: train2014/)"

LAYOUTS: Mapping[str, str] = {
    "coco": "dataset_coco.json (the Karpathy splits) and the pictures in val2014/ and train2014/",
    "flickr30k": "dataset_flickr30k.json (the Karpathy splits) and the pictures in flickr30k-images/",
    "vqav2": f"v2_OpenEnded_mscoco_val2014_questions.json, v2_mscoco_val2014_annotations.json and {_OF_COCO}",
    "ok_vqa": f"OpenEnded_mscoco_val2014_questions.json, mscoco_val2014_annotations.json and {_OF_COCO}",
    "vizwiz": "val.json (or Annotations/val.json) and the pictures in val/",
    "seed_bench": "SEED-Bench.json and the pictures in SEED-Bench-image/",
    "librispeech": "SPLIT/SPEAKER/CHAPTER/ (or LibriSpeech/SPLIT/...), each with *.flac and SPEAKER-CHAPTER.trans.txt",
    "vctk": "txt/SPEAKER/SPEAKER_NNN.txt and wav48_silence_trimmed/SPEAKER/SPEAKER_NNN_mic1.flac",
    "msvd_qa": "test_qa.json, youtube_mapping.txt and the videos in YouTubeClips/",
    "msrvtt_qa": "test_qa.json and the videos in TestVideo/ and TrainValVideo/",
    "mmlu": "SUBJECT_test.csv in data/test/ (or test/)",
}
"""What the folder of a data set holds."""


WANTED: Mapping[str, str] = {
    "clip": "a folder with a CLIP checkpoint for transformers (GILL and SEED-LLaMA: openai/clip-vit-large-patch14)",
    "inception": "the file weights-inception-2015-12-05-6cddaf7f.pth of torch-fidelity, the Inception network of FID",
    "recogniser": "a folder with a checkpoint of speech recognition for transformers (MIO: openai/whisper-medium)",
}
"""What each option of a network is to name."""


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

    def missing(self, name: str, *networks: str) -> str:
        """What has to be given for the tasks of a data set that need some networks; empty if nothing."""
        given = getattr(self, name)
        if not given:
            return f"set `plugins.benchmarks.{name}` to a folder with {LAYOUTS[name]}"
        if not Path(given).expanduser().is_dir():
            return f"`plugins.benchmarks.{name}`: {given} is no folder; name one with {LAYOUTS[name]}"
        for network in networks:
            if not getattr(self, network):
                return f"set `plugins.benchmarks.{network}` to {WANTED[network]}"
            if not Path(getattr(self, network)).expanduser().exists():
                return f"`plugins.benchmarks.{network}`: {getattr(self, network)} is not there; name {WANTED[network]}"
        return ""

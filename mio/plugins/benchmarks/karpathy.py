"""MS-COCO and Flickr30k in the splits of Karpathy and Fei-Fei (arXiv 1412.2306): pictures with five captions each."""

from __future__ import annotations

from mio import Record
from mio.plugins.benchmarks.folders import Entry, Folder, sample
from mio.plugins.benchmarks.options import BenchmarkOptions


def pictures(options: BenchmarkOptions, data_set: str, count: int) -> list[Record]:
    """Records with a picture (the field `image`), its `captions`, and the first of them as `caption`. Raises
    `DataError`."""
    folder = Folder.of(options, data_set)
    index = folder.json(f"dataset_{data_set}.json")
    wanted = [entry for entry in index["images"] if entry["split"].text == options.split(data_set)]
    return [_record(options, folder, entry) for entry in sample(wanted, count, lambda entry: entry["filename"].text)]


def _record(options: BenchmarkOptions, folder: Folder, entry: Entry) -> Record:
    captions = [sentence["raw"].text.strip() for sentence in entry["sentences"]]
    if not captions:
        raise folder.problem(f"{entry['sentences']}: holds no captions")
    name = entry["filename"].file_name
    parts = [entry["filepath"].file_name] if "filepath" in entry else ["flickr30k-images", "flickr30k_images"]
    path = folder.place(*(f"{part}/{name}" for part in parts))
    return {
        "image": folder.media(options.image, path, str(entry)),
        "captions": captions,
        "caption": captions[0],
    }

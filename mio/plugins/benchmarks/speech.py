"""Speech: LibriSpeech is transcribed, VCTK's sentences are said and heard by a recogniser; word error rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mio import Answer, Measure, Record, RoundTrip, Task, Template
from mio.plugins.benchmarks import decoding
from mio.plugins.benchmarks.folders import Folder, batches, sample
from mio.plugins.benchmarks.options import BenchmarkOptions

_TOKENS = 256

HEAR = Template(
    # arXiv 2409.17692 v4, table 12
    direction="transcribe",
    prompt="Please transcribe this speech.{speech}",
    response="{transcription}",
)
SAY = Template(
    # the same
    direction="speak",
    prompt="Please generate a speech according to the given transcription. Start with <spch>. {transcription}",
    response="{speech}",
)


def tasks(options: BenchmarkOptions) -> list[Task]:
    return [
        Task(
            name="librispeech_asr",
            template=HEAR,
            records=partial(_recorded, options),
            output="text",
            judge=_heard,
            measures=(_RATE,),
            decoding=decoding.text(_TOKENS),
            needs=(options.speech,),
            missing=options.missing("librispeech"),
        ),
        Task(
            name="vctk_tts",
            template=SAY,
            records=partial(_to_say, options),
            output=options.speech,
            judge=partial(_said, options),
            measures=(_RATE,),
            ceiling=partial(_ceiling, options),
            decoding=decoding.speech(options.speech),
            needs=(options.speech,),
            missing=options.missing("vctk", "recogniser"),
        ),
    ]


def _all_wrong(record: Record) -> tuple[int, int]:
    """An answer that is not there has none of the words."""
    from mio.plugins.benchmarks.metrics.word_errors import word_errors

    return word_errors("", record["transcription"])


_RATE = Measure(name="wer", better="lower", most=math.inf, worst=_all_wrong)


# ---- records


def _recorded(options: BenchmarkOptions, count: int) -> list[Record]:
    """Of LibriSpeech."""
    folder = Folder.of(options, "librispeech")
    split = options.split("librispeech")
    root = folder.place(split, f"LibriSpeech/{split}")
    tables = sorted(root.glob("*/*/*.trans.txt"))
    if not tables:
        raise folder.problem(f"{root}: holds no SPEAKER/CHAPTER/*.trans.txt")
    lines = [
        (table, number, line)
        for table in tables
        for number, line in enumerate(folder.lines(table), start=1)
        if line.strip()
    ]
    return [_recording(options, folder, *one) for one in sample(lines, count, lambda one: one[2].split(" ")[0])]


def _recording(options: BenchmarkOptions, folder: Folder, table: Path, number: int, line: str) -> Record:
    name, _, transcription = line.partition(" ")
    where = f"{table}, line {number}"
    if not transcription.strip() or "/" in name:
        raise folder.problem(f"{where}: {line[:60]!r} is not the name of a recording and its words")
    return {
        "speech": folder.media(options.speech, table.parent / f"{name}.flac", where),
        "transcription": transcription.strip(),
    }


def _to_say(options: BenchmarkOptions, count: int) -> list[Record]:
    """Of VCTK: sentences of which there is a recording by the first microphone."""
    folder = Folder.of(options, "vctk")
    recordings = folder.place("wav48_silence_trimmed")
    texts = sorted(folder.place("txt").glob("*/*.txt"))
    pairs = [(text, recordings / text.parent.name / f"{text.stem}_mic1.flac") for text in texts]
    pairs = [(text, recording) for text, recording in pairs if recording.is_file()]
    if not pairs:
        raise folder.problem(f"{folder.path}: holds no text with a recording")
    records: list[Record] = []
    for text, recording in sample(pairs, count, lambda pair: pair[0].stem):
        transcription = " ".join(folder.lines(text)).strip()
        if not transcription:
            raise folder.problem(f"{text}: holds no words")
        records.append({
            "speech": folder.media(options.speech, recording, str(text)),
            "transcription": transcription,
        })  # fmt: skip
    return records


# ---- judges


def _heard(answers: Sequence[Answer], records: Sequence[Record]) -> list[tuple[int, int]]:
    from mio.plugins.benchmarks.metrics.word_errors import word_errors

    return [word_errors(answer.text, record["transcription"]) for answer, record in zip(answers, records, strict=True)]


def _said(options: BenchmarkOptions, answers: Sequence[Answer], records: Sequence[Record]) -> list[tuple[int, int]]:
    return _recognised(options, [answer.first(options.speech) for answer in answers], records)


def _recognised(options: BenchmarkOptions, sounds: Sequence[Any], records: Sequence[Record]) -> list[tuple[int, int]]:
    from mio.plugins.benchmarks.metrics.recognition import Recogniser
    from mio.plugins.benchmarks.metrics.word_errors import word_errors

    recogniser = Recogniser.of(options.recogniser)
    return [
        word_errors(recogniser.heard(sound), record["transcription"])
        for sound, record in zip(sounds, records, strict=True)
    ]


def _ceiling(options: BenchmarkOptions, records: Sequence[Record], roundtrip: RoundTrip) -> float:
    """Of the recordings themselves after the codec."""
    counts: list[tuple[int, int]] = []
    for some in batches(records):
        counts += _recognised(options, roundtrip([record["speech"] for record in some]), some)
    return sum(errors for errors, _ in counts) / max(1, sum(words for _, words in counts))

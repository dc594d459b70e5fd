"""Speech in the voice of a prompt: the corpus, and the verdicts on it.

The voice is given as a recording of another word, with all codebooks (`{voice:generate}`): the first one alone, by
which speech is read, says what is said. In training the voices are those of the takes and others made of them, so many
that a voice has to be taken from the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from mio import Answer, Measure, Record, Task, Template
from mio.plugins.digits.corpus import Builder
from mio.plugins.digits.judges import hear
from mio.plugins.digits.measuring import DECODING, held_out
from mio.plugins.digits.voice_judge import Spoken, likeness
from mio.plugins.digits.voices import DIGITS, clips
from mio.plugins.digits.world import World

if TYPE_CHECKING:
    from mio import RoundTrip

GUIDANCE = 3.0
"""Classifier-free guidance of the speech: without it, it says the word and hardly takes the voice."""
LONGEST = 0.96
"""Seconds of both recordings of a record together, which take 50 frames of four codes each of every second."""
VERDICTS = ("accuracy", "content", "voice", "nearest")
"""What is said of an answer: whether it is right; its content; its voice; whether of all six held-out voices it is in
the prompt's."""


def cloning(world: World, draw: Random) -> Record:
    """`voice`: a word in some voice; `text`: another digit; `speech`: that digit in the same voice and take; `speaker`:
    name of the voice; `other`: name of a voice, of either split, that it is not."""
    while True:
        digit = draw.randrange(10)
        word = draw.choice([word for word in (*DIGITS, "plus") if word != DIGITS[digit]])
        (speaker, _), (voice, speech) = world.alike(draw, [word, DIGITS[digit]])
        if sum(len(samples) / rate for samples, rate in (voice.data, speech.data)) <= LONGEST:
            break
    names = dict.fromkeys(clip.voice for split in ("train", "test") for clip in clips(split))
    other = draw.choice([name for name in names if name != speaker])
    return {"voice": voice, "text": DIGITS[digit], "speech": speech, "speaker": speaker, "other": other}


BUILDERS: tuple[Builder, ...] = (cloning,)


def cloning_tasks() -> list[Task]:
    """Of answers that say the text without a look at the prompt, one half is right; for `nearest`, one in six."""
    return [
        Task(
            name="clone",
            template=Template(
                direction="clone", prompt="Say {text} in this voice. {voice:generate}", response="{speech}"
            ),
            records=lambda count: held_out(cloning, count),
            output="speech",
            judge=cloned,
            measures=tuple(Measure(name=name) for name in VERDICTS),
            ceiling=cloning_ceiling,
            decoding=replace(DECODING, media_temperature=0.8, guidance=GUIDANCE),
        )
    ]


def cloned(answers: Sequence[Answer], records: Sequence[Record]) -> list[Mapping[str, bool]]:
    """`VERDICTS` on each answer. It is right if it is one recording that says the text, and sounds more like the voice
    of the prompt than like the record's other voice (ABX)."""
    said = [answer.media("speech") for answer in answers]
    single = [number for number, recordings in enumerate(said) if len(recordings) == 1]
    verdicts = _verdicts([said[number][0] for number in single], [records[number] for number in single])
    found = dict(zip(single, verdicts, strict=True))
    return [found.get(number, dict.fromkeys(VERDICTS, False)) for number in range(len(answers))]


def cloning_ceiling(records: Sequence[Record], roundtrip: RoundTrip) -> Mapping[str, float]:
    """What the recordings of the voices themselves get after the codec. Each is compared with the voice's other takes
    alone."""
    verdicts = _verdicts(roundtrip([record["speech"] for record in records]), records)
    return {name: sum(one[name] for one in verdicts) / max(1, len(verdicts)) for name in VERDICTS}


def _verdicts(recordings: Sequence[Any], records: Sequence[Record]) -> list[Mapping[str, bool]]:
    spoken = [
        Spoken(samples, rate, record["text"], left_out=record["speech"].key.removeprefix("spoken/").rsplit("/", 1)[0])
        for (samples, rate), record in zip(recordings, records, strict=True)
    ]
    return [
        _verdict(DIGITS[digit], alike, record)
        for digit, alike, record in zip(hear(recordings), likeness(spoken), records, strict=True)
    ]


def _verdict(word: str, alike: Mapping[str, float], record: Record) -> Mapping[str, bool]:
    speaker = record["speaker"]
    content, voice = word == record["text"], alike[speaker] > alike[record["other"]]
    held_out = dict.fromkeys(clip.voice for clip in clips("test"))
    nearest = max(held_out, key=lambda name: alike[name]) == speaker
    return {"accuracy": content and voice, "content": content, "voice": voice, "nearest": nearest}

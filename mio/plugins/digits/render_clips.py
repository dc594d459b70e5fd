"""Renders the spoken clips of the digits world with the speech synthesiser espeak-ng: `python -m
mio.plugins.digits.render_clips FOLDER`.

The folder gets one FLAC file per voice (8 kHz, mono, its clips one after the other) and `index.json`, which says where
each clip lies, what it says and how it was rendered; and the further words that questions need, one FLAC file per
split, with `words.json`, which says where each lies. espeak-ng 1.51 (Debian 12) made the clips in `clips/`; another
version may differ in samples, not in content. A test voice has a voice variant that no training voice has: another
vocal tract (formants), voicing and pitch range, not just another speed.
"""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "plus")
QUESTION_WORDS = (*("which number", "how many", "is", "first", "last", "more", "less", "count", "up", "down", "tom"),)
"""With the digits and `plus`, the words of questions and of talk that is none."""
RATE = 8000
BITS, QUESTION_BITS = 10, 7
"""Significant bits of a sample, of `WORDS` and of `QUESTION_WORDS`. The rest of the 16 is zero, which FLAC stores for
free. Seven bits put the noise of rounding 40 dB below the peak."""
PEAK = 0.8
MARGIN = 0.02
"""Seconds of silence left before and after the word."""
SPEEDS = (175, 220)
"""Words per minute, drawn once per take; a word then lasts 0.2 to 0.5 s."""
PITCHES = (30, 70)
"""espeak-ng's pitch, 0 to 99, relative to the variant's own range."""
TAKES = {"train": 3, "test": 4}
QUESTION_TAKES = {"train": 1, "test": 2}
"""The first takes of each voice also say `QUESTION_WORDS`."""

# accent + variant, as espeak-ng's option -v takes them
VOICES = {
    "train": (
        *("en-us+m1", "en-gb+m2", "en-gb-scotland+m3", "en-us+m4", "en-029+m5", "en-gb-x-rp+m6", "en-us+m7"),
        *("en-gb+f1", "en-us+f2", "en-gb-x-gbclan+f3", "en-us+f5", "en-gb+anika", "en-us+steph", "en-029+Andrea"),
        *("en-gb-x-gbcwmd+Andy", "en-us+Annie", "en-gb+adam", "en-us+david", "en-gb+Alex", "en-us-nyc+antonio"),
        *("en-gb+Denis", "en-us+max", "en-gb-scotland+Mike", "en-us+rob", "en-gb+victor", "en-gb-x-rp+Gene"),
        *("en-us+klatt", "en-gb+klatt2", "en-gb-x-rp+klatt4", "en-us+quincy", "en-029+edward", "en-us+Storm"),
        *("en-gb+grandma", "en-us-nyc+shelby", "en-gb-x-gbclan+iven", "en-gb-scotland+sandro"),
    ),
    "test": ("en-us+m8", "en-gb+f4", "en-us+paul", "en-029+belinda", "en-gb-scotland+Hugo", "en-gb-x-rp+boris"),
}


def render(voice: str, word: str, speed: int, pitch: int, bits: int = BITS) -> npt.NDArray[np.int16]:
    """Samples int16 [T] at 8 kHz of one word, trimmed, at the same peak for every clip."""
    import numpy as np
    import soundfile
    from scipy.signal import resample_poly

    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav))
    samples = resample_poly(samples, RATE, rate)
    loud = np.flatnonzero(np.abs(samples) > 0.03 * np.abs(samples).max())
    margin = round(MARGIN * RATE)
    samples = samples[max(loud[0] - margin, 0) : loud[-1] + margin]
    samples = samples * (PEAK / np.abs(samples).max())
    step = 2 ** (16 - bits)
    return np.asarray(np.round(samples * 2 ** (bits - 1)) * step, np.int16)


def main(folder: Path) -> None:
    about = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"[\d.]+", about)
    folder.mkdir(parents=True, exist_ok=True)
    voices = [_voice(folder, split, name) for split, names in VOICES.items() for name in names]
    head = {"rate": RATE, "espeak-ng": version.group() if version else ""}
    _write_index(folder / "index.json", head, "voices", voices)
    words = [clip for split in VOICES for clip in _question_words(folder, split, voices)]
    _write_index(folder / "words.json", head, "clips", words)


def _voice(folder: Path, split: str, name: str) -> dict[str, Any]:
    """Writes the file of one voice; its entry in the index."""
    draw = random.Random(name)
    takes, clips = [], []
    pieces: list[npt.NDArray[np.int16]] = []
    for take in range(TAKES[split]):
        speed, pitch = draw.randint(*SPEEDS), draw.randint(*PITCHES)
        takes.append({"speed": speed, "pitch": pitch})
        for word in WORDS:
            samples = render(name, word, speed, pitch)
            clips.append([word, take, sum(piece.size for piece in pieces), len(samples)])
            pieces.append(samples)
    file = f"{split}-{name.replace('+', '-').lower()}.flac"
    _write(folder / file, pieces)
    return {"name": name, "split": split, "file": file, "takes": takes, "clips": clips}


def _question_words(folder: Path, split: str, voices: list[dict[str, Any]]) -> list[list[Any]]:
    """Writes the further words of all voices of a split: [file, voice, word, take, first sample, length] of each."""
    file, clips = f"{split}-words.flac", []
    pieces: list[npt.NDArray[np.int16]] = []
    for voice in voices:
        for take, how in enumerate(voice["takes"][: QUESTION_TAKES[split]]):
            for word in QUESTION_WORDS if voice["split"] == split else ():
                samples = render(voice["name"], word, how["speed"], how["pitch"], QUESTION_BITS)
                clips.append([file, voice["name"], word, take, sum(piece.size for piece in pieces), len(samples)])
                pieces.append(samples)
    _write(folder / file, pieces)
    return clips


def _write(path: Path, pieces: list[npt.NDArray[np.int16]]) -> None:
    import numpy as np
    import soundfile

    soundfile.write(path, np.concatenate(pieces), RATE, subtype="PCM_16", compression_level=1.0)


def _write_index(path: Path, head: dict[str, Any], name: str, entries: Sequence[Any]) -> None:
    # one line per voice or clip: readable, and a changed one is a changed line
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    path.write_text(f'{json.dumps(head)[:-1]}, "{name}": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))

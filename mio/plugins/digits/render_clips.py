"""Renders the spoken clips of the digits world with the speech synthesiser espeak-ng: `python -m
mio.plugins.digits.render_clips FOLDER`.

The folder gets one FLAC file per voice (8 kHz, mono, its clips one after the other) and `index.json`, which says where
each clip lies, what it says and how it was rendered. espeak-ng 1.51 (Debian 12) made the clips in `clips/`; another
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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "plus")
RATE = 8000
BITS = 10
"""Significant bits of a sample. The rest of the 16 is zero, which FLAC stores for free."""
PEAK = 0.8
MARGIN = 0.02
"""Seconds of silence left before and after the word."""
SPEEDS = (175, 220)
"""Words per minute, drawn once per take; a word then lasts 0.2 to 0.5 s."""
PITCHES = (30, 70)
"""espeak-ng's pitch, 0 to 99, relative to the variant's own range."""
TAKES = {"train": 3, "test": 4}

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


def render(voice: str, word: str, speed: int, pitch: int) -> npt.NDArray[np.int16]:
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
    step = 2 ** (16 - BITS)
    return np.asarray(np.round(samples * 2 ** (BITS - 1)) * step, np.int16)


def main(folder: Path) -> None:
    import numpy as np
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    about = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"[\d.]+", about)
    voices = []
    for split, names in VOICES.items():
        for name in names:
            draw = random.Random(name)
            takes, clips, pieces, start = [], [], [], 0
            for take in range(TAKES[split]):
                speed, pitch = draw.randint(*SPEEDS), draw.randint(*PITCHES)
                takes.append({"speed": speed, "pitch": pitch})
                for word in WORDS:
                    samples = render(name, word, speed, pitch)
                    clips.append([word, take, start, len(samples)])
                    pieces.append(samples)
                    start += len(samples)
            file = f"{split}-{name.replace('+', '-').lower()}.flac"
            soundfile.write(folder / file, np.concatenate(pieces), RATE, subtype="PCM_16", compression_level=1.0)
            voices.append({"name": name, "split": split, "file": file, "takes": takes, "clips": clips})
    # one line per voice: readable, and a changed voice is a changed line
    lines = ",\n".join(json.dumps(voice) for voice in voices)
    head = json.dumps({"rate": RATE, "espeak-ng": version.group() if version else ""})[:-1]
    (folder / "index.json").write_text(f'{head}, "voices": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))

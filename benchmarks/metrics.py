"""Figures of benchmarks against their reference implementations, on 200 made items each.

    python benchmarks/metrics.py [--vqa REPOSITORY] [--captions FILE...] [--write FILE]

CIDEr, BLEU-4, ROUGE-L and the words of captions are held against pycocoevalcap 1.2 (`pip install pycocoevalcap`, and
Java for its tokenizer), VQA accuracy against a checkout of github.com/GT-Vision-Lab/VQA, whose code of Python 2 is
brought to Python 3, Whisper's normaliser against the one in transformers. What is not there is left out.
`--captions` compares words on captions as well: a file of COCO's annotations, or one with a caption in each line.
`--write` keeps what the references said, as the tests read it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from made_items import answers, captions, transcriptions

from mio.plugins.benchmarks.metrics import captions as ours
from mio.plugins.benchmarks.metrics.penn_treebank import words
from mio.plugins.benchmarks.metrics.vqa import accuracy
from mio.plugins.benchmarks.metrics.word_errors import normalised

Found = dict[str, Any]


def reference_words(texts: Sequence[str]) -> list[str]:
    """Of each caption, by the reference's tokenizer, joined by spaces."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with contextlib.redirect_stderr(io.StringIO()):
        found = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(texts)})
    return [" ".join(found[number][0].split()) for number in range(len(texts))]


def of_captions() -> Found:
    """What pycocoevalcap says of the made captions."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    items = captions()
    said = dict(enumerate([text] for text in reference_words([answer for answer, _ in items])))
    flat = iter(reference_words([text for _, references in items for text in references]))
    wanted = {number: [next(flat) for _ in references] for number, (_, references) in enumerate(items)}
    with contextlib.redirect_stdout(io.StringIO()):
        return {
            "words": [text for [text] in said.values()],
            "cider": [float(score) for score in Cider().compute_score(wanted, said)[1]],
            "bleu_4": float(Bleu(4).compute_score(wanted, said)[0][3]),
            "rouge_l": [float(score) for score in Rouge().compute_score(wanted, said)[1]],
        }


def own_captions() -> Found:
    """The same by the plugin."""
    items = captions()
    said = [words(answer) for answer, _ in items]
    wanted = [[words(text) for text in references] for _, references in items]
    return {
        "words": [" ".join(text) for text in said],
        "cider": ours.cider(said, wanted),
        "bleu_4": ours.bleu(said, wanted),
        "rouge_l": [ours.rouge(*pair) for pair in zip(said, wanted, strict=True)],
    }


def of_answers(repository: Path) -> Found:
    """What the evaluation of VQA says of the made answers, before it rounds to two digits."""
    code = (repository / "PythonEvaluationTools/vqaEvaluation/vqaEval.py").read_text()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vqaEval.py"
        path.write_text(code)
        subprocess.run([sys.executable, "-m", "lib2to3", "-w", "-n", str(path)], check=True, capture_output=True)
        space: dict[str, Any] = {}
        exec(compile(path.read_text(), "vqaEval.py", "exec"), space)
    items = answers()
    asked = {
        number: {
            "answers": [{"answer": text, "answer_id": place} for place, text in enumerate(given)],
            "question_type": "what", "answer_type": "other",
        }
        for number, (_, given) in enumerate(items)
    }  # fmt: skip

    class Answers:
        def __init__(self, qa: Mapping[int, Any]) -> None:
            self.qa = qa

        def getQuesIds(self) -> list[int]:  # noqa: N802  as the evaluation calls it
            return list(self.qa)

    said = {number: {"answer": answer} for number, (answer, _) in enumerate(items)}
    evaluation = space["VQAEval"](Answers(asked), Answers(said), n=15)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return {"vqa": [evaluation.evalQA[number] / 100 for number in range(len(items))]}


def own_answers() -> Found:
    return {"vqa": [accuracy(*item) for item in answers()]}


def of_transcriptions() -> Found:
    """What the normaliser of transformers makes of the made transcriptions, with spellings of whisper-normalizer."""
    from importlib.resources import files

    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    spellings = next(path for path in files("whisper_normalizer").rglob("english.json"))  # type: ignore[attr-defined]
    normaliser = EnglishTextNormalizer(json.loads(spellings.read_text()))
    return {"normalised": [normaliser(text) for item in transcriptions() for text in item]}


def own_transcriptions() -> Found:
    return {"normalised": [normalised(text) for item in transcriptions() for text in item]}


def difference(first: Any, second: Any) -> float:
    """The largest difference of numbers; of texts, how many differ."""
    if isinstance(first, str):
        return float(first != second)
    if isinstance(first, list):
        each = [difference(*pair) for pair in zip(first, second, strict=True)]
        return sum(each) if isinstance(first[0], str) else max(each)
    return abs(first - second)


def held_against(what: str, reference: Callable[[], Found], own: Callable[[], Found]) -> tuple[Found, dict[str, float]]:
    """What the reference says, and how far the plugin is from it; nothing where the reference is not there."""
    try:
        said = reference()
    except (ImportError, FileNotFoundError) as error:
        print(f"{what}: left out, {error}")
        return {}, {}
    mine = own()
    differences = {name: difference(value, mine[name]) for name, value in said.items()}
    for name, value in differences.items():
        print(f"{what}, {name}: {'texts that differ' if name in TEXTS else 'largest difference'} {value:g}")
    return said, differences


TEXTS = ("words", "normalised")


def compared_captions(path: Path) -> dict[str, int]:
    """Words of the captions in a file."""
    if path.suffix == ".json":
        texts = [one["caption"].replace("\n", " ") for one in json.loads(path.read_text())["annotations"]]
    else:
        texts = [line.rsplit("\t", 1)[-1].strip() for line in path.read_text().splitlines() if line.strip()]
    differ = [text for text, other in zip(texts, reference_words(texts), strict=True) if " ".join(words(text)) != other]
    print(f"{path.name}: {len(differ)} of {len(texts):,} captions differ in their words")
    for text in differ[:5]:
        print(f"  {text}")
    return {"captions": len(texts), "differ": len(differ)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vqa", type=Path, default=Path("VQA"))
    parser.add_argument("--captions", type=Path, nargs="*", default=[])
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    pairs = (
        ("captions", of_captions, own_captions),
        ("answers", lambda: of_answers(chosen.vqa), own_answers),
        ("transcriptions", of_transcriptions, own_transcriptions),
    )
    said: Found = {}
    differences: dict[str, Any] = {}
    for what, reference, own in pairs:
        found, far = held_against(what, reference, own)
        said |= found
        differences |= far
    for path in chosen.captions:
        differences[path.name] = compared_captions(path)
    if chosen.write:
        chosen.write.write_text(json.dumps(said, ensure_ascii=False, indent=0) + "\n")
    print(json.dumps(differences))


if __name__ == "__main__":
    main()

"""What loggers are given of answers to validation tasks."""

from pathlib import Path

from mio.core.stages.validation_tasks import _sample


def test_media_that_could_not_be_written_cost_their_file_and_not_the_training():
    answer = [
        {"type": "text", "text": "a seven "},
        {"type": "image"},  # as an evaluation leaves it where the folder of samples cannot be written
        {"type": "image", "path": "draw-0.png"},
        {"type": "control", "name": "end"},
    ]
    sample = _sample("tasks/draw", {"prompt": "p", "answer": answer}, Path("samples"))
    assert sample.answer == "a seven [end]"
    assert sample.files == (Path("samples/draw-0.png"),)

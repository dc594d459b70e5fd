"""Media of a report: within the budget, from inside of the run folder, and nothing of a file but pixels and samples."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
import pytest
import soundfile
from made_run import make_run
from PIL import Image

from mio.report import write_report
from mio.report.media import LARGEST, Gallery


def bytes_of(shown) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(shown.uri.split(",", 1)[1]))


def test_a_small_picture_keeps_its_pixels(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shown = Gallery().show(tmp_path / "a.png", tmp_path)
    assert np.array_equal(np.asarray(Image.open(bytes_of(shown))), pixels)
    assert (shown.width, shown.height, shown.pixelated) == (72, 72, True)


def test_a_large_picture_is_made_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    shown = Gallery().show(tmp_path / "a.png", tmp_path)
    assert Image.open(bytes_of(shown)).size == (256, 384)
    assert len(shown.uri) < LARGEST


def test_sound_keeps_its_samples(tmp_path):
    samples = (np.sin(np.arange(3000) / 7) * 20000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 4000)
    shown = Gallery().show(tmp_path / "a.wav", tmp_path)
    heard, rate = soundfile.read(bytes_of(shown), dtype="int16")
    assert rate == 4000
    assert np.array_equal(heard, samples)


def test_a_moving_picture_keeps_its_frames_and_times(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), 80 * n, np.uint8)) for n in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    shown = Gallery().show(tmp_path / "a.gif", tmp_path)
    moving = Image.open(bytes_of(shown))
    assert moving.n_frames == 3
    seen = []
    for number in range(3):
        moving.seek(number)
        seen.append(np.asarray(moving.convert("L"))[0, 0])
    assert seen == [0, 80, 160]
    assert "1.5 s" in shown.note


@pytest.mark.parametrize("media_type", ["image", "audio", "video"])
def test_arrays_of_media_that_are_only_read(tmp_path, media_type):
    pixels = np.full((6, 4, 3), 7, np.uint8)
    arrays = {"image": [pixels], "audio": [np.zeros(800, np.float32), np.asarray(8000)], "video": [pixels, pixels]}
    np.savez(tmp_path / "a.npz", **{str(n): one for n, one in enumerate(arrays[media_type])})
    shown = Gallery().show(tmp_path / "a.npz", tmp_path, media_type)
    assert shown.uri
    assert shown.kind == ("audio" if media_type == "audio" else shown.kind)


def test_what_cannot_be_shown_is_counted_with_its_reason(tmp_path):
    run, gallery = tmp_path / "run", Gallery()
    run.mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    (run / "hurt.png").write_bytes(b"\x89PNG\r\n\x1a\nhurt")
    (run / "page.svg").write_text("<svg onload='window.hit = 1'/>")
    np.savez(run / "objects.npz", **{"0": np.array([{"a": 1}], dtype=object)})
    reasons = [
        gallery.show(run / name, run, "image").reason
        for name in ("../secret.png", "link.png", "hurt.png", "page.svg", "objects.npz", "missing.wav")
    ]
    outside, unreadable = "it lies outside of the run folder", "the file cannot be read"
    assert reasons == [outside, outside, unreadable, "no browser shows .svg", unreadable, "the file is missing"]
    assert sum(gallery.left_out.values()) == 6
    assert "2 left out: it lies outside" in gallery.told


def test_the_budget_holds_and_what_is_left_out_is_said(tmp_path):
    run = make_run(tmp_path, "two")
    whole = write_report([run])
    assert whole.left_out == ""
    written = write_report([run], budget=400)
    assert "left out: the page's budget is used up" in written.left_out
    assert written.left_out in html.unescape(written.path.read_text(encoding="utf-8"))
    page = written.path.read_text(encoding="utf-8")
    assert sum(map(len, (uri for uri in page.split('"') if uri.startswith("data:")))) <= 400
    assert written.size == len(page.encode()) < whole.size

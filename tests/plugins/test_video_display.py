"""Videos as players show them: which way up, how wide, on white, whatever they are called; on files written here."""

from __future__ import annotations

import io
import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from mio import DataError, MemoryFile, UserError
from mio.plugins import video
from mio.plugins.video import files

QUARTERS = np.array([[[220, 30, 30], [30, 200, 30]], [[40, 40, 220], [240, 240, 240]]], np.uint8)
"""Red, green; blue, white."""


@pytest.fixture(autouse=True)
def from_memory_too(monkeypatch):
    """Every file that these tests read is read from memory too: the same comes of it, or the same error."""
    by_path = files.read

    def read(path, **options):
        content = MemoryFile(path.read_bytes()) if path.is_file() else None
        try:
            found = by_path(path, **options)
        except DataError as error:
            if content is not None:
                with pytest.raises(DataError) as other:
                    by_path(content, **options)
                assert str(other.value).removeprefix(f"{content}") == str(error).removeprefix(f"{path}")  # noqa: PT017
            raise
        again = by_path(content, **options)
        assert len(found) == len(again)
        assert all(np.array_equal(*pair) for pair in zip(found, again, strict=True))
        return found

    monkeypatch.setattr(files, "read", read)


def drawn(width=96, height=64) -> np.ndarray:
    return np.repeat(np.repeat(QUARTERS, height // 2, 0), width // 2, 1)


def write(path, form="mp4", codec="libx264", frames=None, **options):
    """`frames` are pictures; options are of the stream, but for `turn`, `pixel`, `tags` and `muxer`."""
    frames = [drawn()] * 3 if frames is None else frames
    depth = options.get("depth", "yuv420p")
    with av.open(str(path), "w", format=form, options=options.get("muxer", {})) as container:
        stream = container.add_stream(codec, rate=10, options=options.get("encoder", {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = depth
        if "turn" in options:
            degrees, left, top = options["turn"]
            stream.set_display_rotation(degrees, hflip=left, vflip=top)
        if "pixel" in options:
            stream.codec_context.sample_aspect_ratio = options["pixel"]
        stream.metadata.update(options.get("tags", {}))
        for picture in frames:
            form_of = "rgba" if picture.shape[-1] == 4 else "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=form_of).reformat(format=depth)))
        container.mux(stream.encode())


def quarters(picture) -> np.ndarray:
    """The colours of the four quarters, `[2, 2, 3]`."""
    height, width = picture.shape[:2]
    return picture[height // 4 :: height // 2, width // 4 :: width // 2][:2, :2].astype(int)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_frames_are_turned_and_mirrored_by_the_matrix(tmp_path, degrees, mirror, form):
    write(tmp_path / "a.mp4", form, turn=(degrees, *mirror))
    due = np.rot90(QUARTERS, degrees // 90)
    due = due[:: -1 if mirror[1] else 1, :: -1 if mirror[0] else 1]
    for picture in files.read(tmp_path / "a.mp4"):
        assert picture.shape == ((64, 96, 3) if degrees % 180 == 0 else (96, 64, 3))
        assert np.abs(quarters(picture) - due).max() < 12


@pytest.mark.parametrize(
    ("matrix", "due"),
    [
        ((0, 1, -1, 0), np.rot90(QUARTERS, -1)),  # an upright recording of most telephones
        ((0, -1, 1, 0), np.rot90(QUARTERS)),
        ((-1, 0, 0, -1), np.rot90(QUARTERS, 2)),
        ((-1, 0, 0, 1), QUARTERS[:, ::-1]),
        ((0, 1, 1, 0), QUARTERS.swapaxes(0, 1)),
    ],
)
def test_a_point_goes_where_the_header_says(tmp_path, matrix, due):
    """ISO 14496-12, 8.3.2: (x, y) goes to (a x + c y, b x + d y)."""
    path = tmp_path / "a.mp4"
    write(path, turn=(180, False, False))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert np.abs(quarters(files.read(path)[0]) - due).max() < 12


def test_the_older_tag_counts_where_there_is_no_matrix(tmp_path):
    path = tmp_path / "a.mkv"
    for value, quarter in (("90", -1), ("180", 2), ("270", 1), ("-90", 1), ("0", 0)):
        write(path, "matroska", tags={"rotate": value})
        assert np.abs(quarters(files.read(path)[0]) - np.rot90(QUARTERS, quarter)).max() < 12
    for value in ("45", "left"):
        write(path, "matroska", tags={"rotate": value})
        with pytest.raises(DataError, match=r"rotation by 45 degrees|`rotate` is 'left'"):
            files.read(path)
    write(path, "mp4", turn=(30, False, False))
    with pytest.raises(DataError, match=r"rotation by -30 degrees.*encode it upright"):
        files.read(path)


@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("matroska", "mpeg4"), ("avi", "mpeg4")])
def test_pixels_become_square(tmp_path, form, codec):
    path = tmp_path / "a.mp4"
    for pixel in (Fraction(4, 3), Fraction(1, 2), Fraction(8, 9)):
        write(path, form, codec, pixel=pixel)
        assert files.read(path)[0].shape == (64, round(96 * pixel), 3)
        height, width, _ = files.read(path, max_side=32)[0].shape
        assert max(height, width) == 32
        assert abs(width / height - 1.5 * pixel) < 0.1
    write(path, "mp4", pixel=Fraction(2), turn=(90, False, False))
    assert files.read(path)[0].shape == (192, 64, 3)
    write(path, "mp4", pixel=Fraction(40))
    with pytest.raises(DataError, match="pixel aspect ratio is 40"):
        files.read(path)


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        *(("webm", "libvpx-vp9"), ("matroska", "libx264"), ("mov", "mpeg4"), ("3gp", "mpeg4"), ("mpegts", "libx264")),
        *(("flv", "flv"), ("asf", "wmv2"), ("vob", "mpeg2video"), ("ogg", "libvpx"), ("avi", "mpeg4")),
    ],
)
def test_the_content_tells_the_container(tmp_path, form, codec):
    for ending in (".mp4", ".avi"):
        write(tmp_path / f"a{ending}", form, codec)
        found = files.read(tmp_path / f"a{ending}")
        assert len(found) == 3
        assert np.abs(quarters(found[0]) - QUARTERS).max() < 25


def test_common_endings_are_known():
    suffixes = video.mio_datamodule("video", {}).suffixes
    common = ".mp4 .m4v .mov .avi .webm .mkv .3gp .ts .m2ts .flv .wmv .mpg .mpeg .ogv .gif"
    assert set(common.split()) <= set(suffixes)
    assert len(set(suffixes)) == len(suffixes)


def test_transparent_parts_are_white(tmp_path):
    clear = np.full((64, 96, 1), 255, np.uint8)
    clear[:, 48:] = 0
    frames = [np.concatenate([drawn() // (1 + number), clear], axis=2) for number in range(3)]
    due = [np.where(clear == 255, frame[..., :3], 255) for frame in frames]
    path = tmp_path / "a.gif"
    images = [Image.fromarray(frame) for frame in frames]
    for form, options in (("GIF", {"disposal": 2}), ("PNG", {}), ("WEBP", {"lossless": True})):
        images[0].save(path, form, save_all=True, append_images=images[1:], duration=100, **options)
        found = files.read(path)
        assert len(found) == 3
        assert max(np.abs(one - other.astype(int)).max() for one, other in zip(found, due, strict=True)) <= 8, form
    tags = {"alpha_mode": "1"}
    for form, codec, depth in (("webm", "libvpx-vp9", "yuva420p"), ("mov", "qtrle", "argb")):
        write(path, form, codec, frames, depth=depth, tags=tags)
        assert max(np.abs(one - other.astype(int)).mean() for one, other in zip(files.read(path), due, strict=True)) < 4


def test_frames_left_at_the_end_keep_their_times(tmp_path):
    """A decoder gives its last frames when there is nothing left to read."""
    path = tmp_path / "a.mkv"
    moments = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 5.0, 10.0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, moment in enumerate(moments):
            picture = np.full((48, 64, 3), 20 + 30 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = [round((picture.mean() - 20) / 30) for picture in files.read(path, frames=3)]
    assert found == [0, 6, 7]


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"

    def make(moving: bool) -> None:
        with av.open(str(path), "w") as container:
            cover = container.add_stream("mjpeg", rate=10)
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            stream = container.add_stream("libx264", rate=10) if moving else container.add_stream("aac", rate=16_000)
            if moving:
                stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            still = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(cover.encode(still.reformat(format="yuvj420p")))
            for number in range(3):
                if moving:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(), format="rgb24")))
                else:
                    heard = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
                    heard.sample_rate, heard.pts, heard.time_base = 16_000, 1024 * number, Fraction(1, 16_000)
                    container.mux(stream.encode(heard))
            container.mux(cover.encode())
            container.mux(stream.encode())

    make(True)
    assert files.read(path)[0].shape == (64, 96, 3)
    make(False)
    with pytest.raises(DataError, match="no video stream"):
        files.read(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])
def test_a_damaged_middle_is_told(tmp_path, codec):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(20)]
    write(tmp_path / "a.ts", "mpegts", codec, frames)
    whole = bytearray((tmp_path / "a.ts").read_bytes())
    assert len(files.read(tmp_path / "a.ts", frames=20)) == 20
    # H.264 has no checksums: now and then other bytes are other pictures
    for packet in range(len(whole) // 188 // 2, len(whole) // 188, 5)[:10]:
        whole[packet * 188 + 60 : packet * 188 + 140] = random.bytes(80)
    (tmp_path / "a.ts").write_bytes(whole)
    with pytest.raises(DataError, match="damaged video after"):
        files.read(tmp_path / "a.ts")


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4"), ("gif", "gif")]
)
def test_half_a_file_is_refused(tmp_path, form, codec):
    path = tmp_path / "a"
    frames = [drawn() // (1 + number) for number in range(12)]
    write(path, form, codec, frames, depth="rgb8" if codec == "gif" else "yuv420p")
    content = path.read_bytes()
    for part in (0.4, 0.7, 0.9):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(DataError, match="cut off"):
            files.read(path)


def test_avi_is_read_to_its_end_whatever_it_says(tmp_path):
    path = tmp_path / "a.avi"
    write(path, "avi", "mpeg4", [drawn() // (1 + number) for number in range(6)])
    content = bytearray(path.read_bytes())
    for said in (2, 9999):
        for name, offset in ((b"avih", 24), (b"strh", 40)):
            place = content.index(name) + offset
            content[place : place + 4] = said.to_bytes(4, "little")
        path.write_bytes(content)
        assert len(files.read(path)) == 6


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    still = io.BytesIO()
    Image.fromarray(drawn()).save(still, "JPEG")
    (tmp_path / "still.mp4").write_bytes(still.getvalue())
    for name, message in (("pipe", "a pipe or device"), ("folder", "is a folder"), ("still", "no known format")):
        with pytest.raises(DataError, match=message):
            files.read(tmp_path / f"{name}.mp4")


@pytest.mark.parametrize("wrong", [{"max_frames": "8"}, {"max_side": 1.5}, {"fps": float("nan")}, {"min_frames": True}])
def test_options_of_other_types_are_told(wrong):
    with pytest.raises(UserError, match=f"plugins.video: `{next(iter(wrong))}` (is|must be)"):
        video.mio_modalities(wrong)

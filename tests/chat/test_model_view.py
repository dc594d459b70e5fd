"""Models in the page: which file a browser shows, and what it draws of it."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mio.chat.media import MediaFile, MediaFolder
from mio.chat.view import media_html
from mio.core.contract.values import MemoryFile
from mio.core.errors import PluginError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SCRIPT = Path(__file__).parents[2] / "mio/chat/models.js"
CORNERS = [(-1, -1, 0), (1, -1, 0), (0, 1, 0)]
OBJ = "o one\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS) + "f 1//1 2//1 -1//1\n"


class Codecs:
    """Of a plugin that writes the bodies that it reads as `suffix`."""

    def __init__(self, suffix):
        self.suffix = suffix

    def opened(self, media):
        return SimpleNamespace(data=media.data.read_bytes())

    def saver(self, _modality):
        if not self.suffix:
            raise PluginError("it writes none")
        return self

    def save(self, media, stem):
        (path := stem.with_suffix(self.suffix)).write_bytes(media)
        return path


def shown(folder, suffix, given, writes):
    """What is shown of a file: its ending, whether it is the file itself, and the element."""
    (path := folder / f"given{suffix}").write_bytes(b"body")
    media = MediaFolder(folder / "media", Codecs(writes), {"body": "model"})
    one = media.given("body", path) if given else media.saved("body", MemoryFile(b"body", suffix))
    return one.shown.suffix, one.shown == one.path, media_html(one)[:10]


@pytest.mark.parametrize("given", [True, False])
def test_files_that_browsers_do_not_show_are_shown_as_their_plugin_writes_them(tmp_path, given):
    assert shown(tmp_path, ".glb", given, "") == (".glb", True, "<mio-model")
    assert shown(tmp_path, ".OBJ", given, "") == (".OBJ", True, "<mio-model")
    assert shown(tmp_path, ".stl", given, ".glb") == (".glb", False, "<mio-model")
    assert shown(tmp_path, ".stl", given, ".step") == (".step", False, '<a class="')
    assert shown(tmp_path, ".stl", given, "") == (".stl", True, '<a class="')


def test_what_a_plugin_made_is_shown(tmp_path):
    one = MediaFolder(tmp_path, Codecs(".glb"), {"body": "model"}).saved("body", b"body")
    assert one.shown == one.path == tmp_path / "body-1.glb"


def test_only_models_are_drawn_as_models(tmp_path):
    file = MediaFile("words", tmp_path / "a.obj", tmp_path / "a.obj", "")
    assert media_html(file).startswith("<a ")
    html = media_html(MediaFile("body", tmp_path / '">.obj', tmp_path / '">.obj', "model"))
    assert html.count("<") == 4
    assert "&quot;" in html


def glb(corners, **node):
    """A binary glTF file of one triangle, by the specification (section 4.4)."""
    binary = np.array(corners, "<f4").tobytes() + np.array([0, 1, 2, 0], "<u2").tobytes()
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 6}]
    gltf = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "nodes": [{"children": [1], **node}, {"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


DRAWN = """async (address) => {
  document.body.innerHTML = `<mio-model src="${address}"><a>link</a></mio-model>`;
  const model = document.querySelector('mio-model');
  for (let i = 0; i < 50 && !model.shadowRoot; i++) await new Promise((done) => setTimeout(done, 20));
  const canvas = model.shadowRoot && model.shadowRoot.querySelector('canvas');
  if (!canvas) return null;
  const side = canvas.width, pixels = canvas.getContext('2d').getImageData(0, 0, side, side).data, at = [];
  for (let i = 0; i < side * side; i++) if (pixels[4 * i + 3]) at.push(i);
  const y = at.map((i) => i / side / side), x = at.map((i) => i % side / side);
  return [at.length / side / side, Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
}"""


@pytest.fixture(scope="module")
def drawn():
    """What a browser draws of a file: the share of the square, and from where to where."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        files = {"/": b"<!doctype html><body>"}

        def answer(route):
            name = route.request.url.removeprefix("http://page.test")
            route.fulfill(body=files[name], content_type="text/html" if name == "/" else "application/octet-stream")

        page.route("http://page.test/**", answer)
        page.goto("http://page.test/")
        page.evaluate(SCRIPT.read_text())

        def draw(name, content):
            files[name] = content
            return page.evaluate(DRAWN, name)

        yield draw
        browser.close()


def test_a_browser_draws_what_is_in_the_file(drawn):
    """Seen from 0.45 above and 0.5 to the side, a triangle in the sphere around it, of radius 2^0.5."""
    share, left, right, top, bottom = drawn("/one.obj", OBJ.encode())
    wide, high = 0.95 * np.cos(0.5) / 2**0.5, 0.95 * np.cos(0.45) / 2**0.5
    assert (left, right) == pytest.approx(((1 - wide) / 2, (1 + wide) / 2), abs=0.02)
    assert bottom - top == pytest.approx(high, abs=0.1)
    assert share == pytest.approx(wide * high / 2, rel=0.05)
    assert drawn("/one.glb", glb(CORNERS)) == [share, left, right, top, bottom]
    # half a turn about the line of sight: w = cos(90 degrees) = 0 about z; and as a matrix
    upside_down = drawn("/two.glb", glb(CORNERS, rotation=[0, 0, 1, 0]))
    assert upside_down[0] == pytest.approx(share, rel=0.01)
    assert upside_down != [share, left, right, top, bottom]
    matrix = [-3, 0, 0, 0, 0, -3, 0, 0, 0, 0, 3, 0, 5, 6, 7, 1]  # larger, and elsewhere: it is fitted
    assert drawn("/three.glb", glb(CORNERS, matrix=matrix)) == pytest.approx(upside_down, abs=0.01)


@pytest.mark.parametrize("content", [b"", b"v 0 0 0\n", b"v 0 0 0\nv 1 0 0\nf 1 2 9\n", b"v a b c\nf 1 1 1\n"])
def test_of_what_cannot_be_drawn_the_link_stays(drawn, content):
    assert drawn("/broken.obj", content) is None
    assert drawn("/broken.glb", content) is None

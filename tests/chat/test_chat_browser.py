"""The page in a real browser: somebody gives a picture, asks aloud, plays the answer, looks at tokens, exports, talks.

The browser's microphone is a file. Whatever the page asks for is logged: all of it must go to the page's own server.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from mio.api.forms import to_wav
from mio.cli.addresses import listen

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytest.importorskip("gradio", reason="the package gradio is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PLAYED = """async (audio) => {
  if (!(audio.duration > 0)) await new Promise((done) => { audio.onloadedmetadata = done; audio.load(); });
  await audio.play();
  await new Promise((done) => { audio.ontimeupdate = () => { if (audio.currentTime > 0) done(); }; });
  return [audio.duration, audio.currentTime];
}"""
TOO_WIDE = "() => document.documentElement.scrollWidth - window.innerWidth"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def address(digits, tmp_path_factory):
    """Address of a page of the model that has learnt nothing, with live talk in which all is answered."""
    import mio
    from mio.chat.host import Host
    from mio.chat.live import live_policy
    from mio.chat.server import LOOPBACK, Server, application, run

    folder = tmp_path_factory.mktemp("page")
    loaded = mio.load(digits / "runs" / "stage4", "cpu", rows=4)
    host = Host(loaded, folder / "conversations", "stage4", seed=0)
    voice = {"detector": "energy", "level": -40, "silence": 0.3, "shortest": 0.1}
    policy = live_policy(host, "vita", {"answers": "all", "max_tokens": 40, "voice": voice})
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listen("127.0.0.1", 0))
        ready = threading.Event()
        server = Server(application(host, policy, LOOPBACK), ready.set)
        thread = threading.Thread(target=run, args=(server, sock))
        thread.start()
        try:
            assert ready.wait(60)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "three.png")
    beep, rest = np.sin(np.arange(8000) / 3) / 2, np.zeros(12000)
    (folder / "microphone.wav").write_bytes(to_wav((np.concatenate([beep, rest]), 16000)))
    return folder


@pytest.fixture(scope="module")
def page(address, files):
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={files / 'microphone.wav'}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = browser.new_context(viewport=DESKTOP, permissions=["microphone"], accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(60_000)
        sync_api.expect.set_options(timeout=60_000)
        page.asked, page.errors = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("websocket", lambda socket: page.asked.append(socket.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#mio-composer textarea")
        yield page
        browser.close()


def bubbles(page, count):
    """The last answer, when so many are over."""
    answers = page.locator("#mio-view .mio-model")
    sync_api.expect(answers).to_have_count(count)
    sync_api.expect(page.locator("#mio-composer .submit-button")).to_be_visible()
    return answers.last


def empty(page):
    """Composes nothing any more."""
    while page.locator("#mio-composer [aria-label='Remove file']").count():
        page.locator("#mio-composer [aria-label='Remove file']").first.click()
    page.locator("#mio-composer textarea").fill("")


def test_a_picture_is_given_and_the_answer_is_played(page, files):
    page.locator("#mio-settings button").first.click()
    page.locator("#mio-max_tokens input[type=number]").fill("120")
    page.locator("#mio-max_tokens input[type=number]").press("Enter")
    page.locator("#mio-composer input[type=file]").set_input_files(files / "three.png")
    page.locator("#mio-composer .thumbnail-item").wait_for()
    page.locator("#mio-output").get_by_label("speech").check()
    page.locator("#mio-composer textarea").fill("Say what {1} shows.")
    page.locator("#mio-composer textarea").press("Enter")
    answer = bubbles(page, 1)
    asked = page.locator("#mio-view .mio-user .mio-bubble")
    assert asked.inner_text().split() == ["Say", "what", "shows."]
    picture = asked.locator("img")
    assert picture.evaluate("(image) => [image.complete, image.naturalWidth, image.width]") == [True, 8, 112]
    duration, reached = answer.locator("audio").evaluate(PLAYED)
    assert 0 < reached <= duration <= 1.1
    assert "tokens read" in page.locator("#mio-under").inner_text()


def test_a_question_is_asked_aloud(page):
    page.locator("#mio-composer .microphone-button").click()
    page.locator("#mio-composer .record-button").click()
    page.wait_for_timeout(700)
    page.locator("#mio-composer [aria-label='Stop recording']").click()
    page.locator("#mio-composer [aria-label='Attach audio']").click()
    page.locator("#mio-composer .thumbnail-item").wait_for()
    page.locator("#mio-output").get_by_label("text", exact=True).check()
    page.locator("#mio-composer .submit-button").click()
    bubbles(page, 2)
    heard = page.locator("#mio-view .mio-user audio")
    assert heard.evaluate(PLAYED)[0] > 0.2
    assert page.locator("#mio-view .mio-problem").count() == 0


def test_what_goes_wrong_is_a_line_and_the_question_comes_back(page, files):
    (files / "notes.csv").write_text("a")
    page.locator("#mio-composer input[type=file]").set_input_files(files / "notes.csv")
    page.locator("#mio-composer .thumbnail-item").wait_for()
    page.locator("#mio-composer textarea").fill("what is this?")
    page.locator("#mio-composer textarea").press("Enter")
    problem = page.locator("#mio-view .mio-problem")
    problem.wait_for()
    assert problem.inner_text().startswith("notes.csv: this run reads no such files; it reads ")
    sync_api.expect(page.locator("#mio-composer textarea")).to_have_value("what is this?")
    empty(page)
    assert page.locator("#mio-view .mio-model").count() == 2


def test_turns_are_given_anew_and_taken_back(page):
    page.get_by_role("button", name="Regenerate").click()
    sync_api.expect(problem := page.locator("#mio-view .mio-problem")).to_have_count(0)
    bubbles(page, 2)
    page.get_by_role("button", name="Edit last").click()
    bubbles(page, 1)
    page.locator("#mio-composer .thumbnail-item").wait_for()
    empty(page)
    assert problem.count() == 0


def test_tokens_have_names(page):
    page.get_by_role("tab", name="Tokens").click()
    token = page.locator(".mio-tok[title^='<image> ']")
    token.first.wait_for()
    assert "image" in token.first.get_attribute("title")
    assert page.locator(".mio-written .mio-tok[title*='speech \u00b7 codebook 1, code ']").count() > 0
    page.get_by_role("tab", name="Chat").click()


def test_the_conversation_is_downloaded(page, tmp_path):
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "conversation.zip")
    with zipfile.ZipFile(tmp_path / "conversation.zip") as archive:
        [record] = map(json.loads, archive.read("stage4-1/conversation.jsonl").splitlines())
        names = archive.namelist()
    kinds = [[part["type"] for part in message["content"]] for message in record["messages"]]
    assert kinds[0] == ["text", "image", "text"]
    assert "speech" in kinds[1]
    assert "stage4-1/media/1-three.png" in names


def test_an_example_is_taken(page):
    page.locator("#mio-cards .mio-card").first.click()
    page.locator("#mio-composer .thumbnail-item").wait_for()
    assert "{1}" in page.locator("#mio-composer textarea").input_value()
    page.get_by_role("button", name="New").click()
    sync_api.expect(page.locator("#mio-view .mio-turn")).to_have_count(0)


def test_one_talks_while_it_listens(page):
    page.get_by_role("tab", name="Live talk").click()
    page.locator(".mio-talk").click()
    page.locator(".mio-live-log .mio-user").first.wait_for()
    page.locator(".mio-live-log .mio-model").first.wait_for()
    page.locator(".mio-talk").click()
    page.locator(".mio-live-form input").fill("hello")
    page.locator(".mio-live-form button").click()
    sync_api.expect(page.locator(".mio-live-log .mio-user").last).to_have_text("hello")
    page.get_by_role("tab", name="Chat").click()


@pytest.mark.parametrize("view", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_screen(page, view):
    page.set_viewport_size(view)
    for name in ("Chat", "Tokens", "Live talk"):
        page.get_by_role("tab", name=name).click()
        assert page.evaluate(TOO_WIDE) <= 0
    page.get_by_role("tab", name="Chat").click()


def test_nothing_has_left_the_page(page, address):
    own = (address, address.replace("http:", "ws:"), f"blob:{address}", "data:")
    assert len(page.asked) > 20
    assert [url for url in page.asked if not url.startswith(own)] == []
    assert page.errors == []

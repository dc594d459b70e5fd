"""The page in a real browser: somebody gives a picture, asks aloud, plays the answer, looks at tokens, exports, talks.

Each test has a page and a conversation of its own. The browser's microphone is a file. Whatever a page asks for is
logged: all of it must go to the page's own server.
"""

from __future__ import annotations

import contextlib
import json
import re
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
LOADED = "(image) => image.decode().then(() => [image.naturalWidth, image.width])"
LATE = """const plain = window.fetch;
window.fetch = async (...given) => {
  const response = await plain(...given);
  if (!(given[0].url ?? String(given[0])).includes('/queue/data')) return response;
  const late = new TransformStream({async transform(chunk, out) {
    const ends = new TextDecoder().decode(chunk).includes('close_stream');
    if (ends) await new Promise((done) => setTimeout(done, 500));
    out.enqueue(chunk);
  }});
  return new Response(response.body.pipeThrough(late), {headers: response.headers});
};"""
"""Makes the page learn late that the server has ended a stream of events."""
ABORTED = "The user aborted a request."
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
def context(files):
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={files / 'microphone.wav'}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = browser.new_context(viewport=DESKTOP, permissions=["microphone"], accept_downloads=True)
        context.set_default_timeout(60_000)
        sync_api.expect.set_options(timeout=60_000)
        yield context
        browser.close()


@pytest.fixture
def page(context, address):
    """A page of its own for each test: what it asks for goes to its own server, and nothing in it fails."""
    own = (address, address.replace("http:", "ws:"), f"blob:{address}", "data:")
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("pageerror", lambda error: errors.append((error.message, f"{error.name}: {error.message}")))
    page.goto(address)
    page.wait_for_selector("#mio-composer textarea")
    yield page
    page.close()
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith(own)] == []
    # gradio's players of sound stop loading when they are taken off the page, and nobody catches what that raises
    assert [told for message, told in errors if message != ABORTED] == []


def answers(page, count):
    """The last answer, when so many are over and the composer rests."""
    shown = page.locator("#mio-view .mio-model")
    sync_api.expect(shown).to_have_count(count)
    sync_api.expect(page.locator("#mio-under")).to_contain_text("seed")  # told of answers that are over
    sync_api.expect(page.locator("#mio-view .mio-waits, #mio-view .mio-growing")).to_have_count(0)
    sync_api.expect(page.locator("#mio-composer .submit-button")).to_be_visible()
    return shown.last


def attach(page, path):
    """Gives a file, which is there to be asked about once it is shown."""
    page.locator("#mio-composer input[type=file]").set_input_files(path)
    page.locator("#mio-composer .thumbnail-item").wait_for()


def ask(page, text, output=""):
    if output:
        page.locator("#mio-output").get_by_label(output, exact=True).check()
    page.locator("#mio-composer textarea").fill(text)
    page.locator("#mio-composer textarea").press("Enter")


def ask_about_a_picture(page, files):
    """The answer, in speech."""
    attach(page, files / "three.png")
    ask(page, "Say what {1} shows.", "speech")
    return answers(page, 1)


def empty(page):
    """Composes nothing any more."""
    while page.locator("#mio-composer [aria-label='Remove file']").count():
        page.locator("#mio-composer [aria-label='Remove file']").first.click()
    page.locator("#mio-composer textarea").fill("")


def test_a_picture_is_given_and_the_answer_is_played(page, files):
    page.locator("#mio-settings button").first.click()
    page.locator("#mio-max_tokens input[type=number]").fill("120")
    page.locator("#mio-max_tokens input[type=number]").press("Enter")
    answer = ask_about_a_picture(page, files)
    asked = page.locator("#mio-view .mio-user .mio-bubble")
    assert asked.inner_text().split() == ["Say", "what", "shows."]
    picture = asked.locator("img")
    assert picture.evaluate(LOADED) == [8, 112]
    duration, reached = answer.locator("audio").evaluate(PLAYED)
    assert 0 < reached <= duration <= 1.1
    assert "tokens read" in page.locator("#mio-under").inner_text()


def test_a_question_is_asked_aloud(page):
    page.locator("#mio-output").get_by_label("text", exact=True).check()
    page.locator("#mio-composer .microphone-button").click()
    page.locator("#mio-composer .record-button").click()
    page.locator("#mio-composer [aria-label='Stop recording']").wait_for()
    page.wait_for_timeout(700)
    page.locator("#mio-composer [aria-label='Stop recording']").click()
    page.locator("#mio-composer [aria-label='Attach audio']").click()
    page.locator("#mio-composer .thumbnail-item").wait_for()
    page.locator("#mio-composer .submit-button").click()
    answers(page, 1)
    heard = page.locator("#mio-view .mio-user audio")
    assert heard.evaluate(PLAYED)[0] > 0.2
    assert page.locator("#mio-view .mio-problem").count() == 0


def test_no_question_is_lost_between_two_streams(context, address):
    """Gradio's own page loses it: the question joins before the page knows that the stream of the choice has ended."""
    page = context.new_page()
    page.add_init_script(LATE)
    page.goto(address)
    page.wait_for_selector("#mio-composer textarea")
    for count in (1, 2):
        ask(page, "hello", "text" if count == 1 else "anything")
        answers(page, count)
    page.close()


def test_what_goes_wrong_is_a_line_and_the_question_comes_back(page, files):
    (files / "notes.csv").write_text("a")
    attach(page, files / "notes.csv")
    ask(page, "what is this?")
    problem = page.locator("#mio-view .mio-problem")
    problem.wait_for()
    assert problem.inner_text().startswith("notes.csv: this run reads no such files; it reads ")
    sync_api.expect(page.locator("#mio-composer textarea")).to_have_value("what is this?")
    sync_api.expect(page.locator("#mio-composer .submit-button")).to_be_visible()
    empty(page)
    ask(page, "hello", "text")
    answers(page, 1)
    assert problem.count() == 0


def edit_last(page, left):
    """Takes the last question back, of which so many are left. While an answer is given the button does nothing, and
    the moment at which it is over cannot be seen on the page: it is asked again, at rest."""
    shown = page.locator("#mio-view .mio-model")
    for _ in range(4):
        page.wait_for_timeout(1000)
        page.get_by_role("button", name="Edit last").click()
        with contextlib.suppress(AssertionError):
            sync_api.expect(shown).to_have_count(left, timeout=15_000)
            return
    sync_api.expect(shown).to_have_count(left)


def test_turns_are_given_anew_and_taken_back(page, files):
    ask_about_a_picture(page, files)
    ask(page, "hello", "text")
    answers(page, 2)
    before = page.locator("#mio-under").inner_text()
    page.get_by_role("button", name="Regenerate").click()
    sync_api.expect(page.locator("#mio-under")).not_to_have_text(before)
    answers(page, 2)
    edit_last(page, 1)
    sync_api.expect(page.locator("#mio-composer textarea")).to_have_value("hello")
    page.get_by_role("button", name="Edit last").click()
    page.locator("#mio-composer .thumbnail-item").wait_for()
    sync_api.expect(page.locator("#mio-view .mio-turn")).to_have_count(0)
    assert page.locator("#mio-view .mio-problem").count() == 0


def test_tokens_have_names(page, files):
    ask_about_a_picture(page, files)
    page.get_by_role("tab", name="Tokens").click()
    token = page.locator(".mio-tok[title^='<image> ']")
    token.first.wait_for()
    assert "image" in token.first.get_attribute("title")
    assert page.locator(".mio-written .mio-tok[title*='speech \u00b7 codebook 1, code ']").count() > 0


def test_the_conversation_is_downloaded(page, files, tmp_path):
    ask_about_a_picture(page, files)
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
    sync_api.expect(page.locator("#mio-composer textarea")).to_have_value(re.compile(r"\{1\}"))
    ask(page, "{1} hello", "text")
    answers(page, 1)
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
    # what was said before is heard late on a slow machine, and may come behind
    page.locator(".mio-live-log .mio-user").get_by_text("hello", exact=True).wait_for()


@pytest.mark.parametrize("view", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_screen(page, view):
    page.set_viewport_size(view)
    for name in ("Chat", "Tokens", "Live talk"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_function(f"({TOO_WIDE})() <= 0")

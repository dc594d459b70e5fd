"""The page of a report in a browser: it opens offline, at desktop and phone width, and nothing in it acts."""

from __future__ import annotations

import math
import shutil

import pytest
from made_run import make_run, metrics_of, write_metrics

from mio.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A chain, two runs side by side, and a run with one step and one with figures that are not finite."""
    folder = tmp_path_factory.mktemp("pages")
    one, two = make_run(folder, "one", steps=80), make_run(folder, "a-name-that-is-long-" * 3, "../one")
    single, wild = make_run(folder, "single", steps=10), make_run(folder, "wild")
    lines = metrics_of(200)
    for line in lines:
        line |= {"loss": math.nan, "grad_norm": -1.0}
    write_metrics(wild / "metrics.csv", lines)
    asked = {"chain": [two], "beside": [one, two], "single": [single], "wild": [wild]}
    return {name: write_report(runs, folder / f"{name}.html").path for name, runs in asked.items()}


class Seen:
    """A page, with what it asked for and complained of."""

    def __init__(self, browser, path, width, **options):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.page.close()

    def ask(self, script):
        return self.page.evaluate(script)


@pytest.mark.parametrize("name", ["chain", "beside", "single", "wild"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_it_opens_offline_and_nothing_is_broken(browser, pages, name, width):
    with Seen(browser, pages[name], width) as seen:
        assert seen.ask("document.documentElement.scrollWidth <= innerWidth")
        assert seen.ask("[...document.querySelectorAll('figure')].every((one) => one.querySelector('svg'))")
        assert seen.ask("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
        assert seen.ask("document.querySelectorAll('path[d*=NaN], circle[cx=NaN], text:empty').length") == 0
        outside = "[...document.querySelectorAll('figure, table, details, h1')]"
        wide = "one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll')"
        assert seen.ask(f"{outside}.filter((one) => {wide}).length") == 0
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []


def test_nothing_of_the_runs_acts(browser, pages):
    with Seen(browser, pages["chain"], 1280) as seen:
        assert seen.ask("window.hit") is None
        # even markup that found its way into the page could not: the policy allows one script alone
        seen.ask("document.body.insertAdjacentHTML('beforeend', `<img src=x onerror='window.hit = 3'>`)")
        seen.page.wait_for_timeout(50)
        assert seen.ask("window.hit") is None


def test_sound_can_be_played(browser, pages):
    with Seen(browser, pages["chain"], 1280) as seen:
        length = seen.ask(
            "new Promise((done) => { const one = document.querySelector('audio'); one.preload = 'auto';"
            " one.onloadedmetadata = () => done(one.duration); one.onerror = () => done(-1); one.load(); })"
        )
        assert length == pytest.approx(1.0, abs=0.01)


def test_charts_answer(browser, pages):
    with Seen(browser, pages["chain"], 1280) as seen:
        page = seen.page
        figure = page.locator("figure", has=page.locator("figcaption", has_text="Loss by codebook: tone"))
        curves = figure.locator("path.curve")
        assert curves.count() == 4  # two codebooks in two stages
        figure.locator(".legend button").first.click()
        assert curves.count() == 2
        figure.locator(".legend button").first.dblclick()  # this one alone
        assert curves.count() == 2
        figure.get_by_role("button", name="log").click()
        assert "log scale" in figure.locator("text.unit").first.text_content()
        page.locator("#controls select").first.select_option("tokens")
        assert figure.locator("text.unit").last.text_content() == "tokens"
        page.locator("#controls select").nth(1).select_option("0")
        assert figure.locator("line.border").count() == 0
        whole = page.locator("figure").first
        whole.locator(".plot").hover(position={"x": 500, "y": 100})
        told = whole.locator(".tip").text_content()
        assert told.startswith("one, step ")
        assert "training" in told
        assert seen.complaints == []


def test_without_a_script_the_numbers_are_there(browser, pages):
    with Seen(browser, pages["chain"], 390, java_script_enabled=False) as seen:
        numbers = seen.page.locator("figure details").first
        numbers.locator("summary").click()
        assert "training" in numbers.inner_text()
        assert seen.page.locator("noscript").first.inner_text()

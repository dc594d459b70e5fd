"""What is shown of tokens, compared with what the vocabulary says of each."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hosted import SEVEN, ask, host, picture
from talking import WRITTEN, humming

import mio
from mio.api.loaded import Loaded
from mio.chat.conversation import Conversation
from mio.chat.host import Host
from mio.chat.tokens import token_spans, tokens_html
from mio.chat.view import conversation_html, status_line
from mio.core.tokens.rendered import Item, Prompt


class Titles(HTMLParser):
    """Titles of tokens, in order."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "span" and "mio-tok" in attrs.get("class", ""):
            self.found.append(attrs["title"])


@pytest.fixture
def one(tmp_path):
    one = Conversation(host(tmp_path))
    ask(one, "both")
    ask(one, "what is {1}?", picture(tmp_path, *SEVEN))
    return one


def test_every_token_has_its_name_id_codebook_and_place(one):
    last, model = one.last, one.host.run.model
    prompt, answer = last.seen.request.prompt, last.pending.ticket.answer.tokens
    titles = Titles(tokens_html(model, prompt, answer)).found
    ids = [*prompt.tokens.tolist(), *answer]
    assert len(titles) == len(ids)
    for place, (token, title) in enumerate(zip(ids, titles, strict=True)):
        assert f"id {token} " in title
        assert title.endswith(f"position {place}")
        block = model.vocabulary.blocks[model.vocabulary.block_of[token]]
        assert (f"{block.modality} \u00b7 codebook {block.codebook}, code {token - block.start}" in title) == (
            block.kind == "codes"
        )


def test_spans_are_cut_where_modality_codebook_or_author_change(one):
    last, model = one.last, one.host.run.model
    spans = token_spans(model, last.seen.request.prompt, last.pending.ticket.answer.tokens)
    assert sum((span.ids for span in spans), ()) == (*last.seen.request.prompt.tokens.tolist(),
                                                     *last.pending.ticket.answer.tokens)  # fmt: skip
    codes = [span for span in spans if span.codebook == 0 and span.modality == "picture"]
    start = model.vocabulary.code_ids("picture", 0).start
    assert [tuple(token - start for token in span.ids) for span in codes] == [SEVEN, SEVEN]
    assert [span.modality for span in spans if span.written] == ["text"]
    borders = [span for span in spans if span.special and span.modality == "picture"]
    assert [model.vocabulary.token(span.ids[0]) for span in borders] == ["<pic>", "</pic>"] * 2


def test_codes_of_an_automaton_stand_in_its_states(one, monkeypatch):
    """A span that it accepts, one of which it takes two codes, and one of a modality without."""
    last, model = one.last, one.host.run.model
    arcs = {"even": [mio.Arc((0, 2), ("odd", 1))], ("odd", 1): [mio.Arc((1, 3), "even")]}
    automaton = mio.Automaton(start="even", arcs=arcs, final=["even"])
    declared = replace(model.codecs.modalities["picture"], automaton=automaton, frames=mio.Frames(maximum=8))
    monkeypatch.setitem(model.codecs.modalities, "picture", declared)
    start = model.vocabulary.code_ids("picture", 0).start
    begin, end = model.vocabulary.begin("picture"), model.vocabulary.end("picture")
    wrong = [begin, *(start + code for code in (2, 1, 1, 0)), end]
    titles = Titles(tokens_html(model, last.seen.request.prompt, [*last.pending.ticket.answer.tokens, *wrong])).found
    states = [re.search(r"picture/?.*code (\d+)(?: \u00b7 in state (.*))? \u00b7 position", title) for title in titles]
    told = [(int(found[1]), found[2]) for found in states if found]
    right = [(0, "even"), (1, "odd 1"), (2, "even"), (3, "odd 1")]
    assert told == [*right, *right, (2, "even"), (1, "odd 1"), (1, "even"), (0, None)]
    assert not [title for title in titles if "state" in title and "picture" not in title]


def test_what_networks_read_is_shown_by_its_positions(one):
    model = one.host.run.model
    vocabulary, pad = model.vocabulary, model.vocabulary.specials.pad
    begin, end, text = vocabulary.begin("picture"), vocabulary.end("picture"), model.codecs.text.encode("a")
    prompt = Prompt(np.array([*text, begin, pad, pad, pad, end], np.int32), (Item("picture", 2, 3, None),))
    answer = [begin, pad, pad, end]  # as it is where a head has made a picture, which is read again
    networks = [span for span in token_spans(model, prompt, answer) if span.network]
    assert [(span.modality, span.first, len(span.ids), span.written) for span in networks] == [
        ("picture", 2, 3, False),
        ("picture", 7, 2, True),
    ]
    html = tokens_html(model, prompt, answer)
    assert "<b>picture</b> 5 read, 4 written" in html
    titles = Titles(html).found
    assert "picture, read by a network \u00b7 positions 2 to 4" in titles
    assert "picture, read by a network \u00b7 positions 7 to 8" in titles


def test_the_first_of_many_tokens_are_left_out(one, monkeypatch):
    monkeypatch.setattr("mio.chat.tokens.MOST", 10)
    last, model = one.last, one.host.run.model
    prompt, answer = last.seen.request.prompt, last.pending.ticket.answer.tokens
    html = tokens_html(model, prompt, answer)
    assert len(Titles(html).found) == 10
    assert f"The first {len(prompt.tokens) + len(answer) - 10} tokens are not shown" in html


def test_nothing_that_is_said_is_markup(tmp_path):
    evil = "<b onclick='x'>&amp;</b>"
    one = Conversation(host(tmp_path, {evil: f"{evil} ${{x}} {{{{y}}}}"}))
    ask(one, evil)
    html = conversation_html(one)
    assert "<b " not in html
    shown = [unescape(text) for text in re.findall(r'<span class="mio-text">(.*?)</span>', html, re.DOTALL)]
    assert shown == [evil, f"{evil} ${{x}} {{{{y}}}}"]
    last = one.last
    assert "<b " not in tokens_html(one.host.run.model, last.seen.request.prompt, last.pending.ticket.answer.tokens)
    ask(one, "{tone:9}<img src=x>")
    assert "<img" not in conversation_html(one)


def test_control_tokens_media_and_ends_of_answers_are_shown(tmp_path):
    run = Loaded(humming({"hum": [WRITTEN, "so: ", ("hum", [1, 2, 3, 4])], "no": f"<2>{'quiet'}"}), 2)
    one = Conversation(Host(run, tmp_path / "media", "made"))
    ask(one, "hum")
    html = conversation_html(one)
    assert '<code class="mio-said" title="control token">' in html
    assert re.search(r'<audio class="mio-sound" controls [^>]*src="gradio_api/file=[^"]*\.wav"', html)
    assert f"of {run.model.recipe.data.packing.context}" in status_line(one)
    ask(one, "no")
    assert "not meant for the model" in conversation_html(one)


def test_no_token_of_a_form_is_lost_in_an_empty_answer(one):
    model = one.host.run.model
    prompt = Prompt(np.array(model.codecs.text.encode("a"), np.int32))
    assert [span.written for span in token_spans(model, prompt)] == [False]
    assert "written by the model" not in tokens_html(model, prompt)

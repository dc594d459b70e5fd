"""Media of answers as files that other programs open."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mio.serve.giving import as_file


def save(media, stem):
    (path := stem.with_suffix(".glb")).write_bytes(media)
    return path


@pytest.mark.parametrize("media_type", ["", "model"])
def test_what_has_no_form_of_its_own_is_the_file_that_its_plugin_writes(media_type):
    model = SimpleNamespace(codecs=SimpleNamespace(saver=lambda _: SimpleNamespace(save=save)))
    assert as_file(model, "body", media_type, b"content") == (".glb", b"content")

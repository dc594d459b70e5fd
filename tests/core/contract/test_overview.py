"""What `mio plugins show` says of a plugin."""

from __future__ import annotations

from conftest import ROOT

from mio.core.contract.discovery import discover, local
from mio.core.contract.overview import overview
from mio.core.contract.plugins import PluginManager


def test_a_plugin_is_shown_with_its_encoder_and_its_control_tokens():
    package = ROOT / "tests" / "packages" / "mio-gesture" / "mio_gesture.py"
    shown = list(overview(PluginManager([*discover(), local(f"gesture={package}")]), "gesture", {}))
    assert shown == [
        ("modality", "gesture", "read by an encoder"),
        ("encoder", "gesture", "pen-1"),
        ("control token", "scribble", "<scribble>, an id of its own; silence"),
        ("rule", "labels answers with control tokens", ""),
        ("corpus", "gesture/strokes", ""),
        ("task", "strokes", ""),
    ]


def test_adapters_and_heads_are_shown_with_the_maps_that_they_read():
    package = ROOT / "tests" / "packages" / "mio-swatch" / "mio_swatch.py"
    manager = PluginManager([*discover(), local(f"swatch={package}")])
    assert list(overview(manager, "swatch", {})) == [
        ("modality", "swatch", "read by an encoder, made by a head"),
        ("encoder", "swatch", "swatch-reader-1; maps of 9 cells with 8 channels"),
        ("head", "swatch", "swatch-painter-1"),
        ("adapters", "swatch", "swatch-look-1; read the maps of `swatch`"),
        ("corpus", "swatch/turns", ""),
    ]
    assert not [kind for kind, *_ in overview(manager, "swatch", {"look": False}) if kind == "adapters"]

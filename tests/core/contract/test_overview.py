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

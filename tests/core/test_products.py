"""MKL's strict mode is chosen where it exists, before MKL multiplies, and never against the user's choice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mio.core import products

SAID = "import mio, os; print(os.environ.get('MKL_CBWR'))"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)

    def write(vendor):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
        monkeypatch.setattr(products, "_PROCESSORS", path)

    return write


@pytest.mark.parametrize(("vendor", "mode"), [("GenuineIntel", "AUTO,STRICT"), ("AuthenticAMD", None)])
def test_it_is_chosen_for_intels_processors(cpuinfo, vendor, mode):
    cpuinfo(vendor)
    products.settle_products()
    assert os.environ.get("MKL_CBWR") == mode


def test_elsewhere_than_on_linux_the_systems_word_counts(monkeypatch, tmp_path):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setattr(products, "_PROCESSORS", tmp_path / "none")
    monkeypatch.setattr(products.platform, "processor", lambda: "arm")
    products.settle_products()
    assert "MKL_CBWR" not in os.environ
    monkeypatch.setattr(products.platform, "processor", lambda: "Intel64 Family 6 Model 207, GenuineIntel")
    products.settle_products()
    assert os.environ["MKL_CBWR"] == "AUTO,STRICT"


def test_importing_mio_settles_it_but_keeps_what_the_user_chose():
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    for given in ({}, {"MKL_CBWR": "COMPATIBLE"}):
        done = subprocess.run(
            [sys.executable, "-c", SAID], env=environment | given, capture_output=True, text=True, check=True
        )
        expected = given.get("MKL_CBWR", "AUTO,STRICT" if products._is_intels() else None)
        assert done.stdout.strip() == str(expected)

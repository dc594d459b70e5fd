"""Networks that plugins supply, beside each other."""

from types import SimpleNamespace

import pytest

from mio import PluginError
from mio.core.contract.networks import Networks


def encoder(**members):
    return SimpleNamespace(fingerprint="e", **members)


def adapter(reads="image", layers=range(2)):
    return SimpleNamespace(fingerprint="a", reads=reads, layers=lambda _: layers)


def head(**maps):
    return SimpleNamespace(fingerprint="h", maps=maps)


def test_maps_that_nothing_makes_are_told():
    encoders = {"image": encoder(maps=(4, 3)), "sound": encoder(maps=None), "pen": encoder()}
    networks = Networks(encoders, {"a": adapter(), "b": adapter("sound"), "c": adapter("imgae")}, {"pen": head(pen=1)})
    assert list(networks.problems()) == [
        "plugin `b` reads the maps of `sound`, but the encoder of `sound` makes none: give its plugin the option that "
        "has it make maps",
        "plugin `c` reads the maps of `imgae`, but no encoder of the recipe reads `imgae`; did you mean `image`?; add "
        "its plugin under `plugins:`",
        "the head of `pen` reads the maps of `pen`, but the encoder of `pen` makes none: give its plugin the option "
        "that has it make maps",
    ]
    assert networks.fingerprints() == {
        "encoders": {"image": "e", "sound": "e", "pen": "e"},
        "adapters": {"a": "a", "b": "a", "c": "a"},
        "heads": {"pen": "h"},
    }
    assert not Networks()


@pytest.mark.parametrize("layers", [[], [2, 1], [0, 0], [-1], [4], [0.5], [True], "01", None, 3])
def test_layers_are_there_ascending_and_at_least_one(layers):
    with pytest.raises(
        PluginError, match=r"plugin `a`: its `layers` gave .* of 4 layers; they must be layers that are"
    ):
        Networks(adapters={"a": adapter(layers=layers)}).adapted_layers(4)
    assert Networks(adapters={"a": adapter(layers=(0, 3))}).adapted_layers(4) == {"a": (0, 3)}

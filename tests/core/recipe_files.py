"""What tests of recipes share."""

from __future__ import annotations

import pytest

from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError

NONE = PluginManager([])


def problems(function, *arguments):
    with pytest.raises(RecipeError) as caught:
        function(*arguments)
    return list(caught.value.problems)

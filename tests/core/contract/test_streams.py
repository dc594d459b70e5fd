import numpy as np
import pytest

from mio import PluginError
from mio.core.contract.streams import joined


def test_pieces_are_joined_along_time():
    pieces = [np.arange(3.0), np.arange(2.0), np.zeros(0)]
    samples, rate = joined([(piece, 8000) for piece in pieces])
    assert (samples.tolist(), rate) == ([0, 1, 2, 0, 1], 8000)
    assert joined([np.ones((1, 2)), np.zeros((2, 2))]).tolist() == [[1, 1], [0, 0], [0, 0]]
    assert joined([["a"], [], ["b", "c"]]) == ["a", "b", "c"]
    assert joined([(pieces[0], 8000)])[0] is pieces[0]


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([(np.zeros(1), 8000), (np.zeros(1), 16000)], "differ in what is the same for all of it: 8000, 16000"),
        ([np.zeros(1), [0.0]], "are of several kinds: ndarray, list"),
        ([np.zeros((1, 2)), np.zeros((1, 3))], r"do not fit .* float64 \[1, 2\], float64 \[1, 3\]"),
        ([np.zeros(1), np.zeros(1, np.float32)], r"float64 \[1\], float32 \[1\]"),
    ],
)
def test_pieces_of_different_kinds_are_refused(pieces, problem):
    with pytest.raises(PluginError, match=problem):
        joined(pieces)

"""The N-d operators where sizes or values are extreme: memory, time and infinities."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sepconv import _core

nd = _core.nd


def test_softmax_of_infinities_is_nan_throughout() -> None:
    inf = math.inf
    x = np.array([[1, inf, 2], [inf, inf, 0], [-inf, -inf, -inf], [-inf, 0, 0], [1, math.nan, 2]], np.float32)
    for logarithm in (False, True):
        y = nd.softmax(x, logarithm, 1)
        assert np.isnan(y[[0, 1, 2, 4]]).all()
        np.testing.assert_allclose(y[3], [-inf, -math.log(2), -math.log(2)] if logarithm else [0, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(nd.reduce("log_sum_exp", x[:3], 1), np.array([inf, inf, -inf], np.float32))


def test_pooling_takes_no_longer_for_taps_outside() -> None:
    x, most = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4), 2**31 - 1
    began = time.perf_counter()
    y = nd.pool("sum", x, [4], [most], [1], [1], [most - 1], [1], False, 1)
    assert y.tolist() == [[[10, 10, 9, 7]]]
    # Windows far apart, of which each has its own tap inside, and none at all in the middle.
    y = nd.pool("sum", x, [3], [2**30], [2**30 - 1], [2**30 - 1], [most - 1], [1], False, 1)
    assert y.tolist() == [[[1, 10, 0]]]
    y = nd.pool("sum", x[..., None], [2, 1], [most, 1], [1, 1], [2, 0], [most - 1, 0], [1, 1], False, 1)
    assert y.tolist() == [[[[10], [10]]]]
    assert time.perf_counter() - began < 2


def test_sizes_whose_product_wraps_around_are_refused() -> None:
    x, one, most = np.ones((1, 1, 1, 1), np.float32), [1] * 4, [1 << 16] * 4  # 2^64 taps
    packed = nd.PackedMatrix(np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match=r"less than 2\^31 elements"):
        nd.conv_transpose(x, [packed], None, one, one, most, one, [0] * 4, [0] * 4, one, 1)
    with pytest.raises(ValueError, match=r"less than 2\^31 elements"):
        nd.pool("sum", x.reshape([1] * 6), one, most, one, [0] * 4, [0] * 4, one, False, 1)


_LEAN_PRODUCTS = """
import resource
import numpy as np
from sepconv import _core

def virtual():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()

_core.nd.dense(np.ones((64, 1024), np.float32).T, 4)  # starts the threads
a, b = np.full((1, 1 << 22), 0.5, np.float32), np.full((1 << 22, 3), 2, np.float32)
resource.setrlimit(resource.RLIMIT_AS, (virtual() + (64 << 20),) * 2)
print(_core.nd.products(a, b[:, :1], 4)[0, 0], _core.nd.products(a, b, 4)[0, 2])
print(_core.nd.products(b.T.copy(), a.T, 4)[2, 0], _core.nd.products(b.T.copy()[:2], b[:, :2], 4)[1, 1])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_products_of_long_vectors_take_no_more_memory_than_their_operands() -> None:
    run = subprocess.run([sys.executable, "-c", _LEAN_PRODUCTS], capture_output=True, text=True, check=False)
    assert [float(x) for x in run.stdout.split()] == [2.0**22, 2.0**22, 2.0**22, 2.0**24], run.stderr

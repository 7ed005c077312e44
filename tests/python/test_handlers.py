"""Signal handlers of Python that run during a call: the program's floating-point mode, and fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

# The handler forks in the middle of a call. The child's exit status is 0 where its call gave the right bits, 3 where it
# raised and later calls are right; a child that hangs ends by SIGALRM.
CODE = """
    import os, signal, sys
    import numpy as np, sepconv
    from sepconv import _core

    def ones(*shape):
        return np.ones(shape, np.float32)

    {setup}
    small, filters = ones(1, 9, 9, 24), ones(3, 3, 24, 1)
    child, seen, tiny = -1, [], 1e-310

    def handler(*_):
        global child
        seen.append(tiny * 1.0)
        if child < 0:
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(30)

    def bits(results):
        several = isinstance(results, (list, tuple))
        return [np.asarray(result).tobytes() for result in (results if several else [results])]

    want = bits({call})
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    status = 0
    try:
        right = bits({call}) == want
    except RuntimeError as error:
        assert child == 0 and "a signal handler forked during this call" in str(error), error
        status, right = 3, np.all(sepconv.depthwise_conv2d(small, filters, threads=2) == 9)
    if child == 0:
        os._exit(status if right else 1)
    assert right and child > 0
    assert seen == [tiny] and tiny * 1.0 == tiny, seen
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
"""
CASES = {
    "an operator": ("x, w = ones(16, 112, 112, 64), ones(3, 3, 64, 64)", "sepconv.conv2d(x, w, threads={threads})"),
    "a batch": (
        "model = sepconv.models.mobilenet_v1(resolution=224, classes=10); x = ones(60, 224, 224, 3)",
        "model(x, threads={threads})",
    ),
    "one image": (
        "model = sepconv.models.mobilenet_v1(resolution=1500, classes=10); x = ones(1, 1500, 1500, 3)",
        "model(x, threads={threads})",
    ),
    "an N-d operator": ("x = ones(30_000_000)", "_core.nd.unary('erf', x, 0, 0, {threads})"),
    "gradients": (
        "x, w = ones(100, 112, 112, 32), ones(32, 1, 3, 3)",
        "_core.depthwise_grad(x, w, x, (1, 1), ((1, 1), (1, 1)), (1, 1), (True, True), {threads})",
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("case", CASES)
def test_a_handler_has_the_program_s_mode_and_may_fork(case: str, threads: int) -> None:
    setup, call = CASES[case]
    code = textwrap.dedent(CODE).format(setup=setup, call=call.format(threads=threads))
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # What another thread took is lost to a child, which has one thread; alone it goes on.
    assert result.returncode == (0 if threads == 1 else 3), result.stderr

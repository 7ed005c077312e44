"""Each operator against torch.nn.functional and onnxruntime: random shapes, windows, layouts and memory.

Some hundreds here; ``python tests/trust counterparts --full`` does tens of thousands.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from counterparts import check_within, compare, onnx_result, random_counterpart
from op_problems import OPERATORS, want

WINDOWED = [operator for operator in OPERATORS if operator != "pointwise_conv2d"]


@pytest.fixture(scope="module")
def onnx() -> Any:
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def onnxruntime() -> Any:
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize("operator", OPERATORS)
def test_against_torch(operator: str, torch: Any) -> None:
    for seed in range(100):
        compare(operator, seed, torch)


@pytest.mark.parametrize("operator", WINDOWED)
def test_the_rules_of_padding_against_onnxruntime(operator: str, onnx: Any, onnxruntime: Any) -> None:
    for seed in range(40):
        problem = random_counterpart(Random(seed), operator, rule=True)
        if problem.groups > 1:  # of which the oracle, that gives the bound, knows nothing
            continue
        ours = problem.call(problem.x, "NHWC", problem.residual)
        check_within(problem, ours, onnx_result(problem, onnx, onnxruntime), 2 * want(problem)[1], "onnxruntime")

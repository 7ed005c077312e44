"""The operators as functions: thousands of random calls, in every layout and memory layout, against float64."""

from __future__ import annotations

import pickle
from random import Random
from typing import Any

import numpy as np
import pytest
from op_problems import MEMORY, OPERATORS, Problem, check, in_memory, random_problem
from oracle import Float32

import sepconv
from sepconv import graph


def to_layout(values: Float32, layout: str) -> Float32:
    return values if layout == "NHWC" else values.transpose(0, 3, 1, 2)


def from_layout(values: Any, layout: str) -> Any:
    return values if layout == "NHWC" else values.transpose(0, 2, 3, 1)


def random_call(problem: Problem, random: Random) -> Float32:
    """The result in NHWC, of a call in a random layout, from random places in memory, perhaps into one."""
    layout = random.choice(("NHWC", "NCHW"))
    x = in_memory(np.ascontiguousarray(to_layout(problem.x, layout)), random.choice(MEMORY))
    residual = None
    if problem.residual is not None:
        residual = in_memory(np.ascontiguousarray(to_layout(problem.residual, layout)), random.choice(MEMORY))
    threads = random.choice((1, 1, 2, 3))
    result = problem.call(x, layout, residual, prepared=random.random() < 0.5, threads=threads)
    if random.random() < 0.5:
        kind = random.choice([kind for kind in MEMORY if kind != "read-only"])
        out = in_memory(np.full_like(result, np.nan, subok=False), kind)
        assert problem.call(x, layout, residual, out=out, threads=1) is out
        assert np.array_equal(out, result), problem
    return np.asarray(from_layout(result, layout), np.float32)


@pytest.mark.parametrize("operator", OPERATORS)
def test_random_calls_stay_within_the_bound(operator: str) -> None:
    for seed in range(400):
        random = Random(seed)
        problem = random_problem(random, operator)
        check(problem, random_call(problem, random))


@pytest.mark.parametrize("operator", OPERATORS)
def test_larger_images(operator: str) -> None:
    for seed in range(1000, 1025):
        random = Random(seed)
        problem = random_problem(random, operator, large=True)
        check(problem, random_call(problem, random))


@pytest.mark.parametrize("operator", OPERATORS)
def test_small_integers_are_exact(operator: str) -> None:
    for seed in range(2000, 2100):
        random = Random(seed)
        problem = random_problem(random, operator, integers=True)
        check(problem, random_call(problem, random), exact=True)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_same_bits_on_any_number_of_threads_and_in_any_batch(operator: str) -> None:
    for seed in range(3000, 3030):
        problem = random_problem(Random(seed), operator, large=True)
        problem.x = np.concatenate([problem.x, problem.x[::-1]])
        if problem.residual is not None:
            problem.residual = np.concatenate([problem.residual, problem.residual[::-1]])
        results = [problem.call(problem.x, "NHWC", problem.residual, threads=n) for n in (1, 2, 3, 7)]
        assert all(np.array_equal(result, results[0]) for result in results), problem
        for i in range(len(problem.x)):
            residual = None if problem.residual is None else problem.residual[i : i + 1]
            assert np.array_equal(problem.call(problem.x[i : i + 1], "NHWC", residual), results[0][i : i + 1]), problem


def test_groups_of_channels() -> None:
    for seed in range(60):
        random = Random(seed)
        problem = random_problem(random, "conv2d", integers=True)
        n, h, w, _ = problem.x.shape
        groups, inputs, outputs = random.randint(2, 5), random.randint(1, 9), random.randint(1, 20)
        generator = np.random.default_rng(seed)
        x = generator.integers(-4, 5, (n, h, w, groups * inputs)).astype(np.float32)
        layer = problem.layers[0]
        kernel = np.shape(layer.weight)[:2]
        weight = generator.integers(-4, 5, (*kernel, inputs, groups * outputs)).astype(np.float32)
        parts = []
        for g in range(groups):
            part = Problem("conv2d", x[..., g * inputs : (g + 1) * inputs], [], None, problem.geometry)
            part.layers = [graph.Conv2d(name="y", inputs=("x",), weight=weight[..., g * outputs : (g + 1) * outputs])]
            parts.append(part.call(part.x, "NHWC"))
        whole = Problem("conv2d", x, [graph.Conv2d(name="y", inputs=("x",), weight=weight)], None, problem.geometry)
        whole.groups = groups
        for layout in ("NHWC", "NCHW"):
            result = whole.call(to_layout(x, layout), layout, prepared=layout == "NCHW")
            assert np.array_equal(from_layout(result, layout), np.concatenate(parts, axis=3))


@pytest.mark.parametrize("size", range(1, 12))
def test_paddings_by_name(size: int) -> None:
    for kernel, stride, dilation in ((1, 2, 1), (2, 1, 1), (3, 1, 1), (3, 2, 1), (5, 3, 1), (3, 1, 2), (4, 2, 1)):
        extent = (kernel - 1) * dilation + 1
        x = np.random.default_rng(0).standard_normal((1, size, size + 1, 3), dtype=np.float32)
        weight = np.random.default_rng(1).standard_normal((kernel, kernel, 3, 1), dtype=np.float32)
        settings: dict[str, Any] = {"stride": stride, "dilation": dilation}
        # TensorFlow's published rule: https://www.tensorflow.org/api_docs/python/tf/nn
        totals = []
        for axis in (size, size + 1):
            rest = axis % stride
            totals.append(max(extent - (rest or stride), 0))
        upper = tuple((total // 2, total - total // 2) for total in totals)
        lower = tuple((total - total // 2, total // 2) for total in totals)
        for name, sides in (("same", upper), ("same_lower", lower), ("SAME", upper)):
            named = sepconv.depthwise_conv2d(x, weight, padding=name, **settings)  # type: ignore[arg-type]
            assert named.shape == (1, -(-size // stride), -(-(size + 1) // stride), 3)
            assert np.array_equal(named, sepconv.depthwise_conv2d(x, weight, padding=sides, **settings))
        if extent <= size:
            valid = sepconv.depthwise_conv2d(x, weight, padding="valid", **settings)
            assert np.array_equal(valid, sepconv.depthwise_conv2d(x, weight, padding=0, **settings))
    both = sepconv.depthwise_conv2d(
        np.ones((1, 4, 4, 1), np.float32), np.ones((3, 3, 1, 1), np.float32), padding=(1, 0)
    )
    assert both.shape == (1, 4, 2, 1)


def test_prepared_weights_serve_both_layouts_and_pickle() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 9, 9, 24), dtype=np.float32)
    weight = generator.standard_normal((3, 3, 24, 2), dtype=np.float32)
    bias = generator.standard_normal(48, dtype=np.float32)
    want = sepconv.depthwise_conv2d(x, weight, bias)
    prepared = sepconv.prepare(weight, "depthwise", bias)
    weight[...] = np.nan  # prepared weights are a copy
    for copy in (prepared, pickle.loads(pickle.dumps(prepared))):
        assert np.array_equal(sepconv.depthwise_conv2d(x, copy), want)
        other = sepconv.depthwise_conv2d(x.transpose(0, 3, 1, 2), copy, layout="NCHW")
        assert np.array_equal(other.transpose(0, 2, 3, 1), want)
        call = sepconv.last_call()
        assert call is not None
        assert call.packed == ()
    assert repr(prepared) == "<depthwise weights 3x3, 24 -> 48 channels>"


def test_a_block_that_does_not_expand() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 9, 9, 8), dtype=np.float32)
    depthwise = generator.standard_normal((3, 3, 8, 1), dtype=np.float32)
    project = generator.standard_normal((1, 1, 8, 4), dtype=np.float32)
    result = sepconv.inverted_residual(x, None, depthwise, project, padding=1)
    want = sepconv.separable_conv2d(x, depthwise, project, padding=1, middle_activation="relu6")
    assert np.array_equal(result, want)


def test_broadcast_views_are_read_as_they_are() -> None:
    generator = np.random.default_rng(0)
    pixel, channels = generator.standard_normal((2, 24), dtype=np.float32)
    weight = generator.standard_normal((1, 1, 24, 24), dtype=np.float32)
    x, residual = (np.broadcast_to(values, (1, 20, 3, 24)) for values in (pixel, channels))
    want = sepconv.pointwise_conv2d(x.copy(), weight, residual=residual.copy())
    assert np.array_equal(sepconv.pointwise_conv2d(x, weight, residual=residual), want)
    depthwise = generator.standard_normal((3, 3, 24, 1), dtype=np.float32)
    assert np.array_equal(sepconv.depthwise_conv2d(x, depthwise), sepconv.depthwise_conv2d(x.copy(), depthwise))


def test_an_empty_batch_gives_an_empty_result() -> None:
    x = np.empty((0, 5, 5, 3), np.float32)
    assert sepconv.depthwise_conv2d(x, np.ones((3, 3, 3, 2), np.float32)).shape == (0, 3, 3, 6)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("size", "channels", "outputs"), [(7, 700, 645), (20, 512, 1024), (3, 1024, 401)])
def test_weights_packed_while_they_are_multiplied(size: int, channels: int, outputs: int, layout: Any) -> None:
    """So many that each part is packed just before its turn: the bits of prepared ones, on rows with gaps too."""
    random = np.random.default_rng(3)
    x = random.standard_normal((1, size, size + 2, channels), dtype=np.float32)[:, :, 1:-1]
    filters = random.standard_normal((3, 3, channels, 1), dtype=np.float32)
    weight = random.standard_normal((1, 1, channels, outputs), dtype=np.float32)
    bias = random.standard_normal(outputs, dtype=np.float32)
    if layout == "NCHW":
        x, filters, weight = x.transpose(0, 3, 1, 2), filters.transpose(2, 3, 0, 1), weight.transpose(3, 2, 0, 1).copy()
    middle = sepconv.prepare(filters, "depthwise", layout=layout)
    last = sepconv.prepare(weight, "pointwise", bias, layout=layout)
    residual = sepconv.pointwise_conv2d(x, last, layout=layout)
    assert np.array_equal(sepconv.pointwise_conv2d(x, weight, bias, layout=layout), residual)
    for threads in (1, 2, 3):
        both: dict[str, Any] = {"padding": 1, "threads": threads, "layout": layout, "activation": "silu"}
        wanted = sepconv.separable_conv2d(x, middle, last, residual=residual, **both)
        got = sepconv.separable_conv2d(x, filters, weight, None, bias, residual=residual, **both)
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_that_threads_pack_in_parts_give_the_bits_of_prepared_ones(layout: Any, stride: int) -> None:
    rng = np.random.default_rng(0)
    channels, outputs = 333, 261  # panels and vectors that are not full; enough weights to be packed by parts
    axes = (0, 1, 2, 3) if layout == "NHWC" else (0, 3, 1, 2)
    x = rng.standard_normal((1, 9, 7, channels), np.float32).transpose(axes)
    filters = rng.standard_normal((3, 3, channels, 1), np.float32)
    matrix = rng.standard_normal((1, 1, channels, outputs), np.float32)
    biases = rng.standard_normal(channels, np.float32), rng.standard_normal(outputs, np.float32)
    if layout == "NCHW":
        filters, matrix = filters.transpose(2, 3, 0, 1), matrix.transpose(3, 2, 0, 1)
    size = (5, 4) if stride == 2 else (9, 7)
    residual = rng.standard_normal((1, *size, outputs), np.float32).transpose(axes)
    options: Any = {"stride": stride, "padding": 1, "middle_activation": "relu6", "activation": "hard_swish"}
    prepared = (
        sepconv.prepare(filters, "depthwise", biases[0], layout=layout),
        sepconv.prepare(matrix, "pointwise", biases[1], layout=layout),
    )
    expected = sepconv.separable_conv2d(x, *prepared, residual=residual, layout=layout, threads=1, **options)
    for threads in (1, 2, 3, 7, 16):
        got = sepconv.separable_conv2d(
            x, filters, matrix, *biases, residual=residual, layout=layout, threads=threads, **options
        )
        np.testing.assert_array_equal(got, expected)
        out = np.full(expected.shape, np.nan, np.float32).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        sepconv.separable_conv2d(
            x, filters, matrix, *biases, residual=residual, layout=layout, threads=threads, out=out, **options
        )
        np.testing.assert_array_equal(out, expected)
        alone = sepconv.pointwise_conv2d(x, matrix, biases[1], layout=layout, threads=threads)
        np.testing.assert_array_equal(alone, sepconv.pointwise_conv2d(x, prepared[1], layout=layout, threads=1))

"""Gemm and MatMul."""

from __future__ import annotations

import math

import numpy as np

from sepconv import _core
from sepconv.onnx.ir import Array
from sepconv.onnx.ops.elementwise import binary_of
from sepconv.onnx.ops.registry import Call, dense, native
from sepconv.onnx.ops.windows import activated

nd = _core.nd


@native("Gemm", typed=3)
def gemm(call: Call) -> list[Array]:
    a, b, c = call[0], call[1], call.get(2)
    if call.node.flatten:
        a = call.dense(0).reshape(a.shape[0], math.prod(a.shape[1:]))
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"A and B have ranks {a.ndim} and {b.ndim}, must have 2")
    a = dense(a.T if call.attribute("transA", 0) else a, call.threads)
    matrix = b.T if call.attribute("transB", 0) else b
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    if a.shape[1] != matrix.shape[0]:
        raise ValueError(f"A is {list(a.shape)} and B {list(matrix.shape)}, after transposing: they do not fit")
    result = _product(call, a, matrix, (1,))
    if alpha != 1.0:
        result = nd.unary("affine", result, alpha, 0.0, call.threads)
    if c is not None and beta != 0.0:
        if np.broadcast_shapes(c.shape, result.shape) != result.shape:
            raise ValueError(f"C has the shape {c.shape}, must broadcast to {result.shape}")
        scaled = c if beta == 1.0 else nd.unary("affine", dense(c, call.threads), beta, 0.0, call.threads)
        result = binary_of("add", result, scaled, call.threads)
    return [activated(call, result)]


def _product(call: Call, a: Array, matrix: Array, depends: tuple[int, ...]) -> Array:
    if 0 in a.shape or 0 in matrix.shape:
        return np.zeros((a.shape[0], matrix.shape[1]), np.float32)
    return nd.matmul(a, call.cached("matrix", depends, lambda: nd.PackedMatrix(matrix)), call.threads)


@native("MatMul", typed=2)
def matmul(call: Call) -> list[Array]:
    a, b = call[0], call[1]
    if call.node.flatten:
        a = call.dense(0).reshape(a.shape[0], math.prod(a.shape[1:]))
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("an operand of MatMul has rank 0, must have at least 1")
    left = a[np.newaxis] if a.ndim == 1 else a
    right = b[:, np.newaxis] if b.ndim == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"operands have the shapes {a.shape} and {b.shape}, which do not fit")
    if right.ndim == 2:
        rows = dense(left, call.threads).reshape(math.prod(left.shape[:-1]), left.shape[-1])
        result = _product(call, rows, right, (1,)).reshape(*left.shape[:-1], right.shape[-1])
    else:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        count = math.prod(batch)
        lefts = np.broadcast_to(left, (*batch, *left.shape[-2:])).reshape(count, *left.shape[-2:])
        rights = np.broadcast_to(right, (*batch, *right.shape[-2:])).reshape(count, *right.shape[-2:])
        result = np.zeros((count, left.shape[-2], right.shape[-1]), np.float32)
        for index in range(len(result) if result.size and left.shape[-1] else 0):
            product = nd.matmul(dense(lefts[index], call.threads), nd.PackedMatrix(rights[index]), call.threads)
            nd.copy(result[index], product, call.threads)
        result = result.reshape(*batch, left.shape[-2], right.shape[-1])
    if a.ndim == 1:
        result = result[..., 0, :]
    if b.ndim == 1:
        result = result[..., 0]
    return [activated(call, dense(result, call.threads))]

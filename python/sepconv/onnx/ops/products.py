"""Gemm, MatMul, and a MatMul with a term for each column."""

from __future__ import annotations

import math

import numpy as np

from sepconv import _core
from sepconv.onnx.ir import OWN_DOMAIN, Array
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
    # Where all is constant, C is added by the product itself.
    fused = {1, 2} <= call.constant and c is not None and alpha == beta == 1.0 and c.shape == matrix.shape[1:]
    result = _product(call, a, matrix, c if fused else None)
    if alpha != 1.0:
        result = nd.unary("affine", result, alpha, 0.0, call.threads)
    if c is not None and beta != 0.0 and not fused:
        if np.broadcast_shapes(c.shape, result.shape) != result.shape:
            raise ValueError(f"C has the shape {c.shape}, must broadcast to {result.shape}")
        scaled = c if beta == 1.0 else nd.unary("affine", dense(c, call.threads), beta, 0.0, call.threads)
        result = binary_of("add", result, scaled, call.threads)
    return [activated(call, result)]


def _product(call: Call, a: Array, matrix: Array, bias: Array | None = None) -> Array:
    """Rows of ``a``, which is dense, times input 1 as a matrix, packed once where that is constant."""
    if 1 not in call.constant or 0 in a.shape or 0 in matrix.shape:
        product = nd.products(a, matrix, call.threads)
        return product if bias is None else binary_of("add", product, bias, call.threads)
    packed = call.cached("matrix", (1,), lambda: nd.PackedMatrix(matrix, bias))
    rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    return nd.matmul(rows, packed, call.threads).reshape(*a.shape[:-1], matrix.shape[1])


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
        result = _product(call, dense(left, call.threads), right)
    else:
        result = nd.products(left, right, call.threads)
    if a.ndim == 1:
        result = result[..., 0, :]
    if b.ndim == 1:
        result = result[..., 0]
    return [activated(call, dense(result, call.threads))]


@native("Linear", domain=OWN_DOMAIN)
def linear(call: Call) -> list[Array]:
    """A matrix of constants and a term for each of its columns: what the pass ``linear`` makes of MatMul and Add."""
    a, matrix = call.dense(0), call[1]
    if a.ndim == 0 or a.shape[-1] != matrix.shape[0]:
        raise ValueError(f"x has the shape {a.shape} and the matrix {matrix.shape}, which do not fit")
    result = _product(call, np.atleast_2d(a), matrix, call[2]).reshape(*a.shape[:-1], matrix.shape[1])
    return [activated(call, result)]


@native("Product", typed=2, domain=OWN_DOMAIN)
def product(call: Call) -> list[Array]:
    """Two operands whose axes come in another order: what the pass ``transposed`` makes of Transpose and MatMul."""
    operands = []
    for index, side in enumerate(("left", "right")):
        x, order = call[index], call.attribute(side)
        if len(order) != x.ndim:
            raise ValueError(f"perm is {order}, must be the axes of an operand, which has rank {x.ndim}, in some order")
        operands.append(x.transpose(order))
    left, right = operands
    if left.ndim < 2 or right.ndim < 2 or left.shape[-1] != right.shape[-2]:
        raise ValueError(f"operands have the shapes {left.shape} and {right.shape}, which do not fit")
    return [activated(call, nd.products(left, right, call.threads))]

"""A separable convolution of sepconv inside a JAX program, by jax.pure_callback: under jit, vmap and scan, on the CPU.

    pip install sepconv jax
    python examples/jax_callback.py

Under ``vmap`` of images alone the mapped axis joins the batch, so that it's one call; where weights are mapped too, the
calls are made one after the other. ``jax.grad`` works as well: a callback has no gradient, so JAX's own convolution
is what is differentiated.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sepconv


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def separable_conv2d(x: Any, depthwise: Any, pointwise: Any, stride: int) -> Any:
    """[n, ceil(h/stride), ceil(w/stride), N] of x [n, h, w, C], depthwise [kh, kw, C, M], pointwise [1, 1, C*M, N]."""
    n, height, width, _ = x.shape
    shape = (n, -(-height // stride), -(-width // stride), pointwise.shape[3])
    call = partial(_on_host, stride=stride)
    return jax.pure_callback(
        call, jax.ShapeDtypeStruct(shape, x.dtype), x, depthwise, pointwise, vmap_method="expand_dims"
    )


def _on_host(*arguments: Any, stride: int) -> Any:
    """The call itself. Under vmap arrays have axes in front, of length 1 where they aren't mapped."""
    x, *weights = (np.asarray(argument) for argument in arguments)  # in place: JAX's arrays lie in CPU memory
    front = np.broadcast_shapes(x.shape[:-4], *(weight.shape[:-4] for weight in weights))
    if all(weight.size == np.prod(weight.shape[-4:]) for weight in weights):
        depthwise, pointwise = (weight.reshape(weight.shape[-4:]) for weight in weights)
        result = sepconv.separable_conv2d(
            x.reshape(-1, *x.shape[-3:]), depthwise, pointwise, stride=stride, padding="same"
        )
        return result.reshape(*x.shape[:-3], *result.shape[1:])
    each = [np.broadcast_to(array, (*front, *array.shape[-4:])) for array in (x, *weights)]
    results = [
        sepconv.separable_conv2d(*(array[index] for array in each), stride=stride, padding="same")
        for index in np.ndindex(*front)
    ]
    return np.stack(results).reshape(*front, *results[0].shape)


def jax_separable_conv2d(x: Any, depthwise: Any, pointwise: Any, stride: int) -> Any:
    """The same in JAX alone."""
    kh, kw, channels, multiplier = depthwise.shape
    filters = depthwise.reshape(kh, kw, 1, channels * multiplier)
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, padding="SAME", dimension_numbers=layout)
    middle = convolve(x, filters, (stride, stride), feature_group_count=channels)
    return convolve(middle, pointwise, (1, 1))


def _forward(x: Any, depthwise: Any, pointwise: Any, stride: int) -> Any:
    return separable_conv2d(x, depthwise, pointwise, stride), (x, depthwise, pointwise)


def _backward(stride: int, arrays: Any, gradient: Any) -> Any:
    return jax.vjp(partial(jax_separable_conv2d, stride=stride), *arrays)[1](gradient)


separable_conv2d.defvjp(_forward, _backward)


def network(convolution: Any, x: Any, weights: Any) -> Any:
    """Three separable convolutions with ReLU between them, and the mean of each channel."""
    for depthwise, pointwise in weights:
        x = jax.nn.relu(convolution(x, depthwise, pointwise, 2))
    return x.mean((1, 2))


def main() -> None:
    keys = iter(jax.random.split(jax.random.key(0), 9))
    channels = (8, 16, 32, 24)
    weights = [
        (jax.random.normal(next(keys), (3, 3, c, 1)) / 3, jax.random.normal(next(keys), (1, 1, c, n)) / c**0.5)
        for c, n in pairwise(channels)
    ]
    images = jax.random.normal(next(keys), (5, 2, 29, 32, 8))  # five batches of two
    ours, theirs = partial(network, separable_conv2d), partial(network, jax_separable_conv2d)

    def differ(a: Any, b: Any) -> float:
        return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    many = jax.vmap(theirs, (0, None))(images, weights)
    print(f"jit: at most {differ(jax.jit(ours)(images[0], weights), many[0]):.1e} from JAX's own")
    print(f"jit of vmap: {differ(jax.jit(jax.vmap(ours, (0, None)))(images, weights), many):.1e}")
    _, scanned = jax.lax.scan(lambda state, batch: (state, ours(batch, weights)), None, images)
    print(f"scan: {differ(scanned, many):.1e}")
    stacked = jax.tree.map(lambda weight: jnp.stack([weight, -weight]), weights)
    mapped = [jax.vmap(f, (None, 0))(images[0], stacked) for f in (ours, theirs)]
    print(f"vmap of the weights: {differ(*mapped):.1e}")
    gradients = [jax.jit(jax.grad(lambda w, f=f: (f(images[0], w) ** 2).sum()))(weights) for f in (ours, theirs)]
    print(f"grad: {differ(*gradients):.1e}")


if __name__ == "__main__":
    main()

"""torch.ops.sepconv: values and gradients of torch's own convolutions, and all that torch asks of an operator."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch.nn import functional as F  # noqa: E402, N812

import sepconv.torch as st  # noqa: E402

ACTIVATIONS: dict[str, Any] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
OPERATORS = torch.ops.sepconv
LAST = torch.channels_last


def tensor(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leaves(tensors: Any) -> list[Any]:
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


def assert_same_values_and_gradients(ours: Any, theirs: Any, tensors: Any, tolerance: float = 2e-5) -> None:
    """Both functions of the same tensors; the loss weighs each element of the result differently."""
    results = []
    for function in (ours, theirs):
        arguments = leaves(tensors)
        y = function(*arguments)
        y.backward(tensor(*y.shape, dtype=y.dtype, seed=9))
        results.append([y, *(t.grad for t in arguments if t is not None)])
    for got, want in zip(*results, strict=True):
        assert got.shape == want.shape
        scale = max(1.0, float(want.detach().abs().max()))
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * scale)


class Window:
    """A random stride, padding and dilation, and an image that they fit."""

    def __init__(self, draw: random.Random) -> None:
        fast = draw.random() < 0.5
        size = draw.choice((3, 5))
        self.kernel = (size, size) if fast else (draw.randint(1, 4), draw.randint(1, 4))
        stride = draw.randint(1, 3)
        self.stride = (stride, stride) if fast else (stride, draw.randint(1, 3))
        self.dilation = (1, 1) if fast else (draw.randint(1, 2), draw.randint(1, 3))
        self.padding = (draw.randint(0, 3), draw.randint(0, 3))
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        self.size = [max(draw.randint(1, 14), r - 2 * p) for r, p in zip(reach, self.padding, strict=True)]
        self.arguments = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}


def image(draw: random.Random, n: int, channels: int, size: Any) -> Any:
    x = tensor(n, channels, *size, seed=draw.randint(0, 99))
    return draw.choice((x, x.to(memory_format=LAST), x.repeat_interleave(2, 3)[..., ::2]))


def test_depthwise_on_random_windows() -> None:
    for seed in range(100):
        draw = random.Random(seed)
        window, channels, multiplier = Window(draw), draw.randint(1, 36), draw.choice((1, 1, 2, 3))
        x = image(draw, draw.randint(1, 3), channels, window.size)
        weight = tensor(channels * multiplier, 1, *window.kernel, seed=1)
        bias = draw.choice((None, tensor(channels * multiplier, seed=2)))
        assert_same_values_and_gradients(
            lambda x, w, b, at=window: st.depthwise_conv2d(x, w, b, **at.arguments),
            lambda x, w, b, at=window, c=channels: F.conv2d(x, w, b, **at.arguments, groups=c),
            (x, weight, bias),
        )


def test_pointwise_on_random_sizes() -> None:
    for seed in range(60):
        draw = random.Random(seed)
        channels, outputs = draw.randint(1, 80), draw.randint(1, 80)
        x = image(draw, draw.randint(1, 4), channels, (draw.randint(1, 20), draw.randint(1, 20)))
        bias = draw.choice((None, tensor(outputs, seed=2)))
        assert_same_values_and_gradients(
            st.pointwise_conv2d, F.conv2d, (x, tensor(outputs, channels, 1, 1, seed=1), bias), 1e-4
        )


def block(activations: tuple[str, str], **window: Any) -> tuple[Any, Any]:
    """The fused block, and the same of torch's functions."""

    def ours(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, residual: Any) -> Any:
        first, last = activations
        return st.separable_conv2d(
            x, w1, w2, b1, b2, middle_activation=first, activation=last, residual=residual, **window
        )

    def theirs(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, residual: Any) -> Any:
        middle = ACTIVATIONS[activations[0]](F.conv2d(x, w1, b1, groups=x.shape[1], **window))
        y = F.conv2d(middle, w2, b2)
        return ACTIVATIONS[activations[1]](y if residual is None else y + residual)

    return ours, theirs


def block_tensors(draw: random.Random, window: Window, dtype: Any = torch.float32) -> tuple[Any, ...]:
    n, channels, outputs = draw.randint(1, 3), draw.randint(1, 20), draw.randint(1, 20)
    x = image(draw, n, channels, window.size).to(dtype)
    w1, w2 = (
        tensor(channels, 1, *window.kernel, dtype=dtype, seed=1),
        tensor(outputs, channels, 1, 1, dtype=dtype, seed=2),
    )
    biases = (None, None) if draw.random() < 0.3 else (tensor(channels, dtype=dtype), tensor(outputs, dtype=dtype))
    y = F.conv2d(F.conv2d(x, w1, groups=channels, **window.arguments), w2)
    residual = tensor(*y.shape, dtype=dtype, seed=3) if draw.random() < 0.5 else None
    return x, w1, biases[0], w2, biases[1], residual


@pytest.mark.parametrize("last", ACTIVATIONS)
@pytest.mark.parametrize("first", ACTIVATIONS)
def test_separable_with_each_pair_of_activations(first: str, last: str) -> None:
    for seed in range(4):
        draw = random.Random(seed)
        window = Window(draw)
        ours, theirs = block((first, last), **window.arguments)
        assert_same_values_and_gradients(ours, theirs, block_tensors(draw, window), 1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck_of_the_block(activation: str) -> None:
    """In float64, by finite differences: independent of torch's own convolutions."""
    for seed in range(3):
        draw = random.Random(seed)
        window = Window(draw)
        window.size = [min(n, 6) for n in window.size]
        tensors = leaves(block_tensors(draw, window, torch.float64))
        ours, _ = block((activation, activation), **window.arguments)
        assert torch.autograd.gradcheck(ours, tensors, fast_mode=True)


def test_gradcheck_of_each_half() -> None:
    for arguments in (
        {"stride": 1, "padding": 1},
        {"stride": 2, "padding": ((0, 1), (2, 0))},
        {"stride": (2, 1), "padding": "valid", "dilation": (1, 2)},
        {"padding": "same", "dilation": 2},
    ):
        x, w, b = leaves(tensor(*s, dtype=torch.float64) for s in ((2, 3, 6, 7), (6, 1, 3, 3), (6,)))
        assert torch.autograd.gradcheck(lambda x, w, b, a=arguments: st.depthwise_conv2d(x, w, b, **a), (x, w, b))
    x, w, b = leaves(tensor(*s, dtype=torch.float64) for s in ((2, 3, 4, 5), (4, 3, 1, 1), (4,)))
    assert torch.autograd.gradcheck(st.pointwise_conv2d, (x, w, b))


def samples() -> list[tuple[Any, tuple[Any, ...]]]:
    window = ([2, 1], [1, 0, 1, 1], [1, 2])
    found = []
    for x in (tensor(2, 4, 7, 8), tensor(2, 4, 7, 8).to(memory_format=LAST), tensor(2, 4, 8, 7).transpose(2, 3)):
        w1, w2 = tensor(8, 1, 3, 2, seed=1), tensor(5, 8, 1, 1, seed=2)
        for biases in ((None, None), (tensor(8), tensor(5))):
            x, w1, w2, *given = leaves((x, w1, w2, *biases))
            y = OPERATORS.depthwise_conv2d(x, w1, given[0], *window)
            found += [
                (OPERATORS.depthwise_conv2d.default, (x, w1, given[0], *window)),
                (OPERATORS.pointwise_conv2d.default, (y.detach().requires_grad_(), w2, given[1])),
            ]
            for residual, first, last in ((None, "relu", "none"), (tensor(2, 5, *y.shape[2:]), "silu", "relu6")):
                arguments = (x, w1, given[0], w2, given[1], residual, *window, first, last)
                found.append((OPERATORS.separable_conv2d.default, arguments))
    return found


def test_opcheck() -> None:
    """Schemas, fake kernels, autograd's registration, and AOT dispatch with sizes that are symbols."""
    for operator, arguments in samples():
        torch.library.opcheck(operator, arguments)


def test_opcheck_of_the_backward_operators() -> None:
    x, w1, w2 = tensor(2, 4, 7, 8).to(memory_format=LAST), tensor(8, 1, 3, 3), tensor(5, 8, 1, 1)
    window = ([1, 1], [1, 1, 1, 1], [1, 1])
    y, z = tensor(2, 8, 7, 8), tensor(2, 5, 7, 8).to(memory_format=LAST)
    for dtype in (torch.float32, torch.float64):
        x, w1, w2, y, z = (t.to(dtype) for t in (x, w1, w2, y, z))
        for needs in ([True, True], [False, True], [True, False], [False, False]):
            torch.library.opcheck(OPERATORS.depthwise_conv2d_backward.default, (y, x, w1, *window, needs))
            torch.library.opcheck(OPERATORS.pointwise_conv2d_backward.default, (z, y, w2, needs))
            for activation in ("none", "silu"):
                block_of = (z, z, x, w1, None, w2, None, None, *window, "relu", activation)
                torch.library.opcheck(OPERATORS.separable_conv2d_backward.default, (*block_of, [*needs, *needs]))


def test_the_same_bits_at_any_number_of_threads() -> None:
    x, w1, w2 = tensor(19, 40, 15, 15), tensor(40, 1, 3, 3), tensor(48, 40, 1, 1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            arguments = leaves((x, w1, w2))
            y = st.separable_conv2d(*arguments, stride=2, padding=1, middle_activation="relu", activation="silu")
            y.square().sum().backward()
            found.append([y.detach(), *(t.grad for t in arguments)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_halves_are_computed_in_float32(dtype: Any) -> None:
    tensors = [t.to(dtype) for t in (tensor(2, 8, 9, 9), tensor(8, 1, 3, 3), tensor(12, 8, 1, 1))]
    narrow, wide = leaves(tensors), leaves(t.float() for t in tensors)
    y, z = (st.separable_conv2d(*t, padding=1, activation="relu") for t in (narrow, wide))
    assert y.dtype == dtype
    assert torch.equal(y, z.to(dtype))
    (y.float() * 2).sum().backward()
    (z * 2).sum().backward()
    for got, want in zip(narrow, wide, strict=True):
        torch.testing.assert_close(got.grad.float(), want.grad, rtol=0.02, atol=0.05)


def test_results_keep_the_memory_format_and_inputs_their_values() -> None:
    for x in (tensor(2, 6, 5, 5), tensor(2, 6, 5, 5).to(memory_format=LAST)):
        before = x.clone()
        y = st.separable_conv2d(x, tensor(6, 1, 3, 3), tensor(4, 6, 1, 1), padding=1, residual=tensor(2, 4, 5, 5))
        assert y.is_contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else LAST)
        assert torch.equal(x, before)


def test_empty_batches() -> None:
    x, w1, w2 = leaves((torch.empty(0, 6, 8, 8), tensor(6, 1, 3, 3), tensor(4, 6, 1, 1)))
    y = st.pointwise_conv2d(st.separable_conv2d(x, w1, w2, stride=2), tensor(3, 4, 1, 1))
    assert y.shape == (0, 3, 3, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(w1.grad, torch.zeros_like(w1))
    assert torch.equal(w2.grad, torch.zeros_like(w2))
    z = st.depthwise_conv2d(x, w1)
    z.sum().backward()
    assert z.shape == (0, 6, 6, 6)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, w: st.depthwise_conv2d(x[0], w), "x had 3 dimensions"),
        (lambda x, w: st.depthwise_conv2d(x, w[:, 0]), "weight had 3 dimensions"),
        (lambda x, w: st.separable_conv2d(x, w[0], w), "depthwise_weight had 3 dimensions"),
        (lambda x, w: st.separable_conv2d(x, w[0], w, padding="same"), "depthwise_weight had 3 dimensions"),
        (lambda x, w: st.separable_conv2d(x, w, w[0]), "pointwise_weight had 3 dimensions"),
        (lambda x, w: st.depthwise_conv2d(x, w[:5]), "weight had 5 output channels, must fit the 6"),
        (
            lambda x, w: OPERATORS.depthwise_conv2d(x, w, None, [0, 0], [0] * 4, [1, 1]),
            r"stride was \[0, 0\], must be at least 1",
        ),
        (lambda x, w: st.depthwise_conv2d(x, w, padding=-1), "padding was -1"),
        (lambda x, w: st.depthwise_conv2d(x[:, :, :2], w), "weight spans a height of 3 .* padding, 2"),
        (lambda x, w: st.depthwise_conv2d(x, w, x[0, 0, 0]), r"bias had shape \(8,\)"),
        (lambda x, w: st.depthwise_conv2d(x, w, padding="same", stride=2), "must be 1 for padding 'same'"),
        (st.pointwise_conv2d, "weight had a window of 3x3"),
        (lambda x, w: st.separable_conv2d(x, w, x[:, :, :1, :1], activation="tanh"), "activation was 'tanh'"),
        (lambda x, w: st.separable_conv2d(x, w, x[:, :, :1, :1], residual=x), "residual had shape"),
    ],
)
def test_bad_arguments(call: Any, message: str, dtype: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call(tensor(2, 6, 8, 8, dtype=dtype), tensor(6, 1, 3, 3, dtype=dtype))


def test_mixed_types() -> None:
    with pytest.raises(TypeError, match=r"inputs were of torch\.float32, torch\.float64"):
        st.depthwise_conv2d(tensor(2, 6, 8, 8), tensor(6, 1, 3, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"torch\.int32"):
        st.pointwise_conv2d(torch.ones((1, 2, 3, 3), dtype=torch.int32), torch.ones((1, 2, 1, 1), dtype=torch.int32))


def test_nan_and_infinity_come_through() -> None:
    x = tensor(1, 3, 5, 5)
    x[0, 1, 2, 2] = float("nan")
    y = st.separable_conv2d(x, torch.ones(3, 1, 1, 1), torch.ones(2, 3, 1, 1), activation="relu6")
    assert torch.isnan(y).sum() == 2
    x = torch.tensor([[[[float("nan"), -1.0, 1.0, 7.0]]]], requires_grad=True)
    for y in (st.separable_conv2d(x, *torch.ones(2, 1, 1, 1, 1), activation=clamp) for clamp in ("relu", "relu6")):
        assert torch.autograd.grad(y.sum(), x)[0].flatten()[:3].tolist() == [1, 0, 1]  # torch's
    dy = torch.zeros(1, 3, 5, 5)
    dy[0, 0, 0, 0] = float("inf")
    dx, dw, db = OPERATORS.depthwise_conv2d_backward(
        dy, torch.ones(1, 3, 5, 5), torch.ones(3, 1, 3, 3), [1, 1], [1, 1, 1, 1], [1, 1], [True, True]
    )
    assert torch.isinf(db).tolist() == [True, False, False]
    assert torch.isinf(dw[0, 0, 1, 1])
    assert torch.isinf(dx[0, 0, :2, :2]).all()
    assert np.isfinite(dx[0, 1:].numpy()).all()


def test_compiled_training_step() -> None:
    """Through AOT autograd, which runs the backward operators from their fake kernels' shapes."""
    tensors = tensor(2, 4, 9, 9), tensor(4, 1, 3, 3), tensor(6, 4, 1, 1)

    def loss(x: Any, w1: Any, w2: Any) -> Any:
        return st.separable_conv2d(x, w1, w2, padding=1, middle_activation="relu").square().mean()

    plain, compiled = leaves(tensors), leaves(tensors)
    loss(*plain).backward()
    torch.compile(loss, backend="aot_eager", fullgraph=True)(*compiled).backward()
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
def test_an_empty_batch_is_checked_like_any_other(dtype: Any) -> None:
    x = torch.empty(0, 6, 4, 8, dtype=dtype)
    with pytest.raises(ValueError, match="spans a height of 5"):
        st.depthwise_conv2d(x, tensor(6, 1, 5, 3, dtype=dtype))
    with pytest.raises(ValueError, match="5 input channels"):
        st.pointwise_conv2d(x, tensor(4, 5, 1, 1, dtype=dtype))
    with pytest.raises(ValueError, match="7 output channels"):
        st.separable_conv2d(x, tensor(7, 1, 3, 3, dtype=dtype), tensor(4, 7, 1, 1, dtype=dtype))
    result = st.separable_conv2d(x, tensor(12, 1, 3, 3, dtype=dtype), tensor(4, 12, 1, 1, dtype=dtype), stride=2)
    assert result.shape == (0, 4, 1, 3)
    assert result.dtype == dtype


def test_autocast_brings_mixed_types_together() -> None:
    block = st.SeparableConv2d(6, 4, padding=1)
    stem = torch.nn.Conv2d(3, 6, 1)
    with torch.autocast("cpu", torch.bfloat16):
        x = stem(tensor(2, 3, 5, 5))
        y = block(x)
    assert (x.dtype, y.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y, block(x.float()))
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (*block.parameters(), *stem.parameters()))


def test_derivatives_in_forward_mode_are_refused() -> None:
    x, w = tensor(1, 4, 5, 5), tensor(4, 1, 3, 3)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda weight: st.depthwise_conv2d(x, weight), (w,), (torch.ones_like(w),))
    raw = OPERATORS.depthwise_conv2d
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda x: raw(x, w, None, [1, 1], [0] * 4, [1, 1]), (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        assert st.depthwise_conv2d(x, w).shape == (1, 4, 3, 3)
        with pytest.raises(NotImplementedError, match="forward mode"):
            raw(torch.autograd.forward_ad.make_dual(x, x), w, None, [1, 1], [0] * 4, [1, 1])


def test_pointwise_gradients_of_many_chunks_and_parts() -> None:
    """Several groups of pixels, outputs in several parts, widths that fill no vector."""
    for (n, size, channels, outputs), last in (
        ((3, 23, 37, 19), True),
        ((2, 29, 5, 450), False),
        ((1, 1, 70, 33), True),
    ):
        x, weight, bias = tensor(n, channels, size, size), tensor(outputs, channels, 1, 1), tensor(outputs)
        x = x.to(memory_format=LAST) if last else x
        assert_same_values_and_gradients(st.pointwise_conv2d, F.conv2d, (x, weight, bias), 1e-4)


def test_gradients_leave_nothing_in_the_memory_that_calls_share() -> None:
    """A backward pass within another's, and results that are read after later passes."""
    block = st.SeparableConv2d(6, 4, padding=1, middle_activation="silu", activation="relu")
    kept = []
    for seed in range(3):
        x, residual = leaves((tensor(2, 6, 9, 7, seed=seed), tensor(2, 4, 9, 7, seed=seed + 9)))

        def again(gradient: Any, seed: int = seed) -> Any:
            inner = tensor(2, 6, 9, 7, seed=seed + 20).requires_grad_()
            with torch.enable_grad():
                block(inner).sum().backward()
            return gradient

        y = block(x, residual)
        y.register_hook(again)
        block.zero_grad()
        y.sum().backward()
        kept.append((x, residual, x.grad, residual.grad, x.grad.clone(), residual.grad.clone()))
    for x, residual, *gradients, dx, dresidual in kept:
        assert torch.equal(gradients[0], dx)
        assert torch.equal(gradients[1], dresidual)
        again_x, again_residual = leaves((x, residual))
        block(again_x, again_residual).sum().backward()
        assert torch.equal(again_x.grad, dx)
        assert torch.equal(again_residual.grad, dresidual)

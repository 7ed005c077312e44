"""sepconv.torch's functions and modules: what their arguments may be, and what an error says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

import sepconv.torch as st  # noqa: E402

X, DEPTHWISE, POINTWISE = torch.ones(1, 8, 6, 6), torch.ones(8, 1, 3, 3), torch.ones(4, 8, 1, 1)


def depthwise(**options: Any) -> Any:
    return st.depthwise_conv2d(X, DEPTHWISE, **options)


def separable(**options: Any) -> Any:
    return st.separable_conv2d(X, DEPTHWISE, POINTWISE, **options)


def block(kernel_size: Any) -> Any:
    return st.InvertedResidual(8, 8, kernel_size=kernel_size)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: st.depthwise_conv2d(X, DEPTHWISE[0], padding="same"),
            ValueError,
            "weight had 3 dimensions, must have 4",
        ),
        (lambda: st.depthwise_conv2d(X, None), TypeError, r"weight was a NoneType, must be a torch\.Tensor"),
        (lambda: st.pointwise_conv2d(X.numpy(), POINTWISE), TypeError, r"x was a ndarray, must be a torch\.Tensor"),
        (lambda: depthwise(bias=1.0), TypeError, r"bias was a float, must be a torch\.Tensor or None"),
        (lambda: separable(residual=[1.0]), TypeError, r"residual was a list, must be a torch\.Tensor or None"),
        (lambda: depthwise(padding="SAME"), ValueError, "padding was 'SAME', must be 'valid', 'same' or numbers"),
        (lambda: depthwise(padding=2**70), ValueError, "padding was 1180591620717411303424, must be between 0 and"),
        (lambda: depthwise(stride=2**70), ValueError, "stride was 1180591620717411303424, must be between 1 and"),
        (lambda: depthwise(stride=2.0), TypeError, r"stride was 2\.0, must be an int or a pair of ints"),
        (lambda: depthwise(stride=[1, 2, 3]), TypeError, r"stride was \[1, 2, 3\], must be an int or a pair of ints"),
        (lambda: depthwise(dilation=0), ValueError, "dilation was 0, must be between 1 and"),
        (lambda: separable(activation=None), ValueError, "activation was None, must be one of none, relu"),
        (lambda: separable(middle_activation=3), ValueError, "middle_activation was 3, must be one of none, relu"),
        (
            lambda: block((3, 3)),
            TypeError,
            r"kernel_size was \(3, 3\), must be an odd int",
        ),
        (lambda: block(True), TypeError, "kernel_size was True, must be an odd int"),
        (lambda: block(4), ValueError, "kernel_size was 4, must be odd"),
    ],
)
def test_an_error_names_the_argument(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_integers_of_numpy() -> None:
    two = np.int64(2)
    assert torch.equal(depthwise(stride=two, padding=(two, np.int32(1))), depthwise(stride=2, padding=(2, 1)))


@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, d, p: st.pointwise_conv2d(x, p, p[:, :4, 0, 0]), r"bias had shape \(4, 4\), must have one value"),
        (lambda x, d, p: st.pointwise_conv2d(x, p, p[:, :1, 0, 0]), r"bias had shape \(4, 1\), must have one value"),
        (lambda x, d, p: st.depthwise_conv2d(x, d, d[:4, 0, 0, :2]), r"bias had shape \(4, 2\), must have one value"),
        (lambda x, d, p: st.separable_conv2d(x, d, p, None, p[:3, 0, 0, 0]), r"pointwise_bias had shape \(3,\), must"),
        (lambda x, d, p: st.pointwise_conv2d(x[:, :, :0], p), r"x had shape \(1, 8, 0, 6\), must have"),
        (lambda x, d, p: st.pointwise_conv2d(x[:, :5], p), "weight had 8 input channels, must have the 5"),
        (lambda x, d, p: st.depthwise_conv2d(x[:, :5], d), "weight had 8 output channels, must fit the 5"),
        (lambda x, d, p: st.depthwise_conv2d(x, d[..., :0]), r"weight had shape \(8, 1, 3, 0\), must be"),
        (lambda x, d, p: st.depthwise_conv2d(x, d.repeat(1, 2, 1, 1)), r"weight had shape \(8, 2, 3, 3\), must be"),
        (lambda x, d, p: st.pointwise_conv2d(x, d), "weight had a window of 3x3, must be"),
        (lambda x, d, p: st.separable_conv2d(x, d, p[:, :5]), "pointwise_weight had 5 input channels, must have the 8"),
        (lambda x, d, p: st.separable_conv2d(x, d, p, residual=x), r"residual had shape .*, must have the result's, "),
        (lambda x, d, p: st.separable_conv2d(x, d, p, residual=x[0, 0, 0, 0]), r"residual had shape \(\), must have"),
    ],
)
def test_all_types_are_checked_alike(call: Any, message: str, dtype: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call(*(tensor.to(dtype) for tensor in (X, DEPTHWISE, POINTWISE)))


def test_more_threads_than_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(1, 5, 7, 7, requires_grad=True), torch.randn(5, 1, 3, 3, requires_grad=True)
    expected = torch.autograd.grad(st.depthwise_conv2d(x, weight).sum(), (x, weight))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5000)  # torch sets no limit
    results = torch.autograd.grad(st.depthwise_conv2d(x, weight).sum(), (x, weight))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(results, expected, strict=True))

"""The operators on arrays of torch and JAX: read in place, results of their kind, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from array_calls import WANT, WEIGHT, X, call, copied

import sepconv
from sepconv import _core


@pytest.fixture(scope="module")
def jax() -> Any:
    return pytest.importorskip("jax", reason="JAX is not installed")


def test_torch_tensors_are_read_in_place(torch: Any) -> None:
    tensor = torch.from_numpy(X)
    assert _core.import_dlpack("x", tensor.__dlpack__(max_version=(1, 1)))[0].ctypes.data == tensor.data_ptr()
    planes = tensor.permute(0, 3, 1, 2)  # NCHW whose channels lie together
    weight = torch.from_numpy(WEIGHT).permute(2, 3, 0, 1)
    assert planes.is_contiguous(memory_format=torch.channels_last)
    for x in (planes, planes.contiguous(), planes.clone()[:, :, ::1], planes.flip(3).flip(3)):
        result = sepconv.depthwise_conv2d(x, weight, padding=1, layout="NCHW")
        assert copied() == {}
        assert type(result) is torch.Tensor
        assert np.array_equal(result.permute(0, 2, 3, 1), WANT)
        last = x.is_contiguous(memory_format=torch.channels_last)
        assert result.is_contiguous(memory_format=torch.channels_last) == last
        out = torch.zeros_like(result)
        assert sepconv.depthwise_conv2d(x, weight, padding=1, layout="NCHW", out=out) is out
        assert copied() == {}
        assert torch.equal(out, result)


def test_every_type_of_torch(torch: Any) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        x = torch.from_numpy(X).to(dtype)
        want = torch.from_numpy(call(x.float().numpy())).to(dtype)
        result = call(x)
        assert result.dtype == dtype
        assert torch.equal(result, want)
        assert copied() == ({} if dtype == torch.float32 else {"x": str(dtype).removeprefix("torch.")})
        out = torch.zeros_like(want)
        call(x, out=out)
        assert torch.equal(out, want)
        weight = torch.from_numpy(WEIGHT).to(dtype)
        assert np.array_equal(
            sepconv.depthwise_conv2d(X, weight, padding=1),
            sepconv.depthwise_conv2d(X, weight.float().numpy(), padding=1),
        )


def test_torch_results_outlive_everything(torch: Any) -> None:
    results = [call(torch.from_numpy(X.copy())) for _ in range(50)]
    assert all(np.array_equal(result, WANT) for result in results)
    results[0] += 1  # its own memory
    assert np.array_equal(results[1], WANT)


def test_tensors_that_are_not_their_memory_are_refused(torch: Any) -> None:
    x = torch.from_numpy(X)
    complex_x = torch.complex(x, x)
    for wrong, error, message in (
        (x.clone().requires_grad_(), BufferError, r"x required a gradient.* must be x.detach\(\)"),
        (torch.nn.Parameter(x.clone()), BufferError, "x required a gradient"),
        (complex_x.conj().imag, BufferError, r"x was a negation .* must be x.resolve_neg\(\)"),
        (complex_x.conj(), TypeError, "x had dtype torch.complex64"),
        (x.to_sparse(), BufferError, r"x had layout torch.sparse_coo, must be dense"),
        (x.to("meta"), ValueError, "x was on torch's device meta, must be in CPU memory"),
        (x.int(), TypeError, "x had dtype torch.int32"),
        (x[0], ValueError, r"x had shape \(6, 7, 5\)"),
    ):
        with pytest.raises(error, match=message):
            call(wrong)
    out = torch.zeros(WANT.shape)
    for wrong, error, message in (
        (out.clone().requires_grad_(), BufferError, "out required a gradient"),
        (torch.zeros(1).expand(WANT.shape), ValueError, "must not share memory between its elements"),
    ):
        with pytest.raises(error, match=message):
            call(x, out=wrong)
    with warnings.catch_warnings():  # torch's, that quantised tensors will go
        warnings.simplefilter("ignore", UserWarning)
        quantised = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=r"x had dtype torch\.qint8"):
        call(quantised)
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        with pytest.raises(BufferError, match=r"x had a tangent.* must be .*unpack_dual\(x\)\.primal"):
            call(forward_ad.make_dual(x, x))
        assert torch.equal(call(x), torch.from_numpy(WANT))
    with pytest.raises(BufferError, match=r"x was a .*Tensor that does not tell where its memory is"):
        torch.func.vmap(call)(x[None])


def test_torch_without_gradients(torch: Any) -> None:
    x = torch.from_numpy(X.copy()).requires_grad_()
    with torch.no_grad():
        assert np.array_equal(call(x), WANT)
    with torch.inference_mode():
        assert np.array_equal(call(x), WANT)
        assert np.array_equal(call(torch.from_numpy(X) * 1), WANT)
    negated = torch.complex(torch.from_numpy(X), torch.from_numpy(-X)).conj().imag
    assert np.array_equal(call(negated.resolve_neg()), WANT)


def test_out_counts_as_a_change_of_torchs_tensor(torch: Any) -> None:
    for dtype in (torch.float32, torch.float64):  # written in place, and copied to at the end
        factor = torch.ones(WANT.shape, dtype=dtype, requires_grad=True)
        out = torch.full(WANT.shape, 3.0, dtype=dtype)
        total = (factor * out).sum()
        call(torch.from_numpy(X), out=out)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()
    base = torch.zeros(2, *WANT.shape)
    version = base._version
    call(X, out=base[0])  # a view of it, and an input of numpy's
    assert base._version == version + 1
    with torch.no_grad():
        leaf = torch.zeros(WANT.shape, requires_grad=True)
        call(torch.from_numpy(X), out=leaf)
        assert leaf._version == 1
    refused = torch.zeros(2, 6, 7, 4)
    with pytest.raises(ValueError, match="out had shape"):
        call(X, out=refused)
    assert refused._version == 0
    with torch.inference_mode():
        uncounted = torch.zeros(WANT.shape)  # such tensors have no version, and autograd takes none of them
    assert np.array_equal(call(torch.from_numpy(X), out=uncounted), WANT)


def test_a_subclass_of_tensor_gives_a_tensor(torch: Any) -> None:
    """Wherever the class comes from."""

    labelled = type("Labelled", (torch.Tensor,), {})

    for kind in (torch.float32, torch.bfloat16):
        x = torch.from_numpy(X).to(kind)
        result = call(x.as_subclass(labelled))
        assert isinstance(result, torch.Tensor)
        assert result.dtype == kind
        assert torch.equal(result, call(x))


def test_jax_arrays(jax: Any) -> None:
    x, weight = jax.numpy.asarray(X), jax.numpy.asarray(WEIGHT)
    result = sepconv.depthwise_conv2d(x, weight, padding=1)
    assert copied() == {}
    assert isinstance(result, jax.Array)
    assert np.array_equal(result, WANT)
    half = x.astype(jax.numpy.bfloat16)
    result = sepconv.depthwise_conv2d(half, weight, padding=1)
    assert result.dtype == jax.numpy.bfloat16
    assert copied() == {"x": "bfloat16"}
    want = call(np.asarray(half, np.float32))
    assert np.array_equal(np.asarray(result), want.astype(result.dtype))
    # Its arrays are immutable: none is written to, whether its DLPack can say so or not.
    out = jax.numpy.zeros(WANT.shape)
    with pytest.raises(ValueError, match="out was "):
        call(x, out=out)
    assert not np.asarray(out).any()

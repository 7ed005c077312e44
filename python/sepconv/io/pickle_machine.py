"""Runs the pickles of torch checkpoints without Python's unpickler: a stack machine that can only build plain data.

A pickle is a program. Python's unpickler lets it import and call what it likes; this one knows None, bool, int, float,
str, list, tuple and dict, and in place of torch's objects records of plain numbers. A name that a pickle asks for is
looked up in a fixed list, never imported. An opcode that is not needed does not exist here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io.arrays import MAX_RANK

MAX_STEPS = 1_000_000  # one an opcode; a tensor takes about 40
MAX_STRING_BYTES = 1 << 16

STORAGE_DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_STOP = ord(".")


@dataclass(frozen=True)
class Name:
    """Stands for an admitted class or function, "module.name"."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A run of ``size`` elements, kept outside the pickle under ``key``."""

    dtype_name: str
    key: str
    size: int


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage; offset and strides count elements. Nothing is checked yet against the storage's size."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PickleMachine:
    """Runs one pickle that starts at ``position`` of ``data``; afterwards ``position`` is where it ended."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.position = position
        self.storages: dict[str, Storage] = {}
        self._steps_left = MAX_STEPS
        self._data = data
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle builds.

        Raises ModelFormatError for a broken pickle, and for one that asks for anything but tensors in plain
        containers, before acting on it; UnsupportedError for a tensor whose negation is put off.
        """
        while True:
            self._spend(1)
            code = self._take(1)[0]
            if code == _STOP:
                return self._pop()
            action = _ACTIONS.get(code)
            if action is None:
                raise ModelFormatError(f"the pickle's opcode {bytes([code])!r} is refused: tensors in dicts need none")
            action(self)

    def _spend(self, steps: int) -> None:
        """Bounds the time and memory that the pickle may take."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise ModelFormatError(f"the pickle takes more than {MAX_STEPS} steps")

    # Reading the program

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._data):
            raise ModelFormatError("the pickle passes the end of the file")
        octets = self._data[self.position : end]
        self.position = end
        return octets

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def _string(self, length_size: int) -> str:
        length = self._number(length_size)
        if length > MAX_STRING_BYTES:
            raise ModelFormatError(
                f"the pickle has a string of {length} bytes; at most {MAX_STRING_BYTES} are possible"
            )
        try:
            return bytes(self._take(length)).decode("utf-8")
        except UnicodeDecodeError:
            raise ModelFormatError("the pickle has a string that is not UTF-8") from None

    def _line(self) -> str:
        line = bytes(self._data[self.position : self.position + 256]).split(b"\n", 1)[0]
        self._take(len(line) + 1)
        return line.decode("ascii", errors="backslashreplace")

    # The stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _require(self, count: int) -> None:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) - floor < count:
            raise ModelFormatError("the pickle takes more from its stack than is there")

    def _pop(self) -> Any:
        self._require(1)
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise ModelFormatError("the pickle looks for a mark that is not on its stack")
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _top(self, kind: type) -> Any:
        self._require(1)
        value = self._stack[-1]
        if type(value) is not kind:
            raise ModelFormatError(f"the pickle treats a {type(value).__name__} as a {kind.__name__}")
        return value

    # Actions

    def _protocol(self) -> None:
        protocol = self._number(1)
        if not 2 <= protocol <= 5:
            raise ModelFormatError(f"the pickle's protocol is {protocol}; it must be 2 to 5")

    def _frame(self) -> None:
        """A frame's length is a hint for buffering."""
        self._take(8)

    def _discard(self) -> None:
        self._pop()

    def _long(self, length_size: int) -> None:
        length = self._number(length_size)
        if length > 255:
            raise ModelFormatError(f"the pickle has an integer of {length} bytes")
        self._push(self._number(length, signed=True))

    def _tuple(self, count: int) -> None:
        self._require(count)
        values = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        self._push(values)

    def _put(self, index: int) -> None:
        self._require(1)
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise ModelFormatError(f"the pickle recalls value {index}, which it has not kept")
        self._push(self._memo[index])

    def _append(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise ModelFormatError("the pickle has a dict key without a value")
        _update(self._top(dict), zip(values[::2], values[1::2], strict=True))

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            _malformed("name of a class")
        text = f"{module}.{name}"
        if text not in _BUILDERS and text not in STORAGE_DTYPES:
            raise ModelFormatError(
                f"the pickle asks for {text[:200]!r}, which is refused: a checkpoint may hold tensors in dicts and "
                "nothing else; of a whole model, save its state_dict()"
            )
        self._push(Name(text))

    def _stack_global(self) -> None:
        name = self._pop()
        self._global(self._pop(), name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Name or function.text not in _BUILDERS or type(arguments) is not tuple:
            raise ModelFormatError("the pickle calls something other than torch's functions that build tensors")
        builder, counts = _BUILDERS[function.text]
        if len(arguments) not in counts:
            raise ModelFormatError(f"the pickle calls {function.text} with {len(arguments)} arguments")
        # An OrderedDict of items kept in the memo can be asked for again and again.
        self._spend(sum(len(argument) for argument in arguments if type(argument) in (list, tuple)))
        self._push(builder(*arguments))

    def _build(self) -> None:
        """State set on an object: torch keeps versions on a state dict in this way; they are dropped."""
        state = self._pop()
        if type(state) is not dict:
            raise ModelFormatError(f"the pickle sets a state of type {type(state).__name__}; it must be a dict")
        self._top(dict)

    def _persistent_id(self) -> None:
        """("storage", type, key, location, size), in the legacy format followed by None."""
        identity = self._pop()
        if type(identity) is not tuple or not 5 <= len(identity) <= 6 or any(item is not None for item in identity[5:]):
            _malformed("persistent id")
        kind, storage_type, key, _, size = identity[:5]
        if not (type(kind) is str and kind == "storage" and type(storage_type) is Name and type(key) is str):
            _malformed("persistent id")
        if storage_type.text not in STORAGE_DTYPES or type(size) is not int or size < 0:
            _malformed("persistent id")
        storage = Storage(STORAGE_DTYPES[storage_type.text], key, size)
        if self.storages.setdefault(key, storage) != storage:
            raise ModelFormatError(f"the pickle describes the storage {key[:40]!r} in two ways")
        self._push(storage)


def _malformed(what: str) -> NoReturn:
    raise ModelFormatError(f"the pickle has a malformed {what}")


def _update(target: dict[Any, Any], items: Any) -> None:
    for key, value in items:
        # A deeply nested tuple would exhaust the C stack when hashed, and great integers can be made to collide.
        if type(key) is not str and not (type(key) is int and abs(key) < 1 << 31):
            raise ModelFormatError("the pickle has a dict key that is neither a string nor a small integer")
        target[key] = value


def _counts(value: Any, what: str) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > MAX_RANK or any(type(item) is not int or item < 0 for item in value):
        _malformed(what)
    return tuple(value)


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    if type(items) not in (list, tuple) or any(type(item) not in (list, tuple) or len(item) != 2 for item in items):
        _malformed("OrderedDict")
    result: dict[Any, Any] = {}
    _update(result, items)
    return result


def _size(extents: Any = ()) -> tuple[int, ...]:
    return _counts(extents, "torch.Size")


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, metadata: Any = None
) -> TensorRecord:
    """Whether it has a gradient, and hooks, have no meaning for inference."""
    if type(metadata) is dict and metadata.get("neg"):
        raise UnsupportedError("a tensor's negation is put off, as by conj().imag: save tensor.resolve_neg()")
    if type(storage) is not Storage or type(offset) is not int or offset < 0:
        _malformed("tensor")
    record = TensorRecord(storage, offset, _counts(shape, "tensor shape"), _counts(strides, "tensor stride"))
    if len(record.shape) != len(record.strides):
        _malformed("tensor stride")
    return record


def _parameter(tensor: Any, *_: Any) -> TensorRecord:
    if type(tensor) is not TensorRecord:
        _malformed("parameter")
    return tensor


# What may be called, and with how many arguments.
_BUILDERS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "collections.OrderedDict": (_ordered_dict, (0, 1)),
    "torch.Size": (_size, (0, 1)),
    "torch._utils._rebuild_tensor_v2": (_tensor, (6, 7)),
    "torch._utils._rebuild_parameter": (_parameter, (3,)),
}

# Opcodes by their byte, as the module pickletools documents them.
_ACTIONS: dict[int, Callable[[PickleMachine], None]] = {
    ord(code): action
    for code, action in {
        "\x80": lambda m: m._protocol(),
        "\x95": lambda m: m._frame(),
        "N": lambda m: m._push(None),
        "\x88": lambda m: m._push(True),
        "\x89": lambda m: m._push(False),
        "K": lambda m: m._push(m._number(1)),
        "M": lambda m: m._push(m._number(2)),
        "J": lambda m: m._push(m._number(4, signed=True)),
        "\x8a": lambda m: m._long(1),
        "\x8b": lambda m: m._long(4),
        "G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
        "U": lambda m: m._push(m._string(1)),
        "T": lambda m: m._push(m._string(4)),
        "\x8c": lambda m: m._push(m._string(1)),
        "X": lambda m: m._push(m._string(4)),
        "\x8d": lambda m: m._push(m._string(8)),
        ")": lambda m: m._push(()),
        "]": lambda m: m._push([]),
        "}": lambda m: m._push({}),
        "(": lambda m: m._marks.append(len(m._stack)),
        "0": lambda m: m._discard(),
        "\x85": lambda m: m._tuple(1),
        "\x86": lambda m: m._tuple(2),
        "\x87": lambda m: m._tuple(3),
        "t": lambda m: m._push(tuple(m._pop_to_mark())),
        "a": lambda m: m._append([m._pop()]),
        "e": lambda m: m._append(m._pop_to_mark()),
        "s": lambda m: m._set_items([m._pop(), m._pop()][::-1]),
        "u": lambda m: m._set_items(m._pop_to_mark()),
        "q": lambda m: m._put(m._number(1)),
        "r": lambda m: m._put(m._number(4)),
        "\x94": lambda m: m._put(len(m._memo)),
        "h": lambda m: m._get(m._number(1)),
        "j": lambda m: m._get(m._number(4)),
        "c": lambda m: m._global(m._line(), m._line()),
        "\x93": lambda m: m._stack_global(),
        "R": lambda m: m._reduce(),
        "b": lambda m: m._build(),
        "Q": lambda m: m._persistent_id(),
    }.items()
}

"""A network ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from . import _core
from .compile import Float32, compile_graph
from .conventions import Convention, check_convention
from .graph import Input, Layer, Shape, chosen_outputs, infer_shapes
from .graph.base import reject_masked
from .layer_lists import LayersLike, layer_list
from .lowering import vectors
from .network_cost import Cost, cost
from .table import format_shape, format_table
from .threads import thread_count

if TYPE_CHECKING:
    from .verify import Verification


FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Port:
    """An input or output of a model: name, shape with None for the batch, and the type besides float32 it takes."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


class Model:
    """A compiled network: call it with images, get float32 back.

    Safe to call from many threads at once. Every output value is the same to the bit at any number of threads and in
    any batch.

    The weights are copied when it is made. Pickled, it takes the layers' arrays as they are then.

    Args:
        layers: the network, see :mod:`sepconv.graph`.
        name: what messages and tables call it.
        convention: how photographs become inputs and outputs become labels; None where that is not known.
        outputs: names of the layers whose values are returned. None: those that no layer reads, inputs aside.
        fusion: "automatic", or for tests "always" or "never": whether layers stream their rows to each other.

    Raises:
        ValueError: the layers are inconsistent, or ``outputs`` names none of them.
        TypeError: weights are not real numbers, or another argument is of another kind.
        MemoryError: weights do not fit.
    """

    def __init__(
        self,
        layers: LayersLike,
        *,
        name: str,
        convention: Convention | None = None,
        outputs: Sequence[str] | None = None,
        fusion: str = "automatic",
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name was {name!r}, must be a string")
        check_convention(convention)
        if not isinstance(fusion, str):
            raise TypeError(f"fusion was {fusion!r}, must be 'automatic', 'always' or 'never'")
        self.name = name
        self.convention = convention
        self._fusion = fusion
        self.layers: tuple[Layer, ...] = layer_list(layers)
        self._shapes = infer_shapes(self.layers)
        self._inputs = tuple(layer for layer in self.layers if isinstance(layer, Input))
        names = chosen_outputs(self.layers, outputs, name)
        flat = vectors(self.layers)
        self.inputs = tuple(_port(layer.name, layer.shape, layer.dtype, False) for layer in self._inputs)
        self.outputs = tuple(_port(output, self._shapes[output], "float32", output in flat) for output in names)
        self._result_shapes = [(-1, *(size or 0 for size in port.shape[1:])) for port in self.outputs]
        self._vector = len(self._result_shapes[0]) == 2
        self._plan = _core.Plan(compile_graph(self.layers, names), fusion)

    def __call__(self, *inputs: NDArray[Any], threads: SupportsIndex | None = None) -> Any:
        """Run the network.

        Args:
            inputs: one array an input: NHWC [n, h, w, c] of float32 with any strides, or of the integer type that
                ``model.inputs`` names, which is converted with the file's scale and zero point.
            threads: how many to run on; None for :func:`sepconv.num_threads`.

        Returns:
            float32 [n, channels] or [n, h, w, c]; a tuple of such arrays where the model has several outputs.

        Raises:
            TypeError: an input is not an array of an accepted type.
            ValueError: an input's shape does not fit, the batch is empty, or ``threads`` is out of range.
            KeyboardInterrupt: Ctrl-C during the run.
        """
        if len(inputs) == 1:
            result = self._plan.call(inputs[0], threads, self._vector)
            if result is not None:
                return result
        results = self._plan.run(self.prepared(*inputs), thread_count(threads))
        if len(results) == 1:
            return results[0].reshape(self._result_shapes[0])
        return tuple(result.reshape(shape) for result, shape in zip(results, self._result_shapes, strict=True))

    def prepared(self, *inputs: NDArray[Any]) -> list[Float32]:
        """The inputs as the core takes them, contiguous float32, checked. Raises as calling the model does."""
        if len(inputs) != len(self._inputs):
            raise TypeError(f"{self.name} takes {len(self._inputs)} input(s), got {len(inputs)}")
        arrays = list(map(_checked, inputs, self._inputs))
        if len(arrays) > 1 and len({len(array) for array in arrays}) > 1:
            raise ValueError(f"the inputs have batches of {[len(array) for array in arrays]}, must be of one length")
        return arrays

    def cost(self) -> Cost:
        """Multiply-adds, parameters and bytes, in total and by layer, for one image."""
        return cost(self.layers)

    def verify(self, *inputs: NDArray[Any]) -> Verification:
        """Every layer against its naive oracle in float64, for each input's first image; see :mod:`sepconv.verify`.

        Takes inputs and raises errors as calling the model does.
        """
        from .verify import verify

        return verify(self, *inputs)

    def explain(self) -> str:
        """A table of what runs: for each layer the kernel that it got, and the layers that it also does the work of.

        Layers under one step number stream their rows to each other without a trip to memory.
        """
        rows = [
            (
                op.step,
                op.layer,
                op.kernel,
                format_shape(op.input_shape),
                format_shape(op.output_shape),
                f"{op.macs / 1e6:.2f}",
                ", ".join(op.fused),
            )
            for op in self._plan.describe()
        ]
        return format_table(
            ("step", "layer", "kernel", "input", "output", "M MACs", "also does"), rows, align="><<<<><"
        )

    def __repr__(self) -> str:
        return f"{self.name}\n{self.cost()}"

    def __reduce__(self) -> tuple[Any, ...]:
        layers = [_materialised(layer) for layer in self.layers]
        return _rebuild, (layers, self.name, self.convention, [port.name for port in self.outputs], self._fusion)


def _rebuild(
    layers: list[Layer], name: str, convention: Convention | None, outputs: list[str], fusion: str = "automatic"
) -> Model:
    return Model(layers, name=name, convention=convention, outputs=outputs, fusion=fusion)


def _port(name: str, shape: Shape, dtype: str, flat: bool) -> Port:
    return Port(name, (None, shape[2]) if flat else (None, *shape), dtype)


def _checked(x: NDArray[Any], layer: Input) -> Float32:
    """The input as contiguous float32, or TypeError, ValueError."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"input {layer.name!r} was a {type(x).__name__}, must be a numpy array")
    reject_masked(f"input {layer.name!r}", x)
    real = x.dtype == FLOAT32
    if not real and x.dtype != np.dtype(layer.dtype):
        accepted = "float32" if layer.dtype == "float32" else f"float32 or {layer.dtype}"
        raise TypeError(f"input {layer.name!r} had dtype {x.dtype}, must have {accepted}")
    if x.ndim != 4 or x.shape[1:] != layer.shape:
        h, w, c = layer.shape
        raise ValueError(f"input {layer.name!r} had shape {x.shape}, must have (n, {h}, {w}, {c})")
    if len(x) == 0:
        raise ValueError(f"input {layer.name!r} had shape {x.shape}, must hold at least one image")
    if not real:
        x = (x.astype(np.float32) - np.float32(layer.zero_point)) * np.float32(layer.scale)
    if x.flags.c_contiguous and x.flags.aligned and type(x) is np.ndarray:
        return x  # as np.require does, in a tenth of the time
    return np.require(x, FLOAT32, ("C_CONTIGUOUS", "ALIGNED"))


def _materialised(layer: Layer) -> Layer:
    """The layer with arrays in place of views of files and of weights made on demand, for pickling."""

    def arrays(record: Any) -> dict[str, Any]:
        values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        lazy = {name: value for name, value in values.items() if hasattr(value, "__array__")}
        return {name: np.asarray(value) for name, value in lazy.items() if not isinstance(value, np.generic)}

    replaced = arrays(layer)
    norm = getattr(layer, "batch_norm", None)
    if norm is not None:
        replaced["batch_norm"] = dataclasses.replace(norm, **arrays(norm))
    return dataclasses.replace(layer, **replaced)

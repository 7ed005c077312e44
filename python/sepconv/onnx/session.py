"""``InferenceSession`` as onnxruntime has it: a program changes one import, ``import sepconv as onnxruntime``."""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepconv.onnx.files import read_source
from sepconv.onnx.ir import Array, Info, Input
from sepconv.onnx.model import OnnxModel
from sepconv.onnx.passes import PASSES
from sepconv.onnx.reader import read_onnx
from sepconv.onnx.session_types import (
    CPU,
    GraphOptimizationLevel,
    ModelMetadata,
    NodeArg,
    OrtValue,
    RunOptions,
    SessionOptions,
    check_device,
    element_dtype,
    type_name,
)
from sepconv.threads import thread_count

_MADE_UP = re.compile(r"unk__\d+")


class InferenceSession:
    """A model to run. ``model`` is the :class:`~sepconv.onnx.model.OnnxModel` behind it, which explains itself.

    Args:
        path_or_bytes: an ONNX file, or its bytes.
        sess_options: threads and whether passes run.
        providers: names, or (name, options). Only the CPU's is there; a warning tells of others.

    Raises as :func:`sepconv.load`. ``external_data`` of the model's folder is taken only with the session option
    ``sepconv.external_data`` set to "1".
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **_: Any,
    ) -> None:
        self._options = sess_options if sess_options is not None else SessionOptions()
        if not isinstance(self._options, SessionOptions):
            raise TypeError(f"sess_options was {sess_options!r}, must be a SessionOptions or None")
        self._options.threads()  # wrong before the first run as well
        data, name, folder = read_source(path_or_bytes)
        external = self._options.config_entries.get("sepconv.external_data") == "1"
        graph, proto = read_onnx(data, name=name, folder=folder if external else None)
        # Below ORT_ENABLE_BASIC nothing is rewritten.
        level = GraphOptimizationLevel(self._options.graph_optimization_level)
        graph.inputs = [Input(port.name, _with_sizes(port.info, self._options)) for port in graph.inputs]
        graph.infos.update({port.name: port.info for port in graph.inputs})
        self._infos = {port.name: port.info for port in graph.inputs}
        self._infos.update({name: graph.info(name) for name in graph.outputs})
        self.model = OnnxModel(graph, passes=() if level == GraphOptimizationLevel.ORT_DISABLE_ALL else PASSES)
        self._metadata = ModelMetadata(
            producer_name=proto.producer_name,
            graph_name=proto.graph.name,
            domain=proto.domain,
            description=proto.doc_string,
            graph_description=proto.graph.doc_string,
            version=int(proto.model_version),
            custom_metadata_map={entry.key: entry.value for entry in proto.metadata_props},
        )
        self._model_path = os.fspath(path_or_bytes) if isinstance(path_or_bytes, str | os.PathLike) else None
        self.set_providers(providers, provider_options)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: RunOptions | None = None
    ) -> list[Any]:
        """The outputs of these names (None: all, in the file's order) for inputs by name.

        Raises ValueError for a name that does not exist or a shape that does not fit, TypeError for a wrong type.
        """
        if output_names is None:
            whole = self.model.run_whole(input_feed, thread_count(self._options.threads()))
            if whole is not None:
                return whole
        names = [port.name for port in self.model.outputs]
        wanted = names if output_names is None or not len(output_names) else list(output_names)
        for name in wanted:
            if name not in names:
                raise ValueError(f"output_names has {name!r}, must be of {names}")
        if not isinstance(input_feed, Mapping):
            raise TypeError(f"input_feed was of type {type(input_feed).__name__}, must map the inputs' names to arrays")
        feeds = {name: self._array(name, value) for name, value in input_feed.items()}
        missing = [port.name for port in self.model.inputs if port.name not in feeds]
        if missing:
            raise ValueError(f"required inputs {missing} are missing from input_feed, which has {list(feeds)}")
        results = dict(zip(names, self.model.run(feeds, threads=self._options.threads()), strict=True))
        return [results[name] for name in wanted]

    def _array(self, name: str, value: Any) -> Any:
        if isinstance(value, OrtValue):
            return value.numpy()
        info = self._infos.get(name)
        if isinstance(value, list | tuple) and info is not None and info.dtype is not None:
            return np.asarray(value, info.dtype)
        return value

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """:meth:`run` with inputs and outputs wrapped."""
        return [OrtValue(array) for array in self.run(output_names, input_dict_ort_values, run_options)]

    def get_inputs(self) -> list[NodeArg]:
        """Name, type and shape of each input, in the file's order."""
        return [self._argument(port.name) for port in self.model.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Name, type and shape of each output, in the file's order."""
        return [self._argument(port.name) for port in self.model.outputs]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """None: initializers are constants here."""
        return []

    def _argument(self, name: str) -> NodeArg:
        declared, inferred = self._infos[name], self.model.info(name)
        dims = declared.shape
        if dims is None:  # the package's shape inference makes up names
            dims = tuple(None if isinstance(d, str) and _MADE_UP.fullmatch(d) else d for d in inferred.shape or ())
        return NodeArg(name, type_name(declared.dtype or inferred.dtype), list(dims))

    def get_modelmeta(self) -> ModelMetadata:
        """What the file says about itself."""
        return self._metadata

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with, not a copy."""
        return self._options

    def get_providers(self) -> list[str]:
        """The CPU's name alone."""
        return [CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Of the CPU: none."""
        return {CPU: {}}

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """As the constructor's arguments. Raises TypeError for no list, ValueError for what is no name in it."""
        if providers is not None and (isinstance(providers, str) or not isinstance(providers, Sequence)):
            raise TypeError(f"providers was {providers!r}, must be a list of names, or None")
        names = [entry[0] if isinstance(entry, tuple) and entry else entry for entry in providers or ()]
        for name in names:
            if not isinstance(name, str):
                raise ValueError(f"providers has {name!r}, must be names, or pairs of a name and options")
        others = [name for name in names if name != CPU]
        if others:
            warnings.warn(f"providers {others} are not available; the model runs on {CPU}", UserWarning, stacklevel=3)

    def end_profiling(self) -> str:
        """The name of the file with a profile: none is written."""
        return ""

    def disable_fallback(self) -> None:
        """Accepted: there is one provider."""

    def enable_fallback(self) -> None:
        """Accepted: there is one provider."""

    def io_binding(self) -> IOBinding:
        """An object to bind inputs and outputs to, for :meth:`run_with_iobinding`."""
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run with what is bound, and keep the outputs there."""
        if not isinstance(iobinding, IOBinding):
            raise TypeError(f"iobinding was {iobinding!r}, must be what io_binding() gave")
        iobinding.run()


class IOBinding:
    """Inputs and outputs bound to memory before a run, all of it the CPU's."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array | None] = {}
        self._results: list[Array] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Array) -> None:
        """Read an array, as it is when the run begins. Raises ValueError for a name of no input, as the others do."""
        self._bind(name, arr_on_cpu)

    def _bind(self, name: str, array: Array) -> None:
        names = [port.name for port in self._session.model.inputs]
        if name not in names:
            raise ValueError(f"name is {name!r}, must be of {names}")
        self._inputs[name] = array

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Read ``shape`` elements at an address, which must stay valid until the run is over."""
        check_device(device_type, device_id)
        self._bind(name, _at_address(buffer_ptr, shape, element_type))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Read the array of an OrtValue."""
        self._bind(name, ortvalue.numpy())

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Give an output; with an address, write it there."""
        check_device(device_type, device_id)
        self._outputs[name] = None
        if buffer_ptr is not None:
            if shape is None:
                raise ValueError("shape is None, must be given with buffer_ptr")
            self._outputs[name] = _at_address(buffer_ptr, shape, element_type or np.float32)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Write an output into the array of an OrtValue, which must have its shape and type."""
        self._outputs[name] = ortvalue.numpy()

    def synchronize_inputs(self) -> None:
        """Nothing to wait for."""

    def synchronize_outputs(self) -> None:
        """Nothing to wait for."""

    def clear_binding_inputs(self) -> None:
        """Forget the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forget the outputs, and their results."""
        self._outputs.clear()
        self._results = []

    def run(self) -> None:
        """Run with what is bound: all outputs where none is. Raises ValueError for memory of another shape or type."""
        names = list(self._outputs) or None
        self._results = self._session.run(names, self._inputs)
        for index, target in enumerate(self._outputs.values()):
            if target is not None:
                if target.shape != self._results[index].shape or target.dtype != self._results[index].dtype:
                    raise ValueError(
                        f"the memory bound to an output is {target.dtype} {target.shape}, must be "
                        f"{self._results[index].dtype} {self._results[index].shape}"
                    )
                target[...] = self._results[index]
                self._results[index] = target

    def get_outputs(self) -> list[OrtValue]:
        """The last run's results, in the order in which they were bound."""
        return [OrtValue(array) for array in self._results]

    def copy_outputs_to_cpu(self) -> list[Array]:
        """The last run's results as arrays: those of the run or that were bound, no copies."""
        return list(self._results)


def _with_sizes(info: Info, options: SessionOptions) -> Info:
    """An input with the sizes that the options give for names."""
    if info.shape is None:
        return info
    named = [options.size(dim) if isinstance(dim, str) else None for dim in info.shape]
    return Info(info.dtype, tuple(d if size is None else size for d, size in zip(info.shape, named, strict=True)))


def _at_address(address: int, shape: Sequence[int], element_type: Any) -> Array:
    dtype = element_dtype(element_type)
    size = int(np.prod(tuple(shape), dtype=np.int64)) * dtype.itemsize
    if address == 0 or size < 0:
        raise ValueError(f"buffer_ptr is {address} for the shape {tuple(shape)}, must point at that many elements")
    memory: Any = (ctypes.c_char * size).from_address(address)
    array: Array = np.frombuffer(memory, dtype).reshape(tuple(shape))
    return array

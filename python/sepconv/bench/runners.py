"""The contenders inside their processes: each imports its package when made, loads in ``open``, computes in ``run``.

Little is imported here, so that what a process takes in memory and time is its contender's own.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sepconv.graph import Layer

Array = NDArray[np.float32]

LAYERS, INPUT = "layers.pickle", "input.npy"  # in a task's folder


@dataclass(frozen=True)
class Task:
    """What a contender runs.

    folder, file: where the network's files are, and the one that it reads.
    input, outputs: names of layers, as the file has them.
    x: the input [n, h, w, c].
    """

    folder: Path
    file: str
    input: str
    outputs: tuple[str, ...]
    x: Array
    threads: int
    operator: bool = False  # one, not a network

    @property
    def path(self) -> Path:
        return self.folder / self.file

    def layers(self) -> list[Layer]:
        return stored_layers(self.folder)

    @property
    def planes(self) -> Array:
        """The input as [n, c, h, w]."""
        return np.ascontiguousarray(self.x.transpose(0, 3, 1, 2))


class Runner(ABC):
    """One contender with one network."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def open(self) -> None:
        """Load the network."""

    @abstractmethod
    def run(self) -> Any:
        """Compute it once; this is what is timed."""

    @abstractmethod
    def outputs(self, result: Any) -> list[Array]:
        """What ``run`` gave, as arrays [n, ...] whose channels come last."""

    def isa(self) -> str | None:
        return None


def stored_layers(folder: Path) -> list[Layer]:
    """The network as ``contenders.prepare`` stored it."""
    layers: list[Layer] = pickle.loads((folder / LAYERS).read_bytes())
    return layers


def channels_last(arrays: list[Array]) -> list[Array]:
    return [y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for y in arrays]


class Sepconv(Runner):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import sepconv.io.tflite
        import sepconv.model

        if task.operator:
            import sepconv.bench.functions
            import sepconv.ops  # the functions themselves, which are loaded by the first use
        self._sepconv = sepconv

    def open(self) -> None:
        if self.task.operator:
            self._call = self._function(prepared=True)
            return
        if self.task.path.suffix == ".tflite":
            model = self._sepconv.io.load(self.task.path)
        else:
            model = self._sepconv.model.Model(self.task.layers(), name="network", outputs=self.task.outputs)
        threads = self.task.threads
        self._call = lambda x: model(x, threads=threads)

    def _function(self, prepared: bool) -> Callable[[Array], Any]:
        from sepconv.bench.functions import operator_call

        return operator_call(self.task.layers(), self.task.threads, prepared)

    def run(self) -> Any:
        return self._call(self.task.x)

    def outputs(self, result: Any) -> list[Array]:
        return list(result) if isinstance(result, tuple) else [result]

    def isa(self) -> str | None:
        return self._sepconv.isa()


class SepconvPacking(Sepconv):
    """One operator by its function, which packs the weights in each call."""

    _call: Callable[[Array], Any]

    def open(self) -> None:
        self._call = self._function(prepared=False)


class Onnxruntime(Runner):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import onnxruntime

        self._onnxruntime: Any = onnxruntime
        self._planes = task.planes

    def open(self) -> None:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.task.threads
        options.inter_op_num_threads = 1
        self._session = self._onnxruntime.InferenceSession(self.task.path, options, providers=["CPUExecutionProvider"])
        self._feeds = {self._session.get_inputs()[0].name: self._planes}

    def run(self) -> Any:
        return self._session.run(None, self._feeds)

    def outputs(self, result: Any) -> list[Array]:
        return channels_last(result)


class Openvino(Runner):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import openvino

        self._openvino: Any = openvino
        self._planes = task.planes

    def open(self) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.task.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._model = self._openvino.Core().compile_model(self.task.path, "CPU", options)
        self._request = self._model.create_infer_request()
        self._request.set_input_tensor(self._openvino.Tensor(self._planes, shared_memory=True))

    def run(self) -> Any:
        self._request.infer()
        return self._request

    def outputs(self, result: Any) -> list[Array]:
        return channels_last([result.get_output_tensor(i).data.copy() for i in range(len(self._model.outputs))])


class Litert(Runner):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from ai_edge_litert import interpreter

        self._module: Any = interpreter

    def open(self) -> None:
        self._interpreter = self._module.Interpreter(str(self.task.path), num_threads=self.task.threads)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], self.task.x)

    def run(self) -> Any:
        self._interpreter.invoke()

    def outputs(self, result: Any) -> list[Array]:
        return [self._interpreter.get_tensor(details["index"]) for details in self._interpreter.get_output_details()]


class Torch(Runner):
    channels_last = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import torch

        from sepconv.bench import torch_network

        torch.set_num_threads(task.threads)
        self._module = torch_network

    def open(self) -> None:
        self._network = self._module.TorchNetwork(self.task.layers(), self.task.outputs, self.channels_last)
        self._x = self._module.to_torch(self.task.x, self.channels_last)

    def run(self) -> Any:
        return self._network(self._x)

    def outputs(self, result: Any) -> list[Array]:
        return channels_last([y.numpy() for y in result])


class TorchContiguous(Torch):
    channels_last = False


class Ncnn(Runner):
    """One image after the other: ncnn has no batches."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import ncnn

        self._ncnn: Any = ncnn
        # Copies: a first layer that works in place would do so on memory that is not ncnn's own.
        self._images = [ncnn.Mat(planes).clone() for planes in task.planes]

    def open(self) -> None:
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = self.task.threads
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self._net.opt, option, False)
        if self._net.load_param(str(self.task.path)) or self._net.load_model(str(self.task.path.with_suffix(".bin"))):
            raise ValueError("ncnn did not load the network")

    def run(self) -> Any:
        return [self._run(image) for image in self._images]

    def _run(self, image: Any) -> list[Any]:
        extractor = self._net.create_extractor()
        extractor.input(self.task.input, image)
        return [extractor.extract(name)[1] for name in self.task.outputs]

    def outputs(self, result: Any) -> list[Array]:
        return channels_last([np.stack([np.array(y) for y in images]) for images in zip(*result, strict=True)])


class Numpy(Runner):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from sepconv.bench import numpy_network

        self._module = numpy_network

    def open(self) -> None:
        self._layers = self.task.layers()

    def run(self) -> Any:
        return self._module.run_network(self._layers, self.task.outputs, self.task.x)

    def outputs(self, result: Any) -> list[Array]:
        return list(result)


class Oracle(Runner):
    """Plain loops in float64, one image after the other: seconds where the others take milliseconds."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from sepconv import verify

        self._oracle = verify.oracle

    def open(self) -> None:
        self._layers = self.task.layers()

    def run(self) -> Any:
        results = []
        for image in self.task.x:
            values = {self.task.input: image.astype(np.float64)}
            for layer in self._layers:
                if layer.name != self.task.input:
                    values[layer.name] = self._oracle(layer, [values[name] for name in layer.inputs])[0]
            results.append([values[name] for name in self.task.outputs])
        return [np.stack(images) for images in zip(*results, strict=True)]

    def outputs(self, result: Any) -> list[Array]:
        return [np.asarray(y, dtype=np.float32) for y in result]


RUNNERS: dict[str, type[Runner]] = {
    "sepconv": Sepconv,
    "onnxruntime": Onnxruntime,
    "openvino": Openvino,
    "litert": Litert,
    "torch": Torch,
    "ncnn": Ncnn,
    "numpy": Numpy,
    "oracle": Oracle,
    "sepconv_packing": SepconvPacking,
    "torch_contiguous": TorchContiguous,
}

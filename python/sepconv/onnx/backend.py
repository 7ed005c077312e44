"""The ONNX Backend API (``onnx.backend.base``): prepare, run_model, run_node, supports_device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sepconv import extras
from sepconv.onnx.model import OnnxModel
from sepconv.onnx.reader import read_model

_base = extras.require("onnx.backend.base", package="onnx", extra="onnx", purpose="the ONNX backend")


class SepconvRep(_base.BackendRep):  # type: ignore[name-defined,misc]
    """A prepared model. ``model`` is the :class:`~sepconv.onnx.model.OnnxModel`."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model

    def run(self, inputs: Sequence[Any] | Mapping[str, Any], **_: Any) -> tuple[Any, ...]:
        """The outputs for inputs in the graph's order, or by name."""
        if isinstance(inputs, Mapping):
            return tuple(self.model.run(inputs))
        names = [port.name for port in self.model.inputs]
        if len(inputs) > len(names):
            raise ValueError(f"{self.model.name} takes {len(names)} input(s), got {len(inputs)}")
        return tuple(self.model.run(dict(zip(names, inputs, strict=False))))


class SepconvBackend(_base.Backend):  # type: ignore[name-defined,misc]
    """What ``onnx.backend.test.BackendTest`` takes."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **_: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **options: Any) -> SepconvRep:
        """Raises ValueError for a device other than the CPU; ``strict`` and ``passes`` are as of ``sepconv.load``."""
        if not cls.supports_device(device):
            raise ValueError(f"device is {device!r}, must be CPU")
        known = {key: value for key, value in options.items() if key in ("strict", "passes")}
        return SepconvRep(OnnxModel(read_model(model), **known))

    @classmethod
    def run_node(
        cls, node: Any, inputs: Sequence[Any], device: str = "CPU", outputs_info: Any = None, **options: Any
    ) -> tuple[Any, ...]:
        import onnx

        helper = onnx.helper
        names = [name for name in node.input if name]
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in zip(names, inputs, strict=True)
        ]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "node", ports, results)
        version = options.pop("opset_version", onnx.defs.onnx_opset_version())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.prepare(model, device, **options).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


prepare = SepconvBackend.prepare
run_model = SepconvBackend.run_model
run_node = SepconvBackend.run_node
supports_device = SepconvBackend.supports_device
is_compatible = SepconvBackend.is_compatible

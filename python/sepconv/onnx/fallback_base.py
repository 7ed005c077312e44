"""The parts of the package onnx's reference implementation that ours are made of. They load with the first fallback."""

from __future__ import annotations

from sepconv import extras

_PURPOSE = "running what has no kernel"

reference = extras.require("onnx.reference", package="onnx", extra="onnx", purpose=_PURPOSE)
op_run = extras.require("onnx.reference.op_run", package="onnx", extra="onnx", purpose=_PURPOSE)
ops = extras.require("onnx.reference.ops._op_list", package="onnx", extra="onnx", purpose=_PURPOSE)

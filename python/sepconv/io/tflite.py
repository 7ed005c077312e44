"""Reads TFLite files into layer lists. The files need not be trusted; SECURITY.md says what that means."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import Input, Layer
from sepconv.io import _tflite_schema as schema
from sepconv.io._tflite_network import Network
from sepconv.io._tflite_operators import translate
from sepconv.io._tflite_options import Operator
from sepconv.io._tflite_tensors import Tensors
from sepconv.io.arrays import MemoryBudget
from sepconv.io.files import Source, naming, open_source
from sepconv.io.flatbuffer import Table, TableVector

MAX_OPERATORS = 10_000
MAX_ENDS = 64  # inputs or outputs, of a network or of an operator

_INPUT_DTYPES = {"FLOAT32": "float32", "UINT8": "uint8", "INT8": "int8"}


@dataclass(frozen=True)
class TfliteNetwork:
    """``outputs`` names the layers whose values the file gives as its outputs."""

    layers: list[Layer]
    outputs: tuple[str, ...]


def read_tflite(source: str | os.PathLike[str] | bytes) -> list[Layer]:
    """The layers of a TFLite file, given by path or as bytes, in order of execution; :func:`read_tflite_network`."""
    return read_tflite_network(open_source(source)).layers


def read_tflite_network(source: Source) -> TfliteNetwork:
    """Reads one network.

    Operators on which no output depends are left out, whatever they are. Each layer is named after its output tensor,
    up to the first ";" (converters join the names of what they fused). float32 weights are views of the file; quantised
    and float16 ones are computed whenever they are asked for. SAME padding becomes explicit, for the input size that
    the file declares. Activations are real numbers: QUANTIZE and DEQUANTIZE between layers vanish, and so does the
    rounding that they stand for. Of saturation this much is kept: a quantised range that begins at 0 is a relu where
    the operator names no activation, and a relu6 if it ends at 6. What any other range cuts off goes on as it is.

    Raises:
        ModelFormatError: the bytes are not a valid TFLite file.
        UnsupportedError: they are, and use what sepconv does not implement.
    """
    with naming(source.name):
        return _read(source.data)


def _read(data: memoryview) -> TfliteNetwork:
    model = Table.root(data)
    version = model.integer(schema.Model.VERSION, "I")
    if version != schema.SCHEMA_VERSION:
        raise UnsupportedError(f"TFLite schema version {version}; only {schema.SCHEMA_VERSION} is known")
    subgraphs = model.tables(schema.Model.SUBGRAPHS)
    if len(subgraphs) != 1:
        raise UnsupportedError(f"the file holds {len(subgraphs)} subgraphs; there must be exactly one")
    subgraph = subgraphs.get(0, "subgraph")
    tensors = Tensors(subgraph.tables(schema.Subgraph.TENSORS), model.tables(schema.Model.BUFFERS))
    network = Network(tensors, MemoryBudget(len(data)))
    for index in _indices(subgraph, schema.Subgraph.INPUTS, "network input"):
        with naming("a network input"):
            _add_input(network, index)
    if not network.layers:
        raise ModelFormatError("the network has no input")
    table = subgraph.tables(schema.Subgraph.OPERATORS)
    if len(table) > MAX_OPERATORS:
        raise UnsupportedError(f"the network has {len(table)} operators; at most {MAX_OPERATORS} are possible")
    codes = model.tables(schema.Model.OPERATOR_CODES)
    operators = [_operator(index, table.get(index, "operator"), codes) for index in range(len(table))]
    given = _indices(subgraph, schema.Subgraph.OUTPUTS, "network output")
    if not given:
        raise ModelFormatError("the network has no output")
    for operator in _needed(operators, given):
        with naming(operator.where):
            translate(network, operator)
    with naming("a network output"):
        outputs = [_output(network, index) for index in given]
    return TfliteNetwork(network.live_layers(outputs), tuple(outputs))


def _indices(table: Table, field: int, what: str) -> list[int]:
    count, indices = table.integers(field, MAX_ENDS)
    if count > MAX_ENDS:
        raise UnsupportedError(f"there are {count} {what}s; at most {MAX_ENDS} are possible")
    return indices


def _add_input(network: Network, index: int) -> None:
    tensor = network.tensors.get(index)
    if tensor.type_name not in _INPUT_DTYPES:
        raise UnsupportedError(
            f"the input {tensor.name!r} is of type {tensor.type_name}; it must be {', '.join(_INPUT_DTYPES)}"
        )
    if tensor.is_constant:
        raise ModelFormatError(f"the input {tensor.name!r} is constant")
    if len(tensor.shape) < 2:
        raise UnsupportedError(f"the input {tensor.name!r} has the shape {list(tensor.shape)}, without a batch")
    if network.layers and tensor.shape[0] != network.batch:
        raise UnsupportedError(f"the inputs have different batch sizes, {network.batch} and {tensor.shape[0]}")
    network.batch = tensor.shape[0]
    scale, zero_point = 1.0, 0
    if tensor.type_name != "FLOAT32":
        scale, zero_point = tensor.scalar_quantization(f"the input {tensor.name!r}")
    layer = Input(
        name=network.unique_name(index),
        shape=network.image_shape(tensor.shape),
        dtype=_INPUT_DTYPES[tensor.type_name],
        scale=scale,
        zero_point=zero_point,
    )
    network.add(layer, index, tensor.shape)


def _operator(index: int, table: Table, codes: TableVector) -> Operator:
    with naming(f"operator {index}"):
        code = codes.get(table.integer(schema.OperatorField.CODE, "I"), "operator code")
    # Codes up to 127 may stand in either field, greater ones only in the newer.
    number = max(
        code.integer(schema.OperatorCode.BUILTIN_CODE, "i"),
        code.integer(schema.OperatorCode.DEPRECATED_BUILTIN_CODE, "b"),
    )
    kind = schema.name_of(schema.OPERATORS, number)
    if kind == "CUSTOM":
        kind = f"CUSTOM {code.text(schema.OperatorCode.CUSTOM_CODE, 100)!r}"
    where = f"operator {index}, {kind}"
    with naming(where):
        return Operator(
            where=where,
            kind=kind,
            inputs=_indices(table, schema.OperatorField.INPUTS, "input"),
            outputs=_indices(table, schema.OperatorField.OUTPUTS, "output"),
            options_type=table.integer(schema.OperatorField.OPTIONS_TYPE, "B"),
            options=table.table(schema.OperatorField.OPTIONS),
        )


def _needed(operators: list[Operator], outputs: list[int]) -> list[Operator]:
    """Those on which an output depends; what the others are is nobody's concern."""
    needed, kept = set(outputs), []
    for operator in reversed(operators):
        if needed.intersection(operator.outputs) or not operator.outputs:
            needed.update(operator.inputs)
            kept.append(operator)
    return kept[::-1]


def _output(network: Network, index: int) -> str:
    value = network.value(index)
    if any(isinstance(layer, Input) and layer.name == value.layer for layer in network.layers):
        raise UnsupportedError(f"the network gives its input {value.layer!r} unchanged as an output")
    return value.layer

"""Whether a node is what the operator's schema asks for: attributes and their types, numbers of inputs and outputs."""

from __future__ import annotations

from typing import Any

from sepconv.errors import ModelFormatError, UnsupportedError


def check_node(proto: Any, domain: str, version: int, what: str) -> None:
    """Raise UnsupportedError for an operator that the package onnx does not know, ModelFormatError for a bad use."""
    import onnx

    try:
        schema = onnx.defs.get_schema(proto.op_type, version, domain)
    except onnx.defs.SchemaError:
        known = f"opset {version}" if not domain else f"version {version} of {domain!r}"
        raise UnsupportedError(f"{what}: {known} has no such operator") from None
    _check_count(len(proto.input), schema.min_input, schema.max_input, "inputs", what)
    for name, formal in zip(proto.input, schema.inputs, strict=False):
        if not name and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            raise ModelFormatError(f"{what} lacks its input {formal.name!r}")
    _check_count(len(proto.output), schema.min_output, schema.max_output, "outputs", what)
    seen: set[str] = set()
    for attribute in proto.attribute:
        expected = schema.attributes.get(attribute.name)
        if expected is None:
            raise ModelFormatError(f"{what} has an attribute {attribute.name[:80]!r}, which the operator lacks")
        if attribute.name in seen:
            raise ModelFormatError(f"{what} has the attribute {attribute.name!r} twice")
        seen.add(attribute.name)
        if attribute.ref_attr_name:
            raise ModelFormatError(f"{what}: attribute {attribute.name!r} refers to a function's, outside of one")
        if int(attribute.type) != int(expected.type.value):
            kinds = onnx.AttributeProto.AttributeType
            was = kinds.Name(attribute.type) if attribute.type in kinds.values() else attribute.type
            raise ModelFormatError(
                f"{what}: attribute {attribute.name!r} is of type {was}, must be {expected.type.name}"
            )
    for name, expected in schema.attributes.items():
        if expected.required and name not in seen:
            raise ModelFormatError(f"{what} lacks the attribute {name!r}")


def _check_count(count: int, least: int, most: int, noun: str, what: str) -> None:
    if not least <= count <= most:
        raise ModelFormatError(f"{what} has {count} {noun}, must have between {least} and {most}")

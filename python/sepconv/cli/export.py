"""``sepconv export``: a network as a file for other runtimes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sepconv.cli import engine
from sepconv.cli.parsers import positive
from sepconv.paths import check_no_input, checked_path

if TYPE_CHECKING:
    from sepconv.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write a network as an ONNX, TFLite or ncnn file",
        description="Write a network, in float32, as an ONNX (checked by onnx.checker), TFLite or ncnn file.",
    )
    parser.add_argument("model", metavar="MODEL", help="as for bench: mobilenet_v1_1.0_224, or a .tflite or .onnx file")
    parser.add_argument("path", metavar="FILE", help="name.onnx, name.tflite, or name.param (and name.bin) for ncnn")
    parser.add_argument("--weights", metavar="FILE", help="trained weights for a model given by name (default: random)")
    parser.add_argument("--batch", type=positive, metavar="N", help="default: left open in ONNX, else 1")
    parser.add_argument(
        "--keep-batch-norm", action="store_true", help="ONNX: as nodes, rather than folded into the weights"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sepconv import export
    from sepconv.bench.networks import open_network
    from sepconv.models.catalog import is_name

    path = checked_path(args.path, "FILE")
    export.check_path(path)
    for written in export.written_files(path):
        check_no_input(written, "FILE", filter(None, (args.model, args.weights)))
    if args.keep_batch_norm and path.suffix != ".onnx":
        raise ValueError(f"--keep-batch-norm is for .onnx files, not {path.name!r}")
    with engine.naming_weights(args.weights):
        network = open_network(args.model, weights=args.weights)
    if args.keep_batch_norm:
        export.write_onnx(network.layers, path, args.batch, network.outputs, fold=False)
    else:
        export.export_model(network.layers, path, args.batch, network.outputs)
    size = sum(written.stat().st_size for written in export.written_files(path))
    random = " with random weights" if args.weights is None and is_name(args.model) else ""
    print(f"{path}: {network.name}{random}, {size:,} bytes")
    return 0

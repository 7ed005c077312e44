"""``sepconv bench``: how long networks and operators take, beside other runtimes."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepconv.cli import console, engine
from sepconv.cli.parsers import names, numbers, pair, positive
from sepconv.paths import check_no_input, check_writable, is_same_file, write_files
from sepconv.table import printable

if TYPE_CHECKING:
    from sepconv.bench.networks import Network
    from sepconv.cli.parsers import Subparsers

_NETWORK_SUFFIXES = (".onnx", ".tflite", ".param", ".bin", ".pth", ".pt", ".safetensors", ".npz")
_OPTIONS = ("shape", "kernel", "stride", "dilation", "padding", "activation")  # of --op

DESCRIPTION = """\
Time networks, or one operator, on sepconv and on the other runtimes that are installed (extra bench; torch by itself):
the same weights for all, outputs compared first. Each contender has its own process, stopped while it is not its turn;
they take turns in many short bursts, beside a loop of multiply-adds that measures the peak. The ratio is of the 25th
percentiles, with its 95 % bootstrap interval."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "bench", help="time networks or an operator beside other runtimes", description=DESCRIPTION
    )
    add = parser.add_argument
    add(
        "models", nargs="*", metavar="MODEL",
        help="a family's name, alone or with width and resolution (mobilenet_v1_1.0_224): mobilenet_v1, mobilenet_v2, "
        "mobilenet_v3_large, mobilenet_v4_conv_small, efficientnet_lite0, mnasnet_a1, shufflenet_v2, "
        "ssdlite_mobilenet_v2 and their like; or a .tflite or .onnx file, at 224x224 where its size "
        "is open (default: the four networks of BENCHMARKS.md)",
    )  # fmt: skip
    add(
        "--contenders", type=names, metavar="NAME,...",
        help="default: sepconv, onnxruntime, openvino, litert, torch, ncnn, numpy, as installed; of one operator also "
        "sepconv_packing and torch_contiguous; oracle, which is naive and takes seconds a run, must be asked for",
    )  # fmt: skip
    add(
        "--isa", type=names, default=[], metavar="ISA,...",
        help="hold sepconv, and the peers that can be held (openvino, torch: scalar is SSE4 to them), to each of these",
    )  # fmt: skip
    add("--threads", type=numbers, default=[1], metavar="N,...", help="default: 1")
    add("--batch", type=positive, default=1, metavar="N", help="images a run (default: %(default)s)")
    add("--cold", action="store_true", help="flush the caches before each run, those of other cores excepted")
    add("--memory", action="store_true", help="also peak memory above an interpreter with NumPy")
    add("--startup", action="store_true", help="also the time from loading to the first result, imports not included")
    add("--sweep", action="store_true", help="MobileNet V1 over width and resolution: time against multiply-adds")
    add("--rounds", type=positive, default=40, metavar="N", help="bursts of each contender (default: %(default)s)")
    add("--burst", type=positive, default=40, metavar="MS", help="milliseconds a burst (default: %(default)s)")
    add("--json", nargs="?", const="-", metavar="FILE", help="write JSON, to FILE or in place of the tables")
    add("--plot", metavar="FILE", help="draw the times into a .png, .svg or .pdf file")
    one = parser.add_argument_group("one operator, by sepconv's function on arrays, weights prepared and not")
    one.add_argument(
        "--op-table", action="store_true", help="every depthwise and separable convolution of MobileNet V1 and V2"
    )
    one.add_argument("--op", choices=("depthwise", "pointwise", "separable", "conv"), help="in place of MODEL")
    one.add_argument("--shape", type=numbers, metavar="H,W,C[,N]", help="input, and output channels (default: C)")
    one.add_argument("--kernel", type=pair, metavar="K[,K]", help="default: 3; of pointwise 1")
    one.add_argument("--stride", type=pair, metavar="S[,S]", help="default: 1")
    one.add_argument("--dilation", type=pair, metavar="D[,D]", help="default: 1")
    one.add_argument("--padding", choices=("same", "valid"), help="default: same")
    one.add_argument("--activation", metavar="NAME", help="such as relu6 (default: none)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    isa = engine.isa()
    from sepconv import _core
    from sepconv.bench import contenders, machine, method, plot, processes, report, sweep
    from sepconv.plot import check_path
    from sepconv.threads import thread_count

    # Now rather than after minutes of measuring.
    file = None if args.json == "-" else args.json
    if args.plot is not None:
        check_path(args.plot, "--plot", extra="bench")
        check_no_input(args.plot, "--plot", args.models)
    if file is not None:
        _check_json(file, args.models)
        if args.plot is not None and is_same_file(file, args.plot):
            raise ValueError(f"--plot is {args.plot!r}, which --json writes; must be another file")
    for option in ("startup", "memory"):
        if args.op_table and getattr(args, option):
            raise ValueError(f"--{option} must be left out with --op-table, whose processes go from one to the next")
    if args.op_table and len(set(args.isa)) > 1:
        raise ValueError(f"--isa is {','.join(args.isa)}, must be one with --op-table, which has a column a runtime")
    for threads in args.threads:
        thread_count(threads)
    if args.burst > 1e3 * method.LONGEST_BURST:
        raise ValueError(f"--burst is {args.burst}, must be at most {1e3 * method.LONGEST_BURST:.0f} milliseconds")
    networks = _networks(args)
    supported = _core.supported_isas()
    chosen = contenders.choose(_contender_names(args), args.isa, supported)
    settings = [
        method.Settings(
            threads=threads,
            batch=args.batch,
            rounds=args.rounds,
            burst=args.burst / 1e3,
            cold=args.cold,
            startup=args.startup,
            memory=args.memory,
        )
        for threads in args.threads
    ]
    load = machine.load_average()
    steps = len(networks) * sum(method.steps_of(chosen, each) for each in settings)
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(console.progress(steps))
        workers = None
        if args.op_table:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sepconv-bench-"))
            workers = stack.enter_context(processes.Workers(Path(folder)))
        comparisons = [
            method.compare(network, chosen, each, advance, isa, supported[-1], workers)
            for network in networks
            for each in settings
        ]
    found = report.document(comparisons, ["sepconv", *_command(sys.argv[1:])], isa, load)
    if args.sweep:
        found["sweep"] = sweep.lines(found["results"])
    text = json.dumps(found, indent=2) + "\n"
    with contextlib.ExitStack() as always:  # the last first; what was measured is shown, whatever became of the files
        if args.json == "-":
            always.callback(print, text, end="")
        else:
            always.callback(_print_operators if args.op_table else _print, found)
        if args.plot is not None:
            save = plot.save_sweep if args.sweep else plot.save_bars
            always.callback(save, args.plot, found["results"], _caption(found))
        if file is not None:
            write_files({Path(file): text.encode()})
    return 0


def _check_json(path: str, models: Sequence[str]) -> None:
    """--json takes the next word for its FILE: where that is a model, it was not meant so."""
    from sepconv.models.catalog import is_name

    if not path or is_name(path) or Path(path).suffix in _NETWORK_SUFFIXES:
        raise ValueError(f"--json is {path!r}, must be a file to write: put MODEL before --json, or --json - for none")
    check_no_input(path, "--json", models)
    check_writable(path)


def _contender_names(args: argparse.Namespace) -> list[str] | None:
    """Who takes part; None for everybody. Of one operator sepconv comes twice, and torch too."""
    from sepconv.bench import contenders, operators

    names: list[str] | None = args.contenders
    if "sepconv_packing" in (names or ()) and args.op is None and not args.op_table:
        raise ValueError("contenders has 'sepconv_packing', which runs one operator: needs --op or --op-table")
    if args.op_table:
        return names or list(operators.CONTENDERS)
    if args.op is not None:
        default = [kind for kind in contenders.KINDS if contenders.KINDS[kind].default]
        return ["sepconv_packing", *(names or [*default, "torch_contiguous"])]
    return names or (["sepconv"] if args.sweep else None)


def _networks(args: argparse.Namespace) -> list[Network]:
    from sepconv.bench import networks, operators, sweep

    if sum(map(bool, (args.models, args.op, args.op_table, args.sweep))) > 1:
        raise ValueError("MODEL, --op, --op-table and --sweep exclude each other")
    given = {option: getattr(args, option) for option in _OPTIONS if getattr(args, option) is not None}
    if given and args.op is None:
        raise ValueError(f"--{next(iter(given))} needs --op")
    if args.op_table:
        return operators.mobilenet_operators()
    if args.op is None:
        return [
            networks.open_network(name)
            for name in args.models or (sweep.names() if args.sweep else networks.DEFAULT_MODELS)
        ]
    if args.shape is None:
        raise ValueError("--op needs --shape H,W,C[,N]")
    return [networks.operator(args.op, **given)]


def _print(found: dict[str, Any]) -> None:
    from sepconv.bench import report, sweep

    for result in found["results"]:
        marked = [i for i, row in enumerate(result["contenders"]) if row["kind"] == "sepconv"]
        console.print_table(report.title(result), report.headers(result), report.rows(result), marked=marked)
        for line in (*report.summaries(result), *report.notes(result)):
            print(f"  {printable(line)}")
        print()
    for line in sweep.sentences(found.get("sweep", {})):
        print(line)
    print(_caption(found))


def _print_operators(found: dict[str, Any]) -> None:
    from sepconv.bench import operators, report

    title = f"µs, 25th percentile (minimum){report.conditions(found['results'][0])}"
    console.print_table(title, operators.HEADERS, operators.rows(found["results"]))
    notes = dict.fromkeys(note for result in found["results"] for note in report.notes(result))
    for line in (*operators.sentences(found["results"]), *notes):
        print(printable(line))
    print(_caption(found))


def _caption(found: dict[str, Any]) -> str:
    from sepconv.bench import report

    load = found["load_average"]["before"]
    busy = "" if load is None else f", load {load[0]:.1f}"
    isas = ", ".join(report.isas(found["results"]))
    return (
        f"{found['machine']['processor']}, {found['machine']['cores']} cores{busy} · sepconv {isas} · {found['date']}"
    )


def _command(arguments: Sequence[str]) -> list[str]:
    """The command line as one would type it, files by their names alone."""
    return [shlex.quote(re.sub(r"(?s)^(--\w+=)?.*/", r"\1", word)) for word in arguments]

"""``sepconv classify``: what is in a photograph."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sepconv import conventions, images
from sepconv.cli import engine
from sepconv.cli.parsers import positive
from sepconv.conventions import Convention
from sepconv.graph import Layer, Reshape, Softmax
from sepconv.paths import check_no_input, checked_path
from sepconv.table import format_threads, printable

if TYPE_CHECKING:
    from sepconv.cli.parsers import Subparsers

WARM_UP = 2
_BAR_WIDTH = 24


@dataclass(frozen=True)
class Guess:
    """One of the labels, with the probability that the network gives it."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Times:
    """Milliseconds that the network took for one photograph, reading and resizing not included."""

    fastest: float
    median: float
    runs: int


@dataclass(frozen=True)
class Result:
    """What ``--json`` prints."""

    image: str
    model: str
    convention: Convention
    input: tuple[int, int, int]
    top: tuple[Guess, ...]
    milliseconds: Times
    isa: str
    threads: int


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "classify",
        help="say what is in a photograph",
        description="Say what is in a photograph, and how long the network took.",
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="default: the portrait that matplotlib carries")
    parser.add_argument(
        "--model",
        default=engine.DEFAULT_MODEL,
        metavar="NAME|FILE",
        help=f"a .tflite or .onnx file, one of {', '.join(engine.MODEL_NAMES)}, or the name of weights on the hub "
        "(extra hub), such as mobilenet_v1_100.ra4 (default: %(default)s)",
    )
    parser.add_argument("--weights", metavar="FILE", help="trained weights for a model given by name")
    parser.add_argument(
        "--convention",
        choices=tuple(conventions.CONVENTIONS),
        metavar="NAME",
        help=f"how the weights want their input, if not as usual: one of {', '.join(conventions.CONVENTIONS)}",
    )
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="labels to print (default: %(default)s)")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: what the machine allows")
    parser.add_argument("--repeat", type=positive, default=20, metavar="N", help="runs to time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", metavar="FILE", help="draw photograph and labels into a .png, .svg or .pdf file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    isa = engine.isa()  # before all else: where this fails, nothing will run
    if args.save is not None:
        from sepconv import plot

        plot.check_path(args.save, "--save", extra="demo")
    path = engine.default_photograph() if args.image is None else checked_path(args.image, "IMAGE")
    if args.save is not None:
        check_no_input(args.save, "--save", filter(None, (path, args.model, args.weights)))
    photograph = images.load_image(path)
    model = engine.open_model(args.model, args.weights)
    convention = conventions.convention(args.convention) if args.convention else None
    result = classify(
        model,
        photograph,
        image_name=path.name,
        convention=convention,
        top=args.top,
        threads=args.threads,
        repeat=args.repeat,
        isa=isa,
    )
    print(json.dumps(asdict(result), indent=2) if args.json else format_result(result))
    if args.save is not None:
        labels = [guess.label for guess in result.top]
        plot.save_result(args.save, photograph, labels, [guess.probability for guess in result.top], caption(result))
    return 0


def classify(
    model: engine.Classifier,
    photograph: NDArray[np.uint8],
    *,
    image_name: str = "",
    convention: Convention | None = None,
    top: int = 5,
    threads: int | None = None,
    repeat: int = 20,
    isa: str | None = None,
) -> Result:
    """Run ``model`` on ``photograph`` ``[h, w, 3]``, RGB; ``convention`` overrides the model's own.

    Raises ValueError where the model is no classifier of colour images: it takes something else, gives more than one
    result, one for each of several pixels, or one that is not finite.
    """
    port = model.inputs[0]
    shape = tuple(port.shape)[1:]
    if len(model.inputs) != 1 or len(shape) != 3 or shape[2] != 3 or shape[0] is None or shape[1] is None:
        raise ValueError(
            f"model {model.name} takes {[list(p.shape) for p in model.inputs]}, must take one [n, h, w, 3]"
        )
    results = [list(p.shape) for p in model.outputs]
    if len(results) != 1 or any(n != 1 for n in results[0][1:-1]):
        raise ValueError(f"model {model.name} gives {results}, must give one result: the classes' scores, [n, classes]")
    height, width = shape[0], shape[1]
    chosen = convention or model.convention
    # Without a record the number of outputs decides, which only a run tells; it also warms up.
    scaling = chosen or conventions.guess(port.dtype, 0)
    x = scaling.to_input(images.resize(photograph, scaling, height, width), port.dtype)
    for _ in range(WARM_UP):
        scores = model(x, threads=threads)
    chosen = conventions.with_names(chosen or conventions.guess(port.dtype, scores.size), scores.size)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        model(x, threads=threads)
        seconds.append(time.perf_counter() - start)

    probabilities = to_probabilities(scores, model.layers, model.outputs[0].name)
    order = np.argsort(-probabilities, kind="stable")[:top]
    return Result(
        image=image_name,
        model=model.name,
        convention=chosen,
        input=(height, width, 3),
        top=tuple(Guess(chosen.label(int(i)), int(i), float(probabilities[i])) for i in order),
        milliseconds=Times(1e3 * min(seconds), 1e3 * statistics.median(seconds), repeat),
        isa=isa or engine.isa(),
        threads=threads or engine.num_threads(),
    )


def to_probabilities(scores: NDArray[np.float32], layers: Sequence[Layer], output: str) -> NDArray[np.float64]:
    """One photograph's scores as probabilities: their softmax, unless the layer ``output`` gives one, or a sigmoid."""
    flat = scores.reshape(-1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise ValueError("the network's output is not finite: its weights or its input hold NaN or infinity")
    by_name = {layer.name: layer for layer in layers}
    while isinstance(by_name[output], Reshape):
        (output,) = by_name[output].inputs
    last = by_name[output]
    if isinstance(last, Softmax) or getattr(last, "activation", None) in ("sigmoid", "hard_sigmoid"):
        return flat
    powers: NDArray[np.float64] = np.exp(flat - flat.max())
    powers /= powers.sum()
    return powers


def caption(result: Result) -> str:
    """The line under the picture."""
    return f"sepconv · {result.model} · {_speed(result)}"


def _speed(result: Result) -> str:
    return f"{result.milliseconds.fastest:.2f} ms on {format_threads(result.threads)}, {result.isa}"


def format_result(result: Result) -> str:
    """The lines that ``classify`` prints."""
    height, width, _ = result.input
    times = result.milliseconds
    lines = [printable(f"{result.image} · {result.model} · {height}×{width}"), ""]
    for guess in result.top:
        bar = "█" * round(_BAR_WIDTH * guess.probability)
        lines.append(f"  {100 * guess.probability:5.1f} %  {bar or '▏':<{_BAR_WIDTH}}  {guess.label}")
    lines += [
        "",
        f"  {_speed(result)}",
        f"  (one photograph, the network alone: fastest of {times.runs} runs after {WARM_UP} to warm up; "
        f"median {times.median:.2f} ms)",
    ]
    return "\n".join(lines)

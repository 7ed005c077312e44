"""Who can take part: what each contender is, what it needs, and the files that it reads."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
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
from sepconv.io.files import open_file
from sepconv.io.tflite import read_tflite_network
from sepconv.lowering import folded_layers
from sepconv.paths import write_files

ONNX, TFLITE, NCNN = "network.onnx", "network.tflite", "network.param"


@dataclass(frozen=True)
class Kind:
    """One of the runtimes.

    package: what must be importable; distribution: what PyPI calls it.
    file: what it reads, of the files that ``prepare`` writes.
    held_by: the environment variables that hold it to an ISA, if any do.
    default: whether it takes part without being asked for.
    """

    package: str
    distribution: str
    file: str
    held_by: tuple[str, ...] = ()
    default: bool = True


TORCH_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")
KINDS: dict[str, Kind] = {
    "sepconv": Kind("sepconv", "sepconv", LAYERS, ("SEPCONV_ISA",)),
    # Of one operator alone, with the weights packed in each call.
    "sepconv_packing": Kind("sepconv", "sepconv", LAYERS, ("SEPCONV_ISA",), default=False),
    "onnxruntime": Kind("onnxruntime", "onnxruntime", ONNX),
    "openvino": Kind("openvino", "openvino", ONNX, ("ONEDNN_MAX_CPU_ISA",)),
    "litert": Kind("ai_edge_litert", "ai-edge-litert", TFLITE),
    "torch": Kind("torch", "torch", LAYERS, TORCH_VARIABLES),
    "ncnn": Kind("ncnn", "ncnn", NCNN),
    "numpy": Kind("numpy", "numpy", LAYERS),
    "oracle": Kind("sepconv", "sepconv", LAYERS, default=False),
    "torch_contiguous": Kind("torch", "torch", LAYERS, TORCH_VARIABLES, default=False),
}
# How those variables spell our ISAs, where not as we do.
_SPELLINGS = {
    "ONEDNN_MAX_CPU_ISA": {"scalar": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"},
    "MKL_ENABLE_INSTRUCTIONS": {"scalar": "SSE4_2", "avx2": "AVX2", "avx512": "AVX512"},
    "ATEN_CPU_CAPABILITY": {"scalar": "default"},
}


@dataclass(frozen=True)
class Contender:
    """A runtime, perhaps held to an ISA."""

    kind: str
    isa: str | None = None

    @property
    def name(self) -> str:
        return self.kind if self.isa is None else f"{self.kind} {self.isa}"

    def peak_isa(self, in_use: str, best: str) -> str:
        """The ISA of the peak that it is held against: the machine's ``best`` for what neither is held nor ours."""
        return self.isa or (in_use if "SEPCONV_ISA" in KINDS[self.kind].held_by else best)

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that its process gets besides ours."""
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        if self.isa is not None:
            for variable in KINDS[self.kind].held_by:
                variables[variable] = _SPELLINGS.get(variable, {}).get(self.isa, self.isa)
        return variables


def choose(names: Sequence[str] | None, isas: Sequence[str], supported: Sequence[str]) -> list[Contender]:
    """The contenders of these names (None: all but the slow oracle), sepconv always among them and first.

    ``isas`` hold them: one sepconv for each of these, the best first, and each peer likewise, but free for the best of
    ``supported``. Raises ValueError for a name or an ISA that does not exist.
    """
    for name in names or ():
        if name not in KINDS:
            raise ValueError(f"contenders has {name!r}, must be of {', '.join(KINDS)}")
    for isa in isas:
        if isa not in supported:
            raise ValueError(f"isa has {isa!r}, must be of {', '.join(supported)} on this machine")
    wanted = [kind for kind in KINDS if (kind in names if names else KINDS[kind].default) and kind != "sepconv"]
    held: list[str | None] = [*sorted(set(isas), key=supported.index, reverse=True)]
    held = held or [None]
    peers = [Contender(kind, None if isa == supported[-1] else isa) for kind in wanted for isa in held]
    return [*(Contender("sepconv", isa) for isa in held), *peers]


def reason_absent(contender: Contender, missing_files: dict[str, str]) -> str | None:
    """Why it cannot take part; None where it can."""
    kind = KINDS[contender.kind]
    if contender.isa is not None and not kind.held_by:
        return f"nothing holds it to {contender.isa}"
    if importlib.util.find_spec(kind.package) is None:
        return f"not installed (pip install {kind.distribution})"
    return missing_files.get(kind.file)


def prepare(network: Network, batch: int, folder: Path, kinds: set[str]) -> dict[str, str]:
    """Write the network, batch norms folded, in the formats that ``kinds`` read, and an input for it.

    Returns the files that could not be written, with the reason.
    """
    layers = folded_layers(network.layers)
    images = io.BytesIO()
    np.save(images, network.random_input(batch))
    write_files({folder / INPUT: images.getvalue(), folder / LAYERS: pickle.dumps(layers, protocol=5)})
    reasons: dict[str, str] = {}
    wanted = {KINDS[kind].file for kind in kinds} | {TFLITE}  # sepconv reads the TFLite file, where it is the same
    for file in sorted(wanted - {LAYERS}):
        reason = _write(layers, network.outputs, folder / file, 1 if file == NCNN else batch)
        if reason is not None:
            reasons[file] = reason
    return reasons


def _write(layers: Sequence[Layer], outputs: Sequence[str], path: Path, batch: int) -> str | None:
    try:
        export_model(layers, path, batch, outputs)
    except (UnsupportedError, MissingExtraError) as error:
        return str(error)
    return None


def sepconv_file(folder: Path, outputs: Sequence[str]) -> str:
    """What sepconv loads: the TFLite file, as LiteRT does, where reading it gives the network that was written."""
    path = folder / TFLITE
    try:
        read = read_tflite_network(open_file(path)) if path.exists() else None
    except UnsupportedError:  # an operator that we write and do not read
        read = None
    same = read is not None and read.outputs == tuple(outputs) and _alike(read.layers, stored_layers(folder))
    return TFLITE if same else LAYERS


def _alike(a: Sequence[Layer], b: Sequence[Layer]) -> bool:
    """Whether two networks do the same, their weights' values aside."""

    def described(layer: Layer) -> list[object]:
        values = (getattr(layer, field.name) for field in dataclasses.fields(layer) if field.name != "bias")
        return [type(layer), *(array_shape(v) if hasattr(v, "__array__") else v for v in values)]

    return list(map(described, a)) == list(map(described, b))

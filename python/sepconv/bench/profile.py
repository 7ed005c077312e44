"""Where a network's time goes: each step of its plan beside the least time that this machine allows it.

A step is a layer, or several that stream their rows to each other. Its bound is the greater of two times, since both
overlap: its multiply-adds at the measured peak, and its bytes at the bandwidth of the level that holds them. Weights
come from the level that holds all of the network's; what a step reads and writes, from the one that holds both. In a
batch a step's weights come anew for every image, but for the last steps, which run for a group of images at once.
A step is held against its own bytes: one whose weights the step before it had fetched ahead can beat its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from sepconv.bench import machine
from sepconv.bench.networks import Network
from sepconv.bench.peaks import Peaks
from sepconv.bench.statistics import QUARTILE
from sepconv.table import format_shape

if TYPE_CHECKING:
    from sepconv._core import OperatorInfo

FLOAT_BYTES = 4
WARM_UP = 3


@dataclass(frozen=True)
class StepProfile:
    """One step.

    milliseconds, minimum: the first quartile of its times, and the least.
    macs: multiply-adds of the whole batch.
    bytes: weights as packed, what the step reads and what it writes, each once; what streams inside counts nothing.
    bound_ms, bound: the least time, and what sets it: "multiply-adds" or a level of memory.
    """

    layers: tuple[str, ...]
    kernels: tuple[str, ...]
    output: tuple[int, int, int]
    milliseconds: float
    minimum: float
    macs: int
    bytes: int
    bound_ms: float
    bound: str

    @property
    def gflops(self) -> float:
        return 2e-6 * self.macs / self.milliseconds

    @property
    def intensity(self) -> float:
        """Floating-point operations a byte; a multiply-add is two."""
        return 2 * self.macs / self.bytes

    @property
    def attained(self) -> float:
        """The bound's part of the time: 1 is the best there is."""
        return self.bound_ms / self.milliseconds


@dataclass(frozen=True)
class Profile:
    network: str
    isa: str
    threads: int
    batch: int
    repeat: int  # runs
    steps: tuple[StepProfile, ...]
    peaks: Peaks

    @property
    def milliseconds(self) -> float:
        return math.fsum(step.milliseconds for step in self.steps)


def profile(
    network: Network,
    peaks: Peaks,
    *,
    threads: int = 1,
    batch: int = 1,
    repeat: int = 100,
    fused: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> Profile:
    """Run ``repeat`` times and take each step's quartile. ``fused``: else every layer is a step of its own."""
    from sepconv import _core
    from sepconv.compile import compile_graph

    plan = _core.Plan(compile_graph(network.layers, network.outputs), "automatic" if fused else "never")
    x = network.random_input(batch)
    for _ in range(WARM_UP):
        plan.run([x], threads)
    runs = []
    for _ in range(repeat):
        runs.append(plan.run_timed([x], threads)[1])
        advance()
    times = 1e3 * np.array(runs)
    quartiles, minima = np.percentile(times, QUARTILE, axis=0), times.min(axis=0)
    steps = []
    for index, members in groupby(plan.describe(), key=lambda operator: operator.step):
        quartile, minimum = float(quartiles[index]), float(minima[index])
        grouped = index >= plan.tail
        steps.append(_step(list(members), quartile, minimum, plan.weight_bytes, peaks, batch, grouped=grouped))
    return Profile(network.name, _core.isa(), threads, batch, repeat, tuple(steps), peaks)


def _step(
    operators: Sequence[OperatorInfo],
    quartile: float,
    minimum: float,
    all_weights: int,
    peaks: Peaks,
    batch: int,
    *,
    grouped: bool,
) -> StepProfile:
    from sepconv import _core

    macs = batch * sum(operator.macs for operator in operators)
    weights = sum(operator.weight_bytes for operator in operators)
    read, written = (FLOAT_BYTES * math.prod(s) for s in (operators[0].input_shape, operators[-1].output_shape))
    # The images of a batch follow each other, so that one image's activations are what must fit.
    activations = read + written
    traffic = {peaks.level((activations + weights) // peaks.cpus): float(batch * activations)}
    # Images that are too few for a group follow each other in one step, so that its own weights are what must fit.
    reads = sum(divmod(batch, _core.Plan.GROUP)) if grouped else batch
    for level, count in ((peaks.level(all_weights), 1), (peaks.level(weights if grouped else all_weights), reads - 1)):
        traffic[level] = traffic.get(level, 0.0) + count * weights
    seconds, bound = peaks.seconds(_core.isa(), 2.0 * macs, traffic)
    return StepProfile(
        tuple(name for operator in operators for name in (operator.layer, *operator.fused)),
        tuple(dict.fromkeys(operator.kernel for operator in operators)),
        operators[-1].output_shape,
        quartile,
        minimum,
        macs,
        batch * activations + weights,
        1e3 * seconds,
        bound,
    )


HEADERS = ("layers", "kernels", "output", "ms", "of all", "M MACs", "KB", "GFLOP/s", "of peak", "of the bound", "bound")


def rows(profiled: Profile) -> list[list[str]]:
    """A row a step, a rule, the total."""
    peak, total = profiled.peaks.flops[profiled.isa] / 1e9, profiled.milliseconds
    table = [
        [
            _shortened(step.layers),
            _shortened(tuple(kernel.removesuffix(f"__{profiled.isa}") for kernel in step.kernels)),
            format_shape(step.output),
            f"{step.milliseconds:.4f}",
            f"{step.milliseconds / total:.1%}",
            f"{step.macs / 1e6:.2f}",
            f"{step.bytes / 1024:.0f}",
            f"{step.gflops:.1f}",
            f"{step.gflops / peak:.1%}",
            f"{step.attained:.1%}",
            step.bound,
        ]
        for step in profiled.steps
    ]
    macs = sum(step.macs for step in profiled.steps)
    rate, bound = 2e-6 * macs / total, math.fsum(step.bound_ms for step in profiled.steps)
    kilobytes = sum(step.bytes for step in profiled.steps) / 1024
    cells = [f"{total:.4f}", "", f"{macs / 1e6:.2f}", f"{kilobytes:.0f}", f"{rate:.1f}", f"{rate / peak:.1%}"]
    return [*table, [], ["total", "", "", *cells, f"{bound / total:.1%}"]]


def document(profiled: Profile) -> dict[str, Any]:
    """For ``--json``."""
    steps = [
        {**asdict(step), "gflops": step.gflops, "intensity": step.intensity, "attained": step.attained}
        for step in profiled.steps
    ]
    return {
        "date": machine.now(),
        "machine": machine.describe(),
        "load_average": machine.load_average(),
        "network": profiled.network,
        "isa": profiled.isa,
        "threads": profiled.threads,
        "batch": profiled.batch,
        "repeat": profiled.repeat,
        "milliseconds": profiled.milliseconds,
        "peaks": asdict(profiled.peaks),
        "steps": steps,
    }


def _shortened(names: Sequence[str]) -> str:
    """ "stem … block4.depthwise" for a step of many layers."""
    return names[0] if len(names) == 1 else ", ".join(names) if len(names) == 2 else f"{names[0]} … {names[-1]}"

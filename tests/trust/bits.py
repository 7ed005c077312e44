"""The same bits at 1 to 16 threads, three times each: real networks and random layers, on every ISA, however fused."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from row import Settings, require

from sepconv import _core, graph
from sepconv.compile import compile_graph
from sepconv.models import efficientnet_lite0_layers, mobilenet_v1_layers, mobilenet_v2_layers

THREADS = range(1, 17)
RUNS = 3


def run(settings: Settings) -> str:
    """The full form takes networks at their real sizes, the short one small ones."""
    networks: dict[str, Callable[[], list[graph.Layer]]] = {
        "mobilenet_v1_1.0_224": mobilenet_v1_layers,
        "mobilenet_v1_0.25_128": lambda: mobilenet_v1_layers(0.25, resolution=128),
        "mobilenet_v2_1.0_224": mobilenet_v2_layers,
        "efficientnet_lite0": efficientnet_lite0_layers,
        "mobilenet_v1_0.5_113": lambda: mobilenet_v1_layers(0.5, resolution=113, classes=10),
        "mobilenet_v2_0.35_75": lambda: mobilenet_v2_layers(0.35, resolution=75, classes=10),
    }
    names = list(networks) if settings.full else ["mobilenet_v1_0.5_113", "mobilenet_v2_0.35_75"]
    runs = 0
    for name in names:
        layers = networks[name]()
        for isa in _core.supported_isas():
            slow = isa == "scalar" and name.endswith(("224", "lite0"))
            # A batch of nine meets both the steps for eight images at once and those for one.
            for fusion in ("automatic",) if slow else ("automatic", "always", "never"):
                for batch in (1,) if slow else (1, 9) if settings.full or fusion == "automatic" else (1,):
                    runs += compare(layers, isa, fusion, batch, name)
    layers_tried = settings.count(200, 3_000)
    for seed in range(layers_tried):
        runs += compare_random(Random(seed))
    return f"{len(names)} networks and {layers_tried} random layers, {runs} runs at 1 to 16 threads, all the same bits"


def compare(layers: list[graph.Layer], isa: str, fusion: str, batch: int, name: str) -> int:
    """The number of runs; RowError where one gave other bits."""
    plan = _core.Plan(compile_graph(layers, graph.outputs(layers), isa), fusion)
    generator = np.random.default_rng(0)
    shapes = [layer.shape for layer in layers if isinstance(layer, graph.Input)]
    x = [generator.standard_normal((batch, *shape), dtype=np.float32) for shape in shapes]
    expected = plan.run(x, 1)[0].tobytes()
    for threads in THREADS:
        for _ in range(RUNS):
            same = plan.run(x, threads)[0].tobytes() == expected
            require(same, f"{name}, {isa}, fusion {fusion}, {batch} images: other bits on {threads} threads")
    return len(THREADS) * RUNS


def compare_random(random: Random) -> int:
    """A layer, sometimes behind another so that they may be fused."""
    from oracle import ISAS
    from test_operators import OPERATORS, Draw

    draw = Draw(random)
    shape = (random.randint(1, 40), random.randint(1, 40), draw.channels())
    layers: list[graph.Layer] = [graph.Input(name="x0", shape=shape)]
    if random.random() < 0.5:
        layers.append(graph.Activation(name="x", inputs=("x0",), activation="relu6"))
    else:
        layers[0] = graph.Input(name="x", shape=shape)
    layer = OPERATORS[random.choice(list(OPERATORS))](draw, shape)
    if "x2" in layer.inputs:
        layers.append(graph.Input(name="x2", shape=shape))
    layers.append(layer)
    return compare(
        layers, random.choice(ISAS), random.choice(("automatic", "always")), random.choice((1, 2)), str(layer)
    )

"""NaN, infinities, -0 and denormals in each lane and tail: the same on every ISA; and what denormals cost.

The C++ tests hold each kernel against the oracle. Here whole layers are compared between ISAs: wherever one gives NaN,
an infinity or a zero of some sign, so do the others; layers that round nothing give the same bits.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from row import Settings, require

import sepconv
from sepconv import _core, graph
from sepconv.compile import compile_graph

TINY = np.float32(1e-40)
SPECIAL = [np.float32(value) for value in (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 3e38, -3e38, 1e-40, -1e-40)]
LIMIT = 1.2  # times, what a run on a tenth of denormals may take
SHORT_LIMIT = 2.0  # on a busy machine; without flushing it takes tens of times
SHARE = 0.1
BURSTS = 40


def layers_of(channels: int) -> dict[str, graph.Layer]:
    """Each operator, wide enough for a vector and a tail."""
    generator = np.random.default_rng(channels)

    def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return generator.standard_normal(shape, dtype=np.float32)

    named: dict[str, Any] = {"name": "y", "inputs": ("x",)}
    same = ((1, 1), (1, 1))
    c = channels
    return {
        "pointwise": graph.Conv2d(**named, weight=normal(1, 1, c, 19), bias=normal(19), activation="relu6"),
        "dense": graph.Conv2d(**named, weight=normal(3, 3, c, 5), padding=same, stride=(2, 2)),
        "depthwise": graph.DepthwiseConv2d(**named, weight=normal(3, 3, c, 1), padding=same, activation="relu"),
        "depthwise 5x5": graph.DepthwiseConv2d(
            **named, weight=normal(5, 5, c, 1), padding=((2, 2), (2, 2)), stride=(2, 2)
        ),
        "depthwise 2x4": graph.DepthwiseConv2d(**named, weight=normal(2, 4, c, 2), activation="relu6"),
        "fully connected": graph.FullyConnected(**named, weight=normal(15 * c, 7)),
        "average": graph.AveragePool2d(**named, kernel=(3, 2), stride=(1, 1), padding=same),
        "mean": graph.GlobalAveragePool(**named),
        "softmax": graph.Softmax(**named),
        **{
            name: graph.Activation(**named, activation=name)
            for name in ("hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu", "gelu_tanh")
        },
        # From here on nothing is rounded.
        "max": graph.MaxPool2d(**named, kernel=(3, 3), stride=(2, 1), padding=same),
        "relu": graph.Activation(**named, activation="relu"),
        "relu6": graph.Activation(**named, activation="relu6"),
        "pad": graph.Pad(**named, padding=same),
        "reshape": graph.Reshape(**named, shape=(1, 15, c)),
    }


EXACT = ("max", "relu", "relu6", "pad", "reshape")


def run(settings: Settings) -> str:
    from oracle import run as run_layers

    isas, compared = _core.supported_isas(), 0
    for channels in range(1, settings.count(20, 3 * 16 + 2)):
        x = np.random.default_rng(channels).standard_normal((len(SPECIAL) * channels, 3, 5, channels), dtype=np.float32)
        for image in range(len(x)):  # one special value each, in every lane, walking over the pixels
            x[image, image % 3, image // 3 % 5, image % channels] = SPECIAL[image // channels]
        for name, layer in layers_of(channels).items():
            layers = [graph.Input(name="x", shape=x.shape[1:]), layer]
            results = [run_layers(layers, [x], isa, threads=1 + channels % 3)["y"] for isa in isas]
            for isa, result in zip(isas[1:], results[1:], strict=True):
                where = f"{name} of {channels} channels: {isa} and {isas[0]} differ in "
                require(np.array_equal(np.isnan(result), np.isnan(results[0])), where + "NaN")
                infinite = np.isinf(result) | np.isinf(results[0])
                require(np.array_equal(result[infinite], results[0][infinite]), where + "an infinity")
                zero = (result == 0) & (results[0] == 0)
                signs = np.signbit(result[zero]) == np.signbit(results[0][zero])
                require(bool(signs.all()), where + "the sign of a zero")
                if name in EXACT:
                    number = ~np.isnan(result)
                    bits = result[number].tobytes() == results[0][number].tobytes()
                    require(bits, where + "bits, though nothing is rounded")
            compared += len(x)
    return f"{compared} images with a special value, the same on {', '.join(isas)}"


def denormals(settings: Settings) -> str:
    """MobileNet V1 with a tenth of the inputs, or of the weights, denormal; the full form alone on the machine."""
    plain = sepconv.models.mobilenet_v1_layers(0.5, resolution=128)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 128, 128, 3), dtype=np.float32)
    tiny_x = with_denormals(x, generator)
    tiny = [
        sepconv.graph.Conv2d(**{**vars(layer), "weight": with_denormals(np.asarray(layer.weight), generator)})
        if isinstance(layer, graph.Conv2d)
        else layer
        for layer in plain
    ]
    ratios = {}
    for isa in _core.supported_isas():
        plans = [_core.Plan(compile_graph(layers, graph.outputs(layers), isa), "automatic") for layers in (plain, tiny)]
        ratios[f"inputs, {isa}"] = ratio(lambda p=plans: p[0].run([tiny_x], 1), lambda p=plans: p[0].run([x], 1))
        ratios[f"weights, {isa}"] = ratio(lambda p=plans: p[1].run([x], 1), lambda p=plans: p[0].run([x], 1))
    worst = max(ratios, key=lambda name: ratios[name])
    limit = LIMIT if settings.full else SHORT_LIMIT
    require(ratios[worst] <= limit, f"a tenth of denormal {worst} costs {ratios[worst]:.2f} times")
    return f"a tenth of denormals costs at most {ratios[worst]:.3f} times ({worst})"


def with_denormals(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], generator: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.where(generator.random(values.shape) < SHARE, values * TINY, values).astype(np.float32)


def ratio(tried: object, plain: object) -> float:
    """Of the fastest bursts, taken in turn."""
    best = {"tried": float("inf"), "plain": float("inf")}
    for _ in range(BURSTS):
        for name, call in (("tried", tried), ("plain", plain)):
            assert callable(call)
            start = time.perf_counter()
            for _ in range(3):
                call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best["tried"] / best["plain"]

"""The tables of ``sepconv cost``: MobileNet V1 by width and resolution, beside the figures of its paper."""

from __future__ import annotations

from .models.efficientnet_lite import efficientnet_lite0_layers
from .models.mobilenet_v1 import Variant, mobilenet_v1_layers
from .models.mobilenet_v2 import mobilenet_v2_layers
from .network_cost import cost
from .table import format_table

ALPHAS = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS = (224, 192, 160, 128)

# The MobileNets paper's tables 4 to 7: alpha, resolution, variant, millions of multiply-adds and of parameters.
PAPER_NETWORKS: tuple[tuple[float, int, Variant, int, float], ...] = (
    (1.0, 224, "separable", 569, 4.2),
    (0.75, 224, "separable", 325, 2.6),
    (0.5, 224, "separable", 149, 1.3),
    (0.25, 224, "separable", 41, 0.5),
    (1.0, 192, "separable", 418, 4.2),
    (1.0, 160, "separable", 290, 4.2),
    (1.0, 128, "separable", 186, 4.2),
    (1.0, 224, "full", 4866, 29.3),
    (1.0, 224, "shallow", 307, 2.9),
)
# Its table 2: per cent of the multiply-adds and of the parameters of 1.0-224.
PAPER_SHARES = {
    "convolution 1x1": (94.86, 74.59),
    "depthwise 3x3": (3.06, 1.06),
    "convolution 3x3": (1.19, 0.02),
    "fully connected": (0.18, 24.33),
}
PAPER_NOTE = """\
Where they differ: 290 is our 290.68 cut off; 4866 is ours without the classifier (4867.29 - 1.02); 1.19 has its digits
exchanged, for with 1.91 the paper's shares add up to 100.01 % and with 1.19 to 99.29 %."""


def format_cost_tables() -> str:
    """The text of ``sepconv cost``: V1 by width and resolution, the paper's figures beside ours, other networks."""
    return "\n\n".join((_width_table(), _paper_table(), _share_table(), PAPER_NOTE, _other_table()))


def _width_table() -> str:
    rows = []
    for alpha in ALPHAS:
        costs = [cost(mobilenet_v1_layers(alpha, resolution)) for resolution in RESOLUTIONS]
        rows.append((alpha, *(_millions(c.macs, 1) for c in costs), _millions(costs[0].params)))
    headers = ["alpha", *(f"rho {n / RESOLUTIONS[0]:.3f} ({n})" for n in RESOLUTIONS), "parameters (M)"]
    return "MobileNet V1: multiply-adds (M) by width alpha and resolution rho\n" + format_table(headers, rows)


def _paper_table() -> str:
    rows = []
    for alpha, resolution, variant, paper_macs, paper_params in PAPER_NETWORKS:
        ours = cost(mobilenet_v1_layers(alpha, resolution, variant=variant))
        name = f"{alpha}-{resolution}" + ("" if variant == "separable" else f" {variant}")
        rows.append((name, _millions(ours.macs), paper_macs, _millions(ours.params), paper_params))
    headers = ("MobileNet V1", "multiply-adds (M)", "paper", "parameters (M)", "paper")
    return format_table(headers, rows, align="<")


def _share_table() -> str:
    rows = []
    for kind, share in cost(mobilenet_v1_layers()).by_type().items():
        paper_macs, paper_weights = PAPER_SHARES[kind]
        rows.append((kind, f"{share.macs:.2%}", paper_macs, f"{share.weights:.2%}", paper_weights))
    headers = ("share in 1.0-224", "multiply-adds", "paper", "weights", "paper")
    return format_table(headers, rows, align="<")


def _other_table() -> str:
    networks = {
        "MobileNet V2 1.0-224": cost(mobilenet_v2_layers()),
        "EfficientNet-Lite0 224": cost(efficientnet_lite0_layers()),
    }
    rows = [(name, _millions(ours.macs), _millions(ours.params)) for name, ours in networks.items()]
    return format_table(("network", "multiply-adds (M)", "parameters (M)"), rows, align="<")


def _millions(number: int, digits: int = 2) -> str:
    return f"{number / 1e6:.{digits}f}"

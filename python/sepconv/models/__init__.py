"""Networks as plain lists of layers, compiled: each builder gives a :class:`sepconv.Model`, ``*_layers`` the list."""

from __future__ import annotations

from sepconv.models.efficientnet_lite0 import efficientnet_lite0, efficientnet_lite0_layers
from sepconv.models.mobilenet_v1 import mobilenet_v1, mobilenet_v1_layers
from sepconv.models.mobilenet_v2 import mobilenet_v2, mobilenet_v2_layers
from sepconv.models.weights import named_weights

__all__ = [
    "efficientnet_lite0",
    "efficientnet_lite0_layers",
    "mobilenet_v1",
    "mobilenet_v1_layers",
    "mobilenet_v2",
    "mobilenet_v2_layers",
    "named_weights",
]

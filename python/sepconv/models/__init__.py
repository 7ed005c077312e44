"""Networks as plain lists of layers, compiled: each builder gives a :class:`sepconv.Model`, ``*_layers`` the list."""

from __future__ import annotations

from sepconv.models.detection import feature_pyramid, feature_pyramid_layers, ssdlite, ssdlite_layers
from sepconv.models.efficientnet_lite import (
    efficientnet_lite0,
    efficientnet_lite0_layers,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
    efficientnet_lite_layers,
)
from sepconv.models.hub import DownloadError, load_pretrained, pretrained_names
from sepconv.models.mnasnet import mnasnet, mnasnet_layers
from sepconv.models.mobilenet_v1 import mobilenet_v1, mobilenet_v1_layers
from sepconv.models.mobilenet_v2 import mobilenet_v2, mobilenet_v2_layers
from sepconv.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_layers, mobilenet_v3_small
from sepconv.models.mobilenet_v4 import mobilenet_v4_conv_layers, mobilenet_v4_conv_medium, mobilenet_v4_conv_small
from sepconv.models.shufflenet_v2 import shufflenet_v2, shufflenet_v2_layers
from sepconv.models.weights import named_weights

__all__ = [
    "DownloadError",
    "efficientnet_lite0",
    "efficientnet_lite0_layers",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "efficientnet_lite_layers",
    "feature_pyramid",
    "feature_pyramid_layers",
    "load_pretrained",
    "mnasnet",
    "mnasnet_layers",
    "mobilenet_v1",
    "mobilenet_v1_layers",
    "mobilenet_v2",
    "mobilenet_v2_layers",
    "mobilenet_v3_large",
    "mobilenet_v3_layers",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_layers",
    "mobilenet_v4_conv_medium",
    "mobilenet_v4_conv_small",
    "named_weights",
    "pretrained_names",
    "shufflenet_v2",
    "shufflenet_v2_layers",
    "ssdlite",
    "ssdlite_layers",
]

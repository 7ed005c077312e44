"""sepconv inside torch.

:func:`optimize` makes a trained module faster; ``torch.compile`` has the backend "sepconv". With gradients, for
training too: :func:`depthwise_conv2d`, :func:`pointwise_conv2d`, :func:`separable_conv2d`, and modules made of them,
:class:`DepthwiseConv2d`, :class:`PointwiseConv2d`, :class:`SeparableConv2d`, :class:`InvertedResidual`.
"""

from __future__ import annotations

from sepconv.extras import require

require("torch", package="torch", extra="torch", purpose="sepconv.torch")

from sepconv.torch.backend import backend  # noqa: E402
from sepconv.torch.functional import depthwise_conv2d, pointwise_conv2d, separable_conv2d  # noqa: E402
from sepconv.torch.modules import DepthwiseConv2d, InvertedResidual, PointwiseConv2d, SeparableConv2d  # noqa: E402
from sepconv.torch.optimize import Optimized, Report, optimize  # noqa: E402

__all__ = [
    "DepthwiseConv2d",
    "InvertedResidual",
    "Optimized",
    "PointwiseConv2d",
    "Report",
    "SeparableConv2d",
    "backend",
    "depthwise_conv2d",
    "optimize",
    "pointwise_conv2d",
    "separable_conv2d",
]

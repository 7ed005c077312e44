"""sepconv inside torch: :func:`optimize` for modules, the backend "sepconv" of ``torch.compile``."""

from __future__ import annotations

from sepconv.extras import require

require("torch", package="torch", extra="torch", purpose="sepconv.torch")

from sepconv.torch.backend import backend  # noqa: E402
from sepconv.torch.optimize import Optimized, Report, optimize  # noqa: E402

__all__ = ["Optimized", "Report", "backend", "optimize"]

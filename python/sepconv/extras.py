"""Optional dependencies: imported where they are needed, and named with their extra where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from sepconv.errors import SepconvError


class MissingExtraError(SepconvError, ImportError):
    """A package that one of sepconv's extras installs is not there, or cannot be imported."""


def missing(package: str, extra: str, purpose: str) -> MissingExtraError:
    """The error that says what is missing, for what, and the command that installs it."""
    return MissingExtraError(
        f"{purpose} needs the package {package}: install the extra {extra!r} (in a clone: pip install '.[{extra}]')"
    )


def require(module: str, *, package: str, extra: str, purpose: str) -> ModuleType:
    """Import ``module``; raise :class:`MissingExtraError` where ``package``, which holds it, does not give it."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a package raises that does not fit what it imports
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == module.split(".")[0]:
            raise missing(package, extra, purpose) from error
        why = f"{type(error).__name__}: {error}"
        raise MissingExtraError(f"{purpose} needs the package {package}, which cannot be imported: {why}") from error

"""The exceptions of sepconv that are not plain ``ValueError`` or ``TypeError``.

Bad arguments raise ``ValueError`` or ``TypeError``, paths that cannot be opened ``FileNotFoundError`` or
``IsADirectoryError``. The classes here are for what is wrong with a file's content or with what a model asks for.
"""

from __future__ import annotations

import sys


class SepconvError(Exception):
    """Base of every exception that sepconv defines."""


class MissingCoreError(SepconvError, ModuleNotFoundError):
    """The compiled part of sepconv is not there, or was built for another Python."""

    def __init__(self) -> None:
        super().__init__(
            f"sepconv's extension module is not built for this Python ({sys.implementation.cache_tag}): "
            "install sepconv with its pip (python -m pip install . in a clone)",
            name="sepconv._core",
        )


class ModelFormatError(SepconvError, ValueError):
    """A file is not what its format requires: truncated, inconsistent, or of another format."""


class UnsupportedError(SepconvError, NotImplementedError):
    """A well-formed model asks for something that sepconv does not implement: an operator, a type, an option."""

"""The version, stated once: pyproject.toml and CMake read this line."""

__version__ = "0.1.0"

"""A reader under atheris: ``python fuzz_guided.py TARGET [libFuzzer's options] CORPUS``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["sepconv.io"]):
    from fuzz_targets import TARGETS, refuses

if __name__ == "__main__":
    read = TARGETS[sys.argv[1]].read
    atheris.Setup(sys.argv[:1] + sys.argv[2:], lambda data: refuses(read, data) and None)
    atheris.Fuzz()

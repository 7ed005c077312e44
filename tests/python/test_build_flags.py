"""Flags that change results are refused by the build, and by the sources where another build compiles them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "flag",
    (
        "-Ofast", "-ffast-math", "-funsafe-math-optimizations", "-fassociative-math", "-ffinite-math-only",
        "-freciprocal-math", "-fno-signed-zeros", "-fno-honor-nans", "-fno-honor-infinities", "-fapprox-func",
        "-fsingle-precision-constant", "-ffp-model=fast", "-mrecip", "-mrecip=all", "-mdaz-ftz",
    ),
)  # fmt: skip
def test_cmake_refuses_what_changes_results(flag: str) -> None:
    assert f"sepconv: {flag.removesuffix('=all')} changes results" in cmake(f"-O2 {flag} -g")


def test_cmake_takes_the_rest() -> None:
    flags = "-O3 -march=native -fno-fast-math -fno-reciprocal-math -ffp-model=precise -fsigned-zeros -mno-recip"
    assert "changes results" not in cmake(flags)


def cmake(flags: str) -> str:
    """What it says to cmake/flags.cmake, read as a script, which ends at the first target."""
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    command = ["cmake", f"-DCMAKE_CXX_FLAGS={flags}", "-P", str(ROOT / "cmake" / "flags.cmake")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("flag", ("", "-ffast-math", "-ffinite-math-only"))
def test_the_sources_refuse_it_too(flag: str) -> None:
    compiler = next(filter(shutil.which, ("g++", "clang++")), None)
    if compiler is None:
        pytest.skip("needs g++ or clang++")
    header = ROOT / "csrc" / "base" / "tensor.h"
    command = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", *filter(None, [flag]), str(header)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (flag == ""), done.stderr
    assert ("change results" in done.stderr) == (flag != "")

"""The suites under sanitizers: the C++ tests whole, and the Python tests on an extension that is built with them.

A report ends the process that it happened in, so that a test fails. Nothing is suppressed. Leaks are looked for in the
C++ tests alone: an interpreter that ends leaves much behind by itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from row import HERE, ROOT, Settings, compiled, require, run

# Of the Python tests, what the short form runs: those that call the core most.
SHORT = ("test_graph.py", "test_model.py", "test_robustness.py", "test_tflite_cves.py", "test_threads.py")


def address(settings: Settings) -> str:
    """AddressSanitizer and UndefinedBehaviorSanitizer."""
    python = ("-DSEPCONV_BUILD_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}")
    options = ("-DSEPCONV_SANITIZE=address;undefined", "-DSEPCONV_BUILD_TESTS=ON", *python)
    tests = compiled(settings, "asan", "sepconv_tests", *options)
    cpp = passed_cpp(run([tests, "--gtest_brief=1"]))
    site = package(compiled(settings, "asan", "_core", *options).parent)
    names: list[str | Path] = [ROOT / "tests" / "python" / name for name in SHORT]
    selection: list[str | Path] = [] if settings.full else ["-m", "not slow", *names]
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ROOT,
        "-c",
        ROOT / "pyproject.toml",
    ]
    log = run(
        [*command, *(selection or [ROOT / "tests" / "python"])],
        environment={**preloaded("asan", site), "ASAN_OPTIONS": "detect_leaks=0"},
    )
    summary = re.findall(r"(\d+) passed", log)
    require(len(summary) == 1, f"no test passed:\n{log[-3000:]}")
    return f"{cpp} C++ tests and {summary[0]} Python tests, 0 reports"


def thread(settings: Settings) -> str:
    """ThreadSanitizer over the pool, plans, and models that many Python threads call."""
    python = ("-DSEPCONV_BUILD_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}")
    options = ("-DSEPCONV_SANITIZE=thread", "-DSEPCONV_BUILD_TESTS=ON", *python)
    tests = compiled(settings, "tsan", "sepconv_tests", *options)
    selection = (
        "*" if settings.full else "ThreadPool*:Progress*:ForkLock*:*PlanOnIsa.ManyThreads*:*PlanOnIsa.AnInterrupted*"
    )
    cpp = passed_cpp(run([tests, "--gtest_brief=1", f"--gtest_filter={selection}"]))
    site = package(compiled(settings, "tsan", "_core", *options).parent)
    calls = str(settings.count(20, 200))
    run([sys.executable, HERE / "crowd.py", "--threads", "16", "--calls", calls], environment=preloaded("tsan", site))
    return f"{cpp} C++ tests, and 16 Python threads of {calls} calls each, 0 reports"


def passed_cpp(log: str) -> int:
    passed = re.search(r"\[  PASSED  \] ([1-9]\d*) tests?\b", log)
    require(passed is not None, f"no test passed:\n{log[-3000:]}")
    return int(passed[1]) if passed else 0


def package(build: Path) -> Path:
    """A folder with the package and this build's extension."""
    site = build / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "sepconv", site / "sepconv", ignore=shutil.ignore_patterns("_core*.so"))
    (extension,) = build.glob("_core*.so")
    shutil.copy(extension, site / "sepconv")
    return site


def preloaded(sanitizer: str, site: Path) -> dict[str, str]:
    """Environment in which an ordinary Python loads the extension. libstdc++ too, whose exceptions are intercepted."""
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in (f"lib{sanitizer}.so", "libstdc++.so")
    ]
    return {"LD_PRELOAD": " ".join(libraries), "PYTHONPATH": str(site)}

"""What all tests share: where the real models and photographs are, and how hypothesis runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every run, and no deadline: machines that run tests are slow at times.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under AddressSanitizer, which keeps freed memory and reserves terabytes, memory cannot be measured."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        skip = pytest.mark.skip(reason="AddressSanitizer needs memory of its own")
        for item in items:
            if item.get_closest_marker("memory"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real models (models/), photographs (images/) and expected logits (golden/)."""
    named = os.environ.get("SEPCONV_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2].parent / "shared"
    if not (folder / "golden").is_dir():
        where = "SEPCONV_TEST_DATA" if named else "../shared"
        pytest.skip(f"no test data: {where} is {folder}, which has no folder golden/")
    return folder


@contextmanager
def _limited(resource: Any, what: int, size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


@pytest.fixture
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file may grow beyond so many bytes, as on a disk that fills up.

    No fixture around the whole test: pytest's own output may go to a file, which has more.
    """
    resource = pytest.importorskip("resource", reason="limits of files are POSIX's")
    return lambda size: _limited(resource, resource.RLIMIT_FSIZE, size)


@pytest.fixture
def memory_limit() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which the process may take so many bytes more than it has."""
    resource = pytest.importorskip("resource", reason="limits of memory are POSIX's")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("what the process has is told by Linux's /proc")

    def limited(more: int) -> AbstractContextManager[None]:
        used = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        return _limited(resource, resource.RLIMIT_AS, used + more)

    return limited


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """torch on one thread, or the reason to skip."""
    module = pytest.importorskip("torch", reason="torch is not installed")
    threads = module.get_num_threads()
    module.set_num_threads(1)  # for images this small, several only wait for each other
    yield module
    module.set_num_threads(threads)

"""Every example runs, as a program of its own, and finds what it says that it finds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
# Those that other tests run, with what they need.
ELSEWHERE = {"train_digits": "test_torch_modules.py", "rapidocr_on_sepconv": "test_onnx_session.py"}
PACKAGES = {"jax_callback": "jax", "dask_bag": "distributed"}


def output(name: str, *arguments: str) -> str:
    """What an example prints; skips where its package is absent."""
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}, which is not installed")
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")}
    here = set(re.findall(r'output\("(\w+)"', Path(__file__).read_text(encoding="utf-8")))
    for name, test in ELSEWHERE.items():
        assert f"{name}.py" in (Path(__file__).parent / test).read_text(encoding="utf-8")
    assert names == here | set(ELSEWHERE)


def test_tensorflow_layer() -> None:
    lines = output("tensorflow_layer").splitlines()
    far = re.fullmatch(r"\(4, 29, 28, 64\) float32, at most (\S+) from float64", lines[0])
    assert far is not None
    assert float(far[1]) < 1e-4
    assert lines[1:] == ["prepared weights give the same bits: True", "copied on the way: nothing"]


def test_jax_callback() -> None:
    far = dict(re.findall(r"^(.+?): (?:at most )?(\S+)", output("jax_callback"), re.MULTILINE))
    assert list(far) == ["jit", "jit of vmap", "scan", "vmap of the weights", "grad"]
    assert all(float(distance) < 1e-4 for distance in far.values()), far


def test_thread_pool() -> None:
    text = output("thread_pool", "--images", "21", "--batch", "4", "--workers", "3")
    assert text.splitlines() == ["21 images in batches of 4 on 3 threads", "the same as one by one: True"]


@pytest.mark.parametrize("start", ("fork", "spawn", "forkserver"))
def test_process_pool(start: str) -> None:
    lines = output("process_pool", "--start", start).splitlines()
    assert lines == [f"6 batches in 2 processes by {start}", "the same bits as here: True"]


def test_dask_bag() -> None:
    lines = output("dask_bag").splitlines()
    assert lines == ["24 images in 6 partitions", "the same classes as here: True"]

"""Importing: nothing heavy until it is used, and an instruction set that is the one asked for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from oracle import ISAS

import sepconv
from sepconv import _core

# What `import sepconv` may load besides the standard library's modules that Python has loaded itself.
HEAVY = ("numpy", "PIL", "matplotlib", "tflite", "flatbuffers", "torch", "sepconv._core", "sepconv.model", "sepconv.io")


def run(code: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SEPCONV_ISA"}
    if isa is not None:
        environment["SEPCONV_ISA"] = isa
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def modules_after(code: str) -> set[str]:
    result = run(f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))")
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


def test_import_loads_nothing_heavy() -> None:
    """It may cost 50 ms above numpy's import; it loads next to nothing, so this holds without a stopwatch."""
    loaded = modules_after("import sepconv; sepconv.__version__") - modules_after("import importlib, typing")
    assert [name for name in loaded if name.startswith(HEAVY)] == []
    assert {name for name in loaded if name.startswith("sepconv")} == {"sepconv", "sepconv._version"}
    assert len(loaded) < 20


@pytest.mark.parametrize(
    "code",
    (
        "import sepconv.graph",
        "import sepconv.io, sepconv.network_cost",
        "from sepconv.models import mobilenet_v1_layers",
    ),
)
def test_files_and_layer_lists_need_no_core(code: str) -> None:
    loaded = modules_after(code)
    assert "sepconv._core" not in loaded
    assert not loaded & {"PIL", "matplotlib", "tflite", "flatbuffers", "torch"}


def test_running_a_model_needs_no_extras() -> None:
    loaded = modules_after(
        "import numpy, sepconv; m = sepconv.models.mobilenet_v1(alpha=0.25, resolution=32, classes=3)\n"
        "m(numpy.ones((1, 32, 32, 3), numpy.float32)); repr(m); m.explain(); m.verify(numpy.ones((1, 32, 32, 3), 'f4'))"
    )
    assert "sepconv._core" in loaded
    assert not loaded & {"PIL", "matplotlib", "tflite", "flatbuffers", "torch", "scipy", "multiprocessing", "asyncio"}


def test_every_public_name_exists() -> None:
    assert sorted(sepconv.__all__) == sepconv.__all__
    assert set(dir(sepconv)) - set(sepconv.__all__) <= set(sepconv._SUBMODULES)
    for name in dir(sepconv):
        value = getattr(sepconv, name)
        assert isinstance(value, types.ModuleType) == (name in sepconv._SUBMODULES)
        methods = [m for key, m in vars(value).items() if key[0] != "_"] if isinstance(value, type) else []
        for documented in filter(callable, [value, *methods]):
            signature, *rest = (inspect.getdoc(documented) or "").splitlines()  # pybind11's first line is one
            assert rest or "->" not in signature, documented
    for module in ("sepconv.io", "sepconv.models"):
        names = importlib.import_module(module)
        assert all(getattr(names, name) is not None for name in names.__all__)
    with pytest.raises(AttributeError, match="module 'sepconv' has no attribute 'nothing'"):
        sepconv.nothing  # noqa: B018
    assert sepconv.__version__ == _core.__version__


def test_public_names_survive_the_import_of_every_module() -> None:
    """A module of the package with the name of a public object would take its place."""
    result = run(
        "import importlib, pkgutil, sys, types, sepconv\n"
        "for module in pkgutil.walk_packages(sepconv.__path__, 'sepconv.', onerror=lambda name: None):\n"
        "    try:\n"
        "        if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "    except ImportError: pass\n"  # of an optional package
        "for name, home in sepconv._HOMES.items():\n"
        "    right = getattr(importlib.import_module(home, 'sepconv'), name)\n"
        "    assert getattr(sepconv, name) is right and not isinstance(right, types.ModuleType), name\n"
        "for name in sepconv._SUBMODULES:\n"
        "    assert getattr(sepconv, name, None) is sys.modules.get(f'sepconv.{name}'), name\n"
        "print(sepconv.cost(sepconv.models.mobilenet_v1(0.25, 32, 10).layers).macs)"
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0


@pytest.mark.parametrize("hidden", ("", "sys.modules['torch'] = None\n"))
def test_what_looks_at_every_name(hidden: str) -> None:
    """Also without torch, and a star leaves the names of the caller's modules alone."""
    result = run(
        f"import inspect, io, pydoc, sys\nfrom unittest import mock\n{hidden}"
        "from sepconv import *\n"
        "import sepconv\n"
        "assert io.__name__ == 'io' and 'torch' not in globals()\n"
        "assert 'InferenceSession' in dict(inspect.getmembers(sepconv))\n"
        "assert 'pointwise_conv2d' in pydoc.render_doc(sepconv)\n"
        "mock.create_autospec(sepconv)\n"
        f"assert {not hidden} or not ('torch' in dir(sepconv) or hasattr(sepconv, 'torch'))\n"
        "try:\n"
        "    if 'torch' not in dir(sepconv): from sepconv import torch; raise AssertionError\n"
        "except sepconv.MissingExtraError as error: assert 'needs the package torch' in str(error)\n"
    )
    assert result.returncode == 0, result.stderr


def test_without_the_extension_module(tmp_path: Path) -> None:
    """The folder of its stubs is no module; what needs no core goes on."""
    shutil.copytree(Path(sepconv.__file__).parent, tmp_path / "sepconv", ignore=shutil.ignore_patterns("_core.*.so"))
    result = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport sepconv, sepconv.io, sepconv.models\n"
        f"assert sepconv.__file__.startswith({str(tmp_path)!r})\n"
        "for attempt in ('sepconv.isa()', 'from sepconv import _core', 'sepconv.models.mobilenet_v1()'):\n"
        "    try: exec(attempt)\n"
        "    except ImportError as error: assert sys.implementation.cache_tag in str(error), error\n"
        "    else: raise AssertionError(attempt)\n"
        "from sepconv.cli import main\n"
        "sys.exit(main(['info']))"
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.startswith("sepconv: sepconv's extension module is not built for this Python (")


# --- The instruction set


@pytest.mark.parametrize("isa", ISAS)
def test_a_forced_isa_is_the_one_that_runs(isa: str) -> None:
    result = run(
        "import numpy, sepconv; print(sepconv.isa())\n"
        "m = sepconv.models.mobilenet_v1(alpha=0.25, resolution=32, classes=3)\n"
        "m(numpy.ones((1, 32, 32, 3), numpy.float32)); print(m.explain())",
        isa,
    )
    assert result.returncode == 0, result.stderr
    first, *table = result.stdout.splitlines()
    assert first == isa
    kernels = {word.split("__")[1] for line in table for word in line.split() if "__" in word}
    assert kernels == {isa}


def test_unforced_the_best_isa_runs() -> None:
    for unforced in (None, ""):
        result = run("import sepconv; print(sepconv.isa(), *sepconv.supported_isas())", unforced)
        assert result.returncode == 0, result.stderr
        chosen, *supported = result.stdout.split()
        assert "scalar" in supported
        assert chosen == max(supported, key=["scalar", "neon", "avx2", "avx512"].index)
        assert supported == _core.supported_isas()


@pytest.mark.parametrize("isa", ("avx3", "AVX2", " avx2", "avx2,avx512", "sse", "\udcff"))
def test_an_unknown_isa_is_an_error_that_names_it(isa: str) -> None:
    result = run("import sepconv; sepconv.isa()", isa)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert isa.replace("\udcff", r"\xff") in message  # an octet that is no UTF-8
    assert "SEPCONV_ISA" in message
    assert all(name in message for name in _core.supported_isas())
    # Nothing else minds: reading files and layer lists need no core.
    assert run("import sepconv, sepconv.io, sepconv.network_cost", isa).returncode == 0


def test_a_graph_for_an_unknown_isa() -> None:
    with pytest.raises(ValueError, match="avx3"):
        _core.Graph("avx3")
    assert _core.isa() in _core.supported_isas()

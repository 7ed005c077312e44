"""Check a wheel: what it links to and exports, how it is hardened, its stubs, and that it is the same built again.

python tools/check_wheel.py WHEEL --build FOLDER --again SECOND_WHEEL --repaired FOLDER --stubs

--repaired needs auditwheel and patchelf, --stubs mypy and the wheel installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from check_objects import check_extension, symbols

ALLOWLIST = Path(__file__).parent / "stubtest_allowlist.txt"


def check_hardening(path: Path) -> Iterator[str]:
    """Yield the problems of an extension module: its own symbols, relocations, stack and checked functions."""
    yield from check_extension(path)
    imported = {name.split("@")[0] for name, kind in symbols(path, "-D", "--undefined-only") if kind in "Uw"}
    if "__stack_chk_fail" not in imported:
        yield f"{path.name}: is not compiled with -fstack-protector-strong"


def check_contents(wheel: Path) -> Iterator[str]:
    """Yield the problems of the extension modules in the wheel, and of its files' list."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        modules = [name for name in names if name.endswith(".so")]
        if len(modules) != 1:
            yield f"{wheel.name}: holds {len(modules)} shared objects ({', '.join(modules)}); must hold _core alone"
        for name in modules:
            yield from check_hardening(Path(archive.extract(name, folder)))
        for name in ("sepconv/py.typed", "sepconv/_core/__init__.pyi"):
            if name not in names:
                yield f"{wheel.name}: lacks {name}"


def check_flags(build: Path) -> Iterator[str]:
    """Yield the units that were compiled without checked functions; the module calls none where sizes are known."""
    units: list[dict[str, str]] = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    for unit in units:
        if "-D_FORTIFY_SOURCE=2" not in unit["command"]:
            yield f"{unit['file']}: is not compiled with -D_FORTIFY_SOURCE=2"


def check_again(wheel: Path, again: Path) -> Iterator[str]:
    """Yield what differs between two wheels that were built from the same sources."""
    if wheel.read_bytes() == again.read_bytes():
        return
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        if first.namelist() != second.namelist():
            yield f"{again.name}: built again, it holds other files, or in another order"
            return
        different = [name for name in first.namelist() if first.read(name) != second.read(name)]
        yield f"{again.name}: built again, it differs in {', '.join(different) or 'times or attributes of its files'}"


def repair(wheel: Path, folder: Path) -> Iterator[str]:
    """Write the wheel with its manylinux tag to the folder; yield why that was not possible."""
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(folder), str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    repaired = list(folder.glob("*manylinux*.whl"))
    if result.returncode != 0 or len(repaired) != 1:
        yield f"{wheel.name}: auditwheel refuses it: {result.stderr.strip()}"
        return
    with zipfile.ZipFile(repaired[0]) as archive:
        grafted = [name for name in archive.namelist() if ".libs/" in name]
    if grafted:
        yield f"{wheel.name}: needs {', '.join(grafted)} beside it; must need the system's C and C++ libraries alone"
    print(f"repaired: {repaired[0].name}")


def check_stubs() -> Iterator[str]:
    """Yield where the installed module and its stubs disagree."""
    command = [sys.executable, "-m", "mypy.stubtest", "sepconv._core", "--allowlist", str(ALLOWLIST)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        yield f"stubtest: {result.stdout.strip()}{result.stderr.strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--build", type=Path, help="the CMake folder where it was built")
    parser.add_argument("--again", type=Path, help="the same wheel, built a second time")
    parser.add_argument("--repaired", type=Path, help="the folder where auditwheel writes the manylinux wheel")
    parser.add_argument("--stubs", action="store_true", help="hold the installed extension against its stubs")
    arguments = parser.parse_args()
    problems = list(check_contents(arguments.wheel))
    if arguments.build:
        problems += check_flags(arguments.build)
    if arguments.again:
        problems += check_again(arguments.wheel, arguments.again)
    if arguments.repaired:
        problems += repair(arguments.wheel, arguments.repaired)
    if arguments.stubs:
        problems += check_stubs()
    print("\n".join(problems) or f"wheel: {arguments.wheel.name} is as it must be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Check what the compiler and linker made: the objects of csrc/isa/, the extension module, the wheel.

python tools/check_objects.py --objects build/dev --extension .../_core.*.so --wheel .../sepconv-*.whl
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WHEEL_LIMIT = 2_000_000  # bytes
# All that a kernel may call. In particular not fmaf: without FMA instructions it is a very slow library call.
ISA_MAY_CALL = {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail", "__stack_chk_guard", "memcpy", "memmove", "memset"}
SYMBOL = re.compile(r"^(?P<name>\S+) (?P<type>[A-Za-z])(?: |$)")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(path: Path, *options: str, prefix: str = "") -> list[tuple[str, str]]:
    """Return (mangled name, nm's letter) of each symbol."""
    lines = run(f"{prefix}nm", "--format=posix", *options, str(path)).splitlines()
    return [(match["name"], match["type"]) for match in map(SYMBOL.match, lines) if match]


def check_isa_object(path: Path, prefix: str = "") -> Iterator[str]:
    """Yield the problems of one object of csrc/isa/: it must keep its instructions to itself."""
    isa = path.name.split(".")[0]
    # A function or variable in namespace sepconv::<isa>, or local to one that is.
    own = re.compile(rf"_Z(?:GV|TV|TI|TS)?Z*N[KVRO]*7sepconv{len(isa)}{isa}(?=[0-9EICLS])")
    table = f"_ZN7sepconv{len(isa) + 6}{isa}_tableEv"
    for name, kind in symbols(path, prefix=prefix):
        if kind == "U":
            if name not in ISA_MAY_CALL:
                yield f"{path.name}: calls {name}; a kernel may call {', '.join(sorted(ISA_MAY_CALL))}"
        elif kind in "WwVvu" and not own.match(name):
            yield f"{path.name}: weak symbol {name} outside sepconv::{isa}; the linker may merge it into baseline code"
        elif kind.isupper() and name != table and not own.match(name):
            yield f"{path.name}: global symbol {name} is neither {isa}_table() nor in sepconv::{isa}"
    if table not in {name for name, _ in symbols(path, "--defined-only", prefix=prefix)}:
        yield f"{path.name}: does not define {isa}_table()"
    for section in re.findall(
        r"\s(\.(?:init_array|ctors|preinit_array)\S*)", run(f"{prefix}readelf", "-SW", str(path))
    ):
        yield f"{path.name}: section {section}: code that runs before the ISA is chosen"


def check_extension(path: Path) -> Iterator[str]:
    """Yield the problems of the extension module."""
    exported = {name for name, _ in symbols(path, "-D", "--defined-only")}
    if exported != {"PyInit__core"}:
        yield f"{path.name}: exports {', '.join(sorted(exported)) or 'nothing'}; must export PyInit__core alone"
    sections = run("readelf", "-SW", str(path))
    for section in (".symtab", ".debug_info"):
        if f" {section} " in sections:
            yield f"{path.name}: has {section}; must be stripped"
    dynamic = run("readelf", "-dW", str(path))
    if "BIND_NOW" not in dynamic and not re.search(r"FLAGS_1.*\bNOW\b", dynamic):
        yield f"{path.name}: is not linked with -z now"
    for tag in ("RPATH", "RUNPATH", "TEXTREL"):
        if f"({tag})" in dynamic:
            yield f"{path.name}: has {tag}"
    segments = run("readelf", "-lW", str(path))
    if "GNU_RELRO" not in segments:
        yield f"{path.name}: is not linked with -z relro"
    if re.search(r"GNU_STACK.* RWE ", segments):
        yield f"{path.name}: has an executable stack"


def check_wheel(path: Path) -> Iterator[str]:
    """Yield the problems of the wheel."""
    size = path.stat().st_size
    print(f"wheel: {path.name}, {size:,} bytes")
    if size >= WHEEL_LIMIT:
        yield f"{path.name}: {size:,} bytes; must be under {WHEEL_LIMIT:,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True, help="the CMake build folder")
    parser.add_argument("--extension", type=Path)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--prefix", default="", help="of binutils, such as aarch64-linux-gnu-")
    arguments = parser.parse_args()

    objects = sorted(arguments.objects.glob("CMakeFiles/sepconv_core.dir/csrc/isa/*.o"))
    if not objects:
        parser.error(f"--objects {arguments.objects} holds no object of csrc/isa/; must be a CMake build folder")
    problems = [problem for path in objects for problem in check_isa_object(path, arguments.prefix)]
    if arguments.extension:
        problems += check_extension(arguments.extension)
    if arguments.wheel:
        problems += check_wheel(arguments.wheel)
    print("\n".join(problems) or f"objects: {', '.join(path.name for path in objects)} keep to themselves")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

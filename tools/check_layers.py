"""Check who includes whom in csrc/ and who imports whom in python/sepconv (docs/tour.md shows the layers)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a folder of csrc/ may include besides its own files: folders, or single files of them.
TABLE = "kernels/table.h"
CPP_LAYERS: dict[str, set[str]] = {
    "base": set(),
    "cpu": {"base", TABLE},
    "simd": {"base"},
    "kernels": {"base", "simd"},
    "isa": {"base", "simd", "kernels"},
    "pack": {"base", TABLE},
    "runtime": {"base", "cpu/topology.h"},
    "ops": {"base", "cpu", TABLE, "pack", "runtime"},
    "grad": {"base", TABLE, "runtime"},
    "graph": {"base", "cpu", TABLE, "pack", "runtime", "ops"},
    "nd": {"base", TABLE, "pack", "runtime", "ops/gemm_panels.h"},
    "eager": {"base", TABLE, "pack", "runtime"}
    | {f"ops/{name}.h" for name in ("conv_strip", "gemm_blocks", "gemm_panels", "row_op")},
    "ref": {"base"},
    "bind": {"base", "cpu", "grad", "runtime", "ops", "graph", "nd", "eager", "ref"},
}

# Standard headers for code that is compiled once an ISA: whatever else of std:: got in could be merged with the
# copies of other units by the linker.
ISA_FOLDERS = {"simd", "kernels", "isa"}
ISA_STANDARD_HEADERS = {"cfloat", "cmath", "cstddef", "cstdint", "cstring", "limits"}
# Intrinsics are simd's; base has the floating-point control word, runtime the pause, cpu the feature bits.
INTRINSICS = {"immintrin.h", "xmmintrin.h", "pmmintrin.h", "emmintrin.h", "x86intrin.h", "cpuid.h", "arm_neon.h"}
INTRINSICS_FOLDERS = {"base", "cpu", "runtime", "simd"}

# Python modules from the lowest layer to the highest: each imports lower ones (and the rest of its own package).
PYTHON_LAYERS: list[set[str]] = [
    {"_core", "_version", "errors", "mapping", "table"},
    {"paths"},
    {"extras", "graph"},
    {"conventions", "layer_lists", "lowering", "threads"},
    {"compile", "images", "network_cost", "ops", "plot"},
    {"export", "verify"},
    {"model"},
    {"onnx"},
    {"io"},
    {"models"},
    {"__init__"},
    {"bench", "cost_tables", "torch"},
    {"cli"},
    {"__main__"},
]
PYTHON_RANK = {module: rank for rank, modules in enumerate(PYTHON_LAYERS) for module in modules}
CORE_USERS = {"compile", "model", "onnx", "ops", "threads", "torch", "verify"}  # at import time
PYTHON_DEPENDENCIES = {"numpy", "sepconv"}  # besides the standard library, at import time
OWN_DEPENDENCIES = {"torch": {"torch"}}  # and of these modules, which nothing else imports


def check_cpp(root: Path) -> Iterator[str]:
    """Yield one line for each include in root/csrc that the layers do not allow."""
    csrc = root / "csrc"
    for path in sorted(p for p in csrc.rglob("*") if p.suffix in {".h", ".cpp"}):
        folder = path.relative_to(csrc).parts[0]
        if folder not in CPP_LAYERS:
            yield f"{path.relative_to(root)}: folder {folder!r} is not a layer; add it to {Path(__file__).name}"
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if match:
                problem = _include_problem(csrc, folder, match[2], system=match[1] == "<")
                if problem:
                    yield f"{path.relative_to(root)}:{number}: {problem}"


def _include_problem(csrc: Path, folder: str, header: str, *, system: bool) -> str | None:
    if system:
        if header in INTRINSICS:
            return None if folder in INTRINSICS_FOLDERS else f"<{header}>: intrinsics belong to simd/"
        if folder in ISA_FOLDERS and header not in ISA_STANDARD_HEADERS:
            return f"<{header}>: code compiled once an ISA includes {', '.join(sorted(ISA_STANDARD_HEADERS))} only"
        return None
    if not (csrc / header).is_file():
        return f'"{header}" must be written relative to csrc/'
    target = header.split("/")[0]
    if target == folder or target in CPP_LAYERS[folder] or header in CPP_LAYERS[folder]:
        return None
    return f'"{header}": {folder}/ may include {", ".join(sorted(CPP_LAYERS[folder])) or "no other folder"}'


def check_python(root: Path) -> Iterator[str]:
    """Yield one line for each import in root/python/sepconv that the layers do not allow."""
    package = root / "python" / "sepconv"
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(root)
        module = path.relative_to(package).parts[0].removesuffix(".py")
        if module not in PYTHON_RANK:
            yield f"{where}: module {module!r} is not in a layer; add it to {Path(__file__).name}"
            continue
        parents = ["sepconv", *path.relative_to(package).parent.parts]
        for node, at_import in _imports(ast.parse(path.read_text(encoding="utf-8")), at_import=True):
            for name in _imported(node, parents):
                problem = _import_problem(module, name, at_import=at_import)
                if problem:
                    yield f"{where}:{node.lineno}: {problem}"


def _imports(node: ast.AST, *, at_import: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield every import under node, and whether it runs when the module is imported; not those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_import
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, at_import=at_import and not inside)


def _imported(node: ast.Import | ast.ImportFrom, parents: list[str]) -> list[str]:
    """Return the full dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = parents[: len(parents) - node.level + 1] if node.level else []
    origin = ".".join([*base, *([node.module] if node.module else [])])
    if origin == "sepconv":
        return [f"sepconv.{alias.name}" for alias in node.names]
    return [origin]


def _import_problem(module: str, name: str, *, at_import: bool) -> str | None:
    top, _, rest = name.partition(".")
    if top != "sepconv":
        known = PYTHON_DEPENDENCIES | OWN_DEPENDENCIES.get(module, set())
        if at_import and top not in sys.stdlib_module_names and top not in known:
            return f"{top} is optional: import it in the function that uses it"
        return None
    target = rest.split(".")[0]
    if target == module:
        return None
    rank = PYTHON_RANK.get(target, PYTHON_RANK["__init__"])  # `from sepconv import load` reads __init__
    if rank >= PYTHON_RANK[module]:
        return f"{module} must not import {name}, which stands above or beside it"
    if target == "_core" and at_import and module not in CORE_USERS:
        return "_core is imported lazily, so that descriptions of networks work without it"
    return None


def main() -> int:
    problems = [*check_cpp(ROOT), *check_python(ROOT)]
    print("\n".join(problems) or "layers: every include and import goes downwards")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Count the instructions in the inner loops of the GEMM and depthwise kernels: how many of them multiply and add.

python tools/instruction_table.py --objects build/aarch64 --prefix aarch64-linux-gnu- --write docs/add-an-isa.md

Prints a Markdown table of the objects of csrc/isa/, read from their disassembly. It fails where a kernel of `FLOORS`
has less than its share of multiply-adds, or its loop touches the stack.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LANES = {"avx2": 8, "avx512": 16, "neon": 4}
MULTIPLY_ADD = re.compile(r"fmla$|vfn?m(add|sub)\d+ps$")
JUMP = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z|j\w+)$")
LEAVES = {"b", "jmp", "ret"}
STACK = re.compile(r"\[sp\b|\(%[re][sb]p\b")
BEGIN, END = "<!-- table: instructions -->", "<!-- end -->"

# Share of multiply-adds in percent, by ISA and kernel. The narrow tiles serve up to V channels that are left over.
FLOORS = {
    "neon": {
        "gemm_f32_11x8": 80.0,
        "gemm_f32_20x4": 80.0,
        "gemm_strided_f32_11x8": 80.0,
        "gemm_strided_f32_20x4": 80.0,
        "gemm_image_f32_11x8": 80.0,
        "gemm_image_f32_20x4": 80.0,
        "depthwise_3x3_s1_f32": 55.0,
        "depthwise_3x3_s2_f32": 55.0,
        "depthwise_5x5_s1_f32": 55.0,
        "depthwise_5x5_s2_f32": 55.0,
        "depthwise_7x7_s1_f32": 55.0,
        "depthwise_7x7_s2_f32": 55.0,
        "depthwise_pixels_3x3_s1_f32": 43.0,
        "depthwise_pixels_3x3_s2_f32": 34.0,
        "depthwise_pixels_5x5_s1_f32": 51.0,
        "depthwise_pixels_5x5_s2_f32": 48.0,
        "depthwise_pixels_7x7_s1_f32": 60.0,
        "depthwise_pixels_7x7_s2_f32": 60.0,
    }
}


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    def jumps_to(self) -> int | None:
        """The target of a direct jump."""
        match = re.search(r"\b([0-9a-f]+) <", self.operands)
        return int(match[1], 16) if match and JUMP.match(self.name) else None


@dataclass(frozen=True)
class Loop:
    """An innermost loop, all in one piece: from a backward jump's target to the jump."""

    multiply_adds: int
    instructions: int
    stack_accesses: int

    def share(self) -> float:
        """Percent of the instructions that multiply and add."""
        return 100 * self.multiply_adds / self.instructions


def kernel_name(function: str, isa: str) -> str | None:
    """Return the table's name for a demangled function; None for those that are not shown."""
    if match := re.search(r"::gemm_tile<(\d+), (\d+), (\d+)>", function):
        rows = {0: "strided_", LANES[isa]: ""}.get(int(match[3]), "image_")
        return f"gemm_{rows}f32_{match[1]}x{int(match[2]) * LANES[isa]}"
    if match := re.search(r"::(depthwise|depthwise_pixels)<(\d+), (\d+)>", function):
        return f"{match[1]}_{match[2]}x{match[2]}_s{match[3]}_f32"
    return None


def functions(path: Path, prefix: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Yield (demangled name, instructions) of every function of an object."""
    command = [f"{prefix}objdump", "--disassemble", "--no-show-raw-insn", "--demangle", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for block in re.split(r"\n\n", text):
        head = re.match(r"(?:Disassembly .*\n\n?)?\s*[0-9a-f]+ <(.*)>:\n", block)
        if head:
            lines = re.findall(r"^\s+([0-9a-f]+):\s+(\S+)[ \t]*(.*)$", block, re.MULTILINE)
            yield head[1], [Instruction(int(address, 16), name, rest) for address, name, rest in lines]


def inner_loops(body: list[Instruction]) -> list[Loop]:
    """Return the innermost loops with the most multiply-adds, the one with the highest share first."""
    own = {i.address for i in body}
    spans = {(to, i.address) for i in body if (to := i.jumps_to()) is not None and to <= i.address and to in own}
    loops = []
    for low, high in spans:
        if any((a, b) != (low, high) and low <= a and b <= high for a, b in spans):
            continue
        inside = [i for i in body if low <= i.address <= high]
        if any(i.name in LEAVES for i in inside[:-1]):
            continue
        multiply_adds = sum(bool(MULTIPLY_ADD.match(i.name)) for i in inside)
        loops.append(Loop(multiply_adds, len(inside), sum(bool(STACK.search(i.operands)) for i in inside)))
    most = max((loop.multiply_adds for loop in loops), default=0)
    return sorted((loop for loop in loops if loop.multiply_adds == most > 0), key=Loop.share, reverse=True)


def widest(names: set[str]) -> set[str]:
    """Leave out the GEMM tiles that have fewer rows than another of the same width."""
    rows: dict[tuple[str, str], int] = {}
    for name in names:
        if match := re.match(r"(gemm_\w*f32_)(\d+)(x\d+)$", name):
            key = match[1], match[3]
            rows[key] = max(rows.get(key, 0), int(match[2]))
    return {name for name in names if not name.startswith("gemm")} | {f"{a}{n}{b}" for (a, b), n in rows.items()}


def measure(path: Path, prefix: str) -> dict[str, list[Loop]]:
    """Return the inner loops of each kernel of an object, the highest tiles alone."""
    isa = path.name.split(".")[0]
    found = {name: inner_loops(body) for f, body in functions(path, prefix) if (name := kernel_name(f, isa))}
    shown = widest(set(found))
    return {name: found[name] for name in sorted(shown) if found[name]}


def report(isa: str, kernels: dict[str, list[Loop]]) -> tuple[list[str], list[str]]:
    """Return the table's rows and the problems of one ISA."""
    rows, problems = [], []
    for name, loops in kernels.items():
        # Of a GEMM the slowest form of the loop counts: with the way to the next plane. Of a depthwise row, that of the
        # tiles whose columns all lie inside.
        loop = loops[-1] if name.startswith("gemm") else loops[0]
        floor = FLOORS.get(isa, {}).get(name)
        rows.append(
            f"| `{name}__{isa}` | {loop.multiply_adds} | {loop.instructions} | {loop.share():.1f} % "
            f"| {f'{floor:.0f} %' if floor else '–'} | {loop.stack_accesses} |"
        )
        if floor and loop.share() < floor:
            problems.append(f"{name}__{isa}: {loop.share():.1f} % multiply-adds; must be at least {floor} %")
        if floor and loop.stack_accesses:
            problems.append(f"{name}__{isa}: {loop.stack_accesses} stack accesses in the inner loop; must be none")
    problems += [f"{name}__{isa}: no loop found" for name in FLOORS.get(isa, {}) if name not in kernels]
    return rows, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True, help="the CMake build folder")
    parser.add_argument("--prefix", default="", help="of binutils, such as aarch64-linux-gnu-")
    parser.add_argument("--write", type=Path, help=f"a document whose table between {BEGIN} and {END} is replaced")
    arguments = parser.parse_args()

    paths = sorted(arguments.objects.glob("CMakeFiles/sepconv_core.dir/csrc/isa/*.o"))
    paths = [path for path in paths if path.name.split(".")[0] in LANES]
    if not paths:
        parser.error(f"--objects {arguments.objects} holds no object of csrc/isa/ with multiply-adds")
    rows = [
        "| kernel | multiply-adds | instructions | share | at least | stack accesses |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    problems = []
    for path in paths:
        more_rows, more_problems = report(path.name.split(".")[0], measure(path, arguments.prefix))
        rows += more_rows
        problems += more_problems
    print("\n".join(rows + problems))
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END, 1)[1]
        arguments.write.write_text(f"{before}{BEGIN}\n{chr(10).join(rows)}\n{END}{after}", encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write the measured tables of BENCHMARKS.md and README.md anew, from the JSON files in bench/results/.

    python tools/update_benchmarks.py             the tables, from the files that are there
    python tools/update_benchmarks.py --measure   measure first: some ten minutes that nothing else should use
    python tools/update_benchmarks.py --measure networks sweep    only these
    python tools/update_benchmarks.py --check     fail where a document is not what the files say

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; the text around it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepconv.bench import operators, report, sweep

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENTS = ("BENCHMARKS.md", "README.md")
BLOCK = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL)

Document = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A measurement: the arguments of ``sepconv``, how its JSON becomes Markdown, and the picture it draws, if any."""

    arguments: str
    render: Callable[[Document], str]
    plot: str | None = None

    def command(self) -> list[str]:
        return ["sepconv", *self.arguments.split(), *(["--plot", self.plot] if self.plot else [])]


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column aligned left."""
    lines = ["| " + " | ".join(headers) + " |", "|" + "|".join(["---", *["--:"] * (len(headers) - 1)]) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def render_comparisons(document: Document) -> str:
    parts = []
    for result in document["results"]:
        notes = [f"- {line}" for line in (*report.summaries(result), *report.notes(result))]
        parts.append(f"**{report.title(result)}**\n\n{table(report.headers(result), report.rows(result))}\n")
        parts += ["\n".join(notes) + "\n"] if notes else []
    return "\n".join([*parts, conditions(document)])


def render_sweep(document: Document) -> str:
    rows = []
    for result in document["results"]:
        own = result["contenders"][0]
        rows.append(
            [
                result["network"],
                f"{result['macs'] / 1e6:.1f}",
                f"{own['milliseconds']['p25']:.3f}",
                f"{own['share_of_peak']:.1%}",
            ]
        )
    fitted = "\n".join(f"- {line}" for line in sweep.sentences(document["sweep"]))
    return "\n".join(
        [table(("network", "M multiply-adds", "p25 ms", "of peak"), rows), "", fitted, "", conditions(document)]
    )


def render_profile(document: Document) -> str:
    peak = document["peaks"]["flops"][document["isa"]] / 1e9
    rows = [
        [
            ", ".join(step["layers"]) if len(step["layers"]) < 3 else f"{step['layers'][0]} … {step['layers'][-1]}",
            f"{step['milliseconds']:.4f}",
            f"{step['milliseconds'] / document['milliseconds']:.1%}",
            f"{step['macs'] / 1e6:.2f}",
            f"{step['gflops']:.1f}",
            f"{step['gflops'] / peak:.1%}",
            f"{step['milliseconds'] - 2e-6 * step['macs'] / peak:.4f}",
            step["bound"],
        ]
        for step in document["steps"]
    ]
    macs = sum(step["macs"] for step in document["steps"])
    lost = document["milliseconds"] - 2e-6 * macs / peak
    share = 2e-6 * macs / document["milliseconds"] / peak
    rows.append(
        ["**total**", f"{document['milliseconds']:.4f}", "", f"{macs / 1e6:.2f}", "", f"{share:.1%}", f"{lost:.4f}", ""]
    )
    headers = ("layers of a step", "ms", "of all", "M MACs", "GFLOP/s", "of peak", "ms above the peak's", "bound")
    return f"{table(headers, rows)}\n\n{conditions(document)}"


def render_peaks(document: Document) -> str:
    measured = document["peaks"]
    threads = ["1 thread" if each["threads"] == 1 else f"{each['threads']} threads" for each in measured]
    rows = [[f"FMA {isa}, GFLOP/s", *(f"{p['gflops'][isa]:.1f}" for p in measured)] for isa in measured[0]["gflops"]]
    bandwidth = "gigabytes_a_second"
    rows += [
        [f"read {level}, GB/s", *(f"{p[bandwidth][level]:.1f}" for p in measured)] for level in measured[0][bandwidth]
    ]
    return f"{table(('', *threads), rows)}\n\n{conditions(document)}"


def render_summary(document: Document) -> str:
    """A row a network and number of threads: sepconv, the fastest peer, and the ratio of the two."""
    rows = []
    for result in document["results"]:
        timed = [row for row in result["contenders"] if "milliseconds" in row]
        own = timed[0]
        peers = [row for row in timed[1:] if row["kind"] not in report.OWN]
        if not peers:
            continue
        fastest = min(peers, key=lambda row: float(row["milliseconds"]["p25"]))
        ratio = fastest["ratio"]
        rows.append(
            [
                result["network"],
                str(result["threads"]),
                f"**{own['milliseconds']['p25']:.3f}**",
                f"{fastest['milliseconds']['p25']:.3f} ({fastest['name']})",
                f"**{ratio['value']:.2f}×**{report.interval(ratio)}",
                f"{own['share_of_peak']:.1%}",
            ]
        )
    headers = ("network", "threads", "sepconv, ms", "fastest peer, ms", "ratio", "of the FMA peak")
    return f"{table(headers, rows)}\n\n{conditions(document)}"


def render_operators(document: Document) -> str:
    """A row an operator: microseconds on every contender."""
    counts = "\n".join(f"- {line}" for line in operators.sentences(document["results"]))
    rows = [[f"**{cell}**" if "loses" in cell else cell for cell in row] for row in operators.rows(document["results"])]
    return f"{table(operators.HEADERS, rows)}\n\n{counts}\n\n{conditions(document)}"


def conditions(document: Document) -> str:
    """Where and when, in small print."""
    machine, load = document["machine"], document["load_average"]
    before = load["before"] if isinstance(load, dict) else load
    parts = [f"{machine['processor']}, {machine['cores']} cores", document["date"]]
    if before:
        parts.append(f"load average {before[0]:.2f}")
    if "versions" in document:
        parts.append(", ".join(f"{name} {version}" for name, version in document["versions"].items()))
    return f"<sub>{'; '.join(parts)}.</sub>"


RUNS = {
    "networks": Run("bench --threads 1,2", render_comparisons, "docs/bench.svg"),
    "family": Run(
        "bench mobilenet_v3_large_1.0_224 mobilenet_v3_small_1.0_224 efficientnet_lite4 --threads 1,2 --rounds 12 "
        "--contenders onnxruntime,openvino,litert,ncnn",
        render_comparisons,
    ),
    "batch": Run("bench mobilenet_v1_1.0_224 --batch 8 --threads 1,2 --rounds 20 --burst 150", render_comparisons),
    # These two on a machine without AVX-512, where every peer is held to AVX2.
    "avx2": Run(
        "bench --isa avx2 --threads 1,2 --contenders onnxruntime,openvino,litert,torch,ncnn", render_comparisons
    ),
    "avx2-profile": Run("profile mobilenet_v1_1.0_224", render_profile),
    "start": Run(
        "bench mobilenet_v1_1.0_224 mobilenet_v2_1.0_224 --startup --memory --rounds 4 --contenders "
        "onnxruntime,openvino,litert,torch,ncnn",
        render_comparisons,
    ),
    "cold": Run("bench mobilenet_v1_1.0_224 mobilenet_v2_1.0_224 --cold --rounds 8", render_comparisons),
    "sweep": Run("bench --sweep", render_sweep, "docs/sweep.svg"),
    "depthwise": Run("bench --op depthwise --shape 14,14,512", render_comparisons),
    "pointwise": Run("bench --op pointwise --shape 14,14,512", render_comparisons),
    "separable": Run("bench --op separable --shape 112,112,32,64 --activation relu6", render_comparisons),
    "operators": Run("bench --op-table --threads 1 --rounds 24 --burst 10", render_operators),
    "operators-2": Run("bench --op-table --threads 2 --rounds 24 --burst 10", render_operators),
    "profile-v1": Run("profile mobilenet_v1_1.0_224", render_profile, "docs/roofline.svg"),
    "profile-v1-layers": Run("profile mobilenet_v1_1.0_224 --unfused", render_profile),
    "profile-v2": Run("profile mobilenet_v2_1.0_224", render_profile),
    "profile-lite0": Run("profile efficientnet_lite0", render_profile),
    "peaks": Run("peaks --threads 1,2", render_peaks),
}
# Tables that show another run's results in another way.
VIEWS: dict[str, tuple[str, Callable[[Document], str]]] = {
    "summary": ("networks", render_summary),
    "family-summary": ("family", render_summary),
    "avx2-summary": ("avx2", render_summary),
}


def measure(name: str) -> None:
    run = RUNS[name]
    print("$", *run.command(), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", *run.command(), "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(json.loads(done.stdout), indent=1) + "\n", encoding="utf-8")


def rendered(name: str) -> str | None:
    """The text of a table with the command above it; None where it was never measured. KeyError for an unknown name."""
    source, render = VIEWS[name] if name in VIEWS else (name, RUNS[name].render)
    path = RESULTS / f"{source}.json"
    if not path.is_file():
        return None
    text = render(json.loads(path.read_text(encoding="utf-8")))
    picture = RUNS[source].plot if name in RUNS else None
    drawn = f"![{name}]({picture})\n\n" if picture is not None and (ROOT / picture).is_file() else ""
    return f"`{' '.join(RUNS[source].command())}`\n\n{drawn}{text}\n"


def updated(content: str) -> str:
    """A document with its tables written anew; those that were never measured stay as they are."""

    def replace(block: re.Match[str]) -> str:
        new = rendered(block["name"])
        return block[0] if new is None else f"{block[1]}{new}{block[4]}"

    return BLOCK.sub(replace, content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(RUNS)}")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    names = list(RUNS) if arguments.measure == [] else arguments.measure or []
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        parser.error(f"--measure has {', '.join(unknown)}, must be of {', '.join(RUNS)}")
    for name in names:
        measure(name)
    stale = []
    for document in DOCUMENTS:
        path = ROOT / document
        old = path.read_text(encoding="utf-8")
        new = updated(old)
        if new == old:
            continue
        stale.append(document)
        if not arguments.check:
            path.write_text(new, encoding="utf-8")
    verb = "is not what bench/results/ says" if arguments.check else "written"
    print("\n".join(f"{document}: {verb}" for document in stale) or "every table is up to date")
    return int(bool(stale) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())

"""Comparisons as a document for ``--json``, and that document as rows of a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sepconv.bench import machine
from sepconv.bench.contenders import Contender
from sepconv.bench.method import Comparison, Measured
from sepconv.bench.statistics import ratio, summarise, typical_rate
from sepconv.table import format_batch, format_threads

Document = dict[str, Any]
Result = dict[str, Any]
SCHEMA = 1


def document(
    comparisons: Sequence[Comparison],
    command: Sequence[str],
    isa: str,
    load_before: tuple[float, float, float] | None,
) -> Document:
    """All that a reader needs to judge the numbers. ``isa``: what runs where a contender is not held to one."""
    kinds = list(dict.fromkeys(entry.contender.kind for c in comparisons for entry in c.contenders))
    return {
        "schema": SCHEMA,
        "command": " ".join(command),
        "date": machine.now(),
        "machine": machine.describe(),
        "versions": machine.versions(kinds),
        "isa": isa,
        "load_average": {"before": load_before, "after": machine.load_average()},
        "results": [_result(comparison) for comparison in comparisons],
    }


def _result(comparison: Comparison) -> Result:
    settings = comparison.settings
    flops = 2 * comparison.network.macs * settings.batch
    peaks = {name: typical_rate(rates) for name, rates in comparison.rates.items()}
    by_contender = {entry.contender: entry for entry in comparison.contenders}
    rows = []
    for entry in comparison.contenders:
        reference = by_contender.get(Contender("sepconv", entry.contender.isa), comparison.contenders[0])
        rows.append(_row(entry, reference, flops, peaks[entry.peak_isa]))
    return {
        "network": comparison.network.name,
        "macs": comparison.network.macs,
        **{key: getattr(settings, key) for key in ("batch", "threads", "cold", "rounds", "burst")},
        "peak_gflops": {name: rate / 1e9 for name, rate in peaks.items()},
        "seconds": round(comparison.seconds, 1),
        "contenders": rows,
    }


def _row(entry: Measured, reference: Measured, flops: int, peak: float) -> Result:
    row: Result = {"name": entry.contender.name, "kind": entry.contender.kind, "isa": entry.isa or entry.contender.isa}
    if entry.startup:
        row["startup_ms"] = 1e3 * min(entry.startup)
        row["import_ms"] = 1e3 * min(entry.imports)
    if entry.memory is not None:
        row["memory_mb"] = entry.memory / 1e6
    if entry.error is not None and math.isfinite(entry.error):  # JSON has no infinity; ``excluded`` tells of it
        row["max_relative_error"] = entry.error
    if entry.excluded is not None:
        return {**row, "excluded": entry.excluded}
    if not reference.bursts:
        return {**row, "excluded": f"{reference.contender.name}, which it is compared with, was not timed"}
    times = summarise(entry.bursts)
    rate = flops / (1e-3 * times.p25)
    return {
        **row,
        "milliseconds": dataclasses.asdict(times),
        "gflops": rate / 1e9,
        "share_of_peak": rate / peak,
        "ratio": dataclasses.asdict(ratio(entry.bursts, reference.bursts)),
    }


LABELS = {"sepconv_packing": "sepconv, packing included", "torch_contiguous": "torch, contiguous"}
OWN = ("sepconv", "sepconv_packing", "oracle")  # no peers
HEADERS = ("", "min ms", "p25 ms", "median", "GFLOP/s", "of peak", "ratio to sepconv", "error")


def isas(results: Sequence[Result]) -> list[str]:
    """What sepconv ran on."""
    return list(dict.fromkeys(r["isa"] for result in results for r in result["contenders"] if r["kind"] == "sepconv"))


def headers(result: Result) -> list[str]:
    extra = {"startup_ms": "start ms", "memory_mb": "memory MB"}
    return [*HEADERS, *(title for key, title in extra.items() if _has(result, key))]


def rows(result: Result) -> list[list[str]]:
    """A row a contender; one that has no times has the reason in their place."""
    table = []
    for row in result["contenders"]:
        error = f"{row['max_relative_error']:.0e}" if "max_relative_error" in row else ""
        if "excluded" in row:
            cells = [label(row), "–", "–", "–", "–", "–", "–", error]
        else:
            times = row["milliseconds"]
            cells = [
                label(row),
                *(digits(times[key]) for key in ("minimum", "p25", "median")),
                f"{row['gflops']:.1f}",
                f"{row['share_of_peak']:.1%}",
                f"{row['ratio']['value']:.2f}{interval(row['ratio'])}",
                error,
            ]
        for key, form in (("startup_ms", ".1f"), ("memory_mb", ".1f")):
            if _has(result, key):
                cells.append(format(row[key], form) if key in row else "–")
        table.append(cells)
    return table


def label(row: dict[str, Any]) -> str:
    """What a contender is called, with the ISA that it is held to."""
    kind: str = row["kind"]
    return LABELS.get(kind, kind) + str(row["name"]).removeprefix(kind)


def interval(ratio: dict[str, Any]) -> str:
    """ " (0.98–1.02)", where there is one."""
    return "" if ratio["low"] is None else f" ({ratio['low']:.2f}–{ratio['high']:.2f})"


def headline(result: Result) -> str:
    """What was run, and how: "mobilenet_v2_1.0_224, 2 threads, batch 8, caches cold"."""
    return f"{result['network']}, {format_threads(result['threads'])}{conditions(result)}"


def conditions(result: Result) -> str:
    """Those that all results of a document share: ", batch 8, caches cold", or nothing."""
    return format_batch(result["batch"]) + (", caches cold" if result["cold"] else "")


def title(result: Result) -> str:
    each = "" if result["batch"] == 1 else " an image"
    peaks = ", ".join(f"{rate:.0f} GFLOP/s {isa}" for isa, rate in result["peak_gflops"].items())
    millions = result["macs"] / 1e6
    macs = f"{millions:{'.2g' if millions < 0.05 else '.1f'}} M multiply-adds{each}"
    return f"{headline(result)} · {macs} · peak {peaks}"


def notes(result: Result) -> list[str]:
    """Who did not take part, and why."""
    return [f"{label(row)}: {row['excluded']}" for row in result["contenders"] if "excluded" in row]


def summaries(result: Result) -> list[str]:
    """The ratio that matters: the fastest peer's quartile over sepconv's, of peers that are held to its ISA or free."""
    timed = [row for row in result["contenders"] if "excluded" not in row]
    lines = []
    for own in (row for row in timed if row["kind"] == "sepconv"):
        held = own["name"].removeprefix("sepconv")
        free = own is timed[0]
        peers = [
            row
            for row in timed
            if row["kind"] not in OWN and (row["name"] == row["kind"] + held or (free and row["name"] == row["kind"]))
        ]
        if peers:
            fastest = min(peers, key=lambda row: row["milliseconds"]["p25"])
            times = fastest["milliseconds"]["p25"] / own["milliseconds"]["p25"]
            lines.append(f"{own['name']} is {times:.2f} times as fast as the fastest peer, {label(fastest)}")
    return lines


def _has(result: Result, key: str) -> bool:
    return any(key in row for row in result["contenders"])


def digits(milliseconds: float) -> str:
    """Milliseconds as tables and plots show them."""
    return f"{milliseconds:.4f}" if milliseconds < 1 else f"{milliseconds:.3f}"

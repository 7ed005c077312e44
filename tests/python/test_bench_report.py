"""What the benchmark's document and tables say of given times."""

from __future__ import annotations

import pytest

from sepconv.bench import networks, report
from sepconv.bench.contenders import Contender
from sepconv.bench.method import Comparison, Measured, Settings

NETWORK = networks.operator("pointwise", (10, 10, 20, 50))  # 100,000 multiply-adds


def test_numbers() -> None:
    whose = (Contender("sepconv"), Contender("numpy"), Contender("oracle"), Contender("torch"))
    own, slow, oracle, peer = entries = [Measured(contender, "avx2") for contender in whose]
    own.bursts, slow.bursts, oracle.bursts, peer.bursts = [[2e-3]], [[9e-3]], [[1e-3]], [[4e-3]]
    peer.peak_isa = "avx512"
    peer.startup, peer.imports, peer.memory = [0.3, 0.1, 0.2], [3.0, 2.0, 1.0], 5_000_000
    compared = Comparison(NETWORK, Settings(batch=8), entries, {"avx2": [1e9] * 3, "avx512": [4e9]})
    (result,) = report.document([compared], [], "avx2", None)["results"]
    assert result["peak_gflops"] == {"avx2": 1.0, "avx512": 4.0}
    ours, *_, theirs = result["contenders"]
    assert (ours["ratio"]["value"], theirs["ratio"]["value"]) == (1.0, 2.0)
    assert [row["gflops"] for row in (ours, theirs)] == pytest.approx([0.8, 0.4])
    assert [row["share_of_peak"] for row in (ours, theirs)] == pytest.approx([0.8, 0.1])
    assert [theirs[key] for key in ("startup_ms", "import_ms", "memory_mb")] == [100.0, 1000.0, 5.0]
    assert report.summaries(result) == ["sepconv is 2.00 times as fast as the fastest peer, torch"]
    cells = ["torch", *["4.000"] * 3, "0.4", "10.0%", "2.00", "", "100.0", "5.0"]
    assert report.rows(result)[-1] == cells


def test_a_peer_whose_sepconv_was_not_timed_is_listed() -> None:
    whose = (Contender("sepconv"), Contender("sepconv", "scalar"), Contender("torch", "scalar"))
    own, held, peer = (Measured(contender, "scalar") for contender in whose)
    own.bursts = peer.bursts = [[1e-3]]
    held.excluded = "its outputs are others"
    compared = Comparison(NETWORK, Settings(), [own, held, peer], {"scalar": [1e9]})
    (result,) = report.document([compared], [], "scalar", None)["results"]
    assert report.notes(result)[1] == "torch scalar: sepconv scalar, which it is compared with, was not timed"

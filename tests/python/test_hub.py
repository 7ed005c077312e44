"""load_pretrained against a local server that lays files out as the Hugging Face hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub, serve
from test_family_weights import CLASSES, V3_SMALL, V3_SMALL_050, Arrays, timm_v3

from sepconv import models
from sepconv.errors import ModelFormatError
from sepconv.models import DownloadError, load_pretrained, pretrained_names
from sepconv.models.catalog import FAMILIES
from sepconv.models.hub import ALIASES, PINS, PRETRAINED

pytest.importorskip("huggingface_hub", reason="needs the extra hub")
pytest.importorskip("sepconv.threads", reason="the compiled core is not built")

NAME = "mobilenetv3_small_100.lamb_in1k"
REPOSITORY = f"timm/{NAME}"
CONFIG: dict[str, Any] = {
    "architecture": "mobilenetv3_small_100",
    "num_classes": CLASSES,
    "pretrained_cfg": {
        "num_classes": CLASSES, "input_size": [3, 64, 64], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "crop_pct": 0.95, "interpolation": "bicubic",
    },
}  # fmt: skip


def safetensors(arrays: Arrays) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, array in arrays.items():
        values = np.ascontiguousarray(array, dtype=np.int64 if array.dtype.kind == "i" else np.float32)
        header[name] = {
            "dtype": "I64" if values.dtype.kind == "i" else "F32",
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + values.nbytes],
        }
        data += values.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ARRAYS = timm_v3(V3_SMALL, 576, 1024)
WEIGHTS = safetensors(ARRAYS)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub(REPOSITORY, {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": WEIGHTS})
    with serve(served) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.delenv("SEPCONV_PINS", raising=False)
        yield served


def fetched(hub: Hub) -> list[str]:
    return [path for method, path, _ in hub.requests if method == "GET"]


def test_loads_what_the_repository_holds(hub: Hub, tmp_path: Path) -> None:
    model = load_pretrained(NAME, cache_dir=tmp_path)
    assert model.name == NAME
    expected = models.mobilenet_v3_small(resolution=64, classes=CLASSES, weights=ARRAYS)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3), dtype=np.float32)
    assert model(x).tobytes() == expected(x).tobytes()
    convention = model.convention
    assert convention is not None
    assert (convention.crop_fraction, convention.interpolation) == (0.95, "bicubic")
    assert convention.mean == pytest.approx((123.675, 116.28, 103.53))
    assert convention.std == pytest.approx((58.395, 57.12, 57.375))


def test_a_narrow_network_of_timm_keeps_its_first_convolution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "mobilenetv3_small_050.lamb_in1k"
    arrays = timm_v3(V3_SMALL_050, 288, 1024)
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(arrays)}
    with serve(Hub(f"timm/{name}", files)) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.delenv("SEPCONV_PINS", raising=False)
        model = load_pretrained(name, cache_dir=tmp_path)
    options: dict[str, Any] = {"alpha": 0.5, "resolution": 64, "classes": CLASSES, "weights": arrays}
    expected = models.mobilenet_v3_small(**options, fixed_stem=True)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3), dtype=np.float32)
    assert model(x).tobytes() == expected(x).tobytes()
    with pytest.raises(ValueError, match=r"conv_stem\.weight"):
        models.mobilenet_v3_small(**options)


def test_records_commit_and_digests_and_keeps_to_them(hub: Hub, tmp_path: Path) -> None:
    load_pretrained(NAME, cache_dir=tmp_path)
    pins = json.loads((tmp_path / PINS).read_text())
    assert pins[REPOSITORY]["revision"] == hub.commit
    assert pins[REPOSITORY]["files"]["model.safetensors"] == hub.etag("model.safetensors")
    first, hub.requests[:] = hub.commit, []
    # What is pushed later is another commit, which the name does not mean here.
    hub.commit = "f" * 40
    hub.files["model.safetensors"] = safetensors({**ARRAYS, "classifier.bias": 2 * ARRAYS["classifier.bias"]})
    load_pretrained(NAME, cache_dir=tmp_path)
    assert not fetched(hub)
    assert json.loads((tmp_path / PINS).read_text())[REPOSITORY]["revision"] == first
    # Unless it is asked for, and then the pin stays, or there is none.
    load_pretrained(NAME, revision="main", cache_dir=tmp_path)
    assert json.loads((tmp_path / PINS).read_text()) == pins
    load_pretrained(NAME, revision="main", cache_dir=tmp_path / "new")
    assert not (tmp_path / "new" / PINS).exists()


def test_needs_no_network_once_fetched(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pretrained(NAME, cache_dir=tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert load_pretrained(NAME, cache_dir=tmp_path).name == NAME


def test_an_endpoint_may_end_in_a_slash(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", os.environ["HF_ENDPOINT"] + "/")
    load_pretrained(NAME, cache_dir=tmp_path)
    assert not [path for _, path, _ in hub.requests if path.startswith("//")]


def test_says_so_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its attempts
    message = rf"config.json of {REPOSITORY} at main is not in .*, and the hub cannot be reached"
    with pytest.raises(DownloadError, match=message):
        load_pretrained(NAME, cache_dir=tmp_path)


def test_resumes_where_a_connection_broke(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # what it writes at a time
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.cut = len(WEIGHTS) // 2
    try:
        load_pretrained(NAME, cache_dir=tmp_path)
    except DownloadError:  # huggingface_hub may leave it to the next call
        load_pretrained(NAME, cache_dir=tmp_path)
    starts = [asked for method, path, asked in hub.requests if method == "GET" and path.startswith("/cdn/") and asked]
    assert any(int(asked.removeprefix("bytes=").split("-")[0]) > 0 for asked in starts)


def test_refuses_other_bytes_than_the_hub_states(hub: Hub, tmp_path: Path) -> None:
    hub.served["model.safetensors"] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    with pytest.raises(
        DownloadError, match=r"model.safetensors of .* has the digest [0-9a-f]{64}, must have the hub's"
    ):
        load_pretrained(NAME, cache_dir=tmp_path)
    assert not (tmp_path / PINS).exists()
    hub.served.clear()
    with pytest.raises(DownloadError, match=r"must have the hub's [0-9a-f]{64}: delete (.*)") as error:
        load_pretrained(NAME, cache_dir=tmp_path)
    Path(str(error.value).rpartition(": delete ")[2]).unlink()
    assert load_pretrained(NAME, cache_dir=tmp_path).name == NAME
    hub.served["config.json"] = hub.files["config.json"].replace(b"bicubic", b"nearest")
    with pytest.raises(DownloadError, match=r"config.json of .* has the digest [0-9a-f]{40}, must have the hub's"):
        load_pretrained(NAME, cache_dir=tmp_path / "new")


def test_a_cache_that_cannot_be_written_pins_nothing(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / f"{PINS}.lock").mkdir()  # root may write everywhere else
    with pytest.warns(UserWarning, match=rf"{hub.commit} of {REPOSITORY} is not pinned: .*{PINS}"):
        assert load_pretrained(NAME, cache_dir=tmp_path).name == NAME


def test_refuses_other_bytes_than_are_pinned(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "pins.json"
    pins.write_text(json.dumps({REPOSITORY: {"revision": hub.commit, "files": {"model.safetensors": "0" * 64}}}))
    with pytest.raises(
        DownloadError, match=f"has the SHA-256 {hub.etag('model.safetensors')}, must have the pinned 000"
    ):
        load_pretrained(NAME, cache_dir=tmp_path, pins=pins)
    monkeypatch.setenv("SEPCONV_PINS", str(pins))
    with pytest.raises(DownloadError, match="must have the pinned"):
        load_pretrained(NAME, cache_dir=tmp_path)
    for text, message in (("[]", "must hold an object"), ("{", "is no JSON")):
        pins.write_text(text)
        with pytest.raises(ModelFormatError, match=message):
            load_pretrained(NAME, cache_dir=tmp_path)
    monkeypatch.setenv("SEPCONV_PINS", str(tmp_path / "nothing.json"))
    with pytest.raises(DownloadError, match=r"nothing\.json"):
        load_pretrained(NAME, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "pins, message",
    [
        ({}, rf"pins\.json has no {REPOSITORY}, must pin it"),
        ({NAME: {}}, rf"pins\.json has no {REPOSITORY}"),
        ({REPOSITORY: 5}, "revision is None, must be a commit"),
        ({REPOSITORY: {"revision": 5}}, "revision is 5, must be a commit"),
        ({REPOSITORY: {"files": {"model.safetensors": "0" * 64}}}, "revision is None"),
        ({REPOSITORY: {"revision": "0" * 40}}, r"files is None, must hold .* that of model\.safetensors"),
        ({REPOSITORY: {"revision": "0" * 40, "files": [1]}}, r"files is \[1\]"),
        ({REPOSITORY: {"revision": "0" * 40, "files": {"model.safetensor": "0" * 64}}}, "files is .*safetensor'"),
        ({REPOSITORY: {"revision": "0" * 40, "files": {"model.safetensors": 5}}}, "files is "),
    ],
)
def test_pins_that_do_not_pin(pins: Any, message: str, hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    path.write_text(json.dumps(pins))
    with pytest.raises(ModelFormatError, match=message):
        load_pretrained(NAME, cache_dir=tmp_path, pins=path)
    assert not hub.requests


def test_pins_only_what_loads(hub: Hub, tmp_path: Path) -> None:
    right, hub.files["config.json"] = hub.files["config.json"], b'{"pretrained_cfg": {}}'
    with pytest.raises(ModelFormatError, match="do not fit this model"):
        load_pretrained(NAME, cache_dir=tmp_path)
    hub.files["config.json"], hub.commit = right, "f" * 40
    load_pretrained(NAME, cache_dir=tmp_path)


@pytest.mark.parametrize("repository", ["timm/other", REPOSITORY])
def test_keeps_the_pins_that_others_made_meanwhile(
    repository: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, other = models.hub._build, {"revision": "1" * 40, "files": {"model.safetensors": "2" * 64}}

    def slow_build(*arguments: Any) -> Any:
        (tmp_path / PINS).write_text(json.dumps({repository: other}))
        return build(*arguments)

    monkeypatch.setattr(models.hub, "_build", slow_build)
    load_pretrained(NAME, cache_dir=tmp_path)
    pins = json.loads((tmp_path / PINS).read_text())
    assert pins[repository] == other
    assert {name: pin["revision"] for name, pin in pins.items()} == {REPOSITORY: hub.commit, repository: "1" * 40}


def test_refuses_what_nothing_vouches_for(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hub.etag("model.safetensors")
    monkeypatch.setattr(hub, "etag", lambda name: f"d41d8cd98f00b204-{len(name)}")
    with pytest.raises(
        DownloadError, match=r"config\.json of .* is kept as 'd41d8cd98f00b204-11', must be kept under a digest"
    ):
        load_pretrained(NAME, cache_dir=tmp_path)
    config = hashlib.sha256(hub.files["config.json"]).hexdigest()
    pin = {"revision": hub.commit, "files": {"model.safetensors": digest, "config.json": config}}
    (tmp_path / "pins.json").write_text(json.dumps({REPOSITORY: pin}))
    load_pretrained(NAME, cache_dir=tmp_path, pins=tmp_path / "pins.json")


@pytest.mark.parametrize("commit", ["main", "../../../../evil"])
def test_refuses_commits_that_are_none(commit: str, hub: Hub, tmp_path: Path) -> None:
    hub.commit = commit
    with pytest.raises(DownloadError, match=r"must be of one named by 40|could not be fetched"):
        load_pretrained(NAME, cache_dir=tmp_path)


@pytest.mark.parametrize("argument", ["pins", "cache_dir"])
def test_refuses_paths_that_are_none(argument: str) -> None:
    for value, error, message in (
        ("", ValueError, "was '', must be"),
        (5, TypeError, "must be a str or an os.PathLike"),
    ):
        options: dict[str, Any] = {argument: value}
        with pytest.raises(error, match=f"{argument} {message}"):
            load_pretrained(NAME, **options)


@pytest.mark.parametrize("revision", [5, ""])
def test_refuses_revisions_that_are_none(revision: Any) -> None:
    with pytest.raises(ValueError, match=f"revision was {revision!r}, must be the name of a commit"):
        load_pretrained(NAME, revision=revision)


def test_what_the_hub_has_not(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the hub has no config\.json of .* at nowhere"):
        load_pretrained(NAME, revision="nowhere", cache_dir=tmp_path)
    with pytest.raises(DownloadError, match=r"the hub has no config\.json of timm/mnasnet"):
        load_pretrained("mnasnet_100.rmsp_in1k", cache_dir=tmp_path)
    del hub.files["model.safetensors"]
    with pytest.raises(DownloadError, match=r"the hub has no model\.safetensors"):
        load_pretrained(NAME, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"name was 'resnet50', must be one of .*mobilenet_v1_100\.ra4"):
        load_pretrained("resnet50")
    with pytest.raises(ValueError, match=r"name was \['mnasnet'\], must be one of"):
        load_pretrained(["mnasnet"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_size": [1, 64, 64]}, r"input_size is \[1, 64, 64\]"),
        ({"mean": None}, "pretrained_cfg: mean is None, must be three"),
        ({"std": [0.2, 0.2]}, r"pretrained_cfg: std is \[0.2, 0.2\], must be three"),
        ({"crop_pct": "all"}, "pretrained_cfg: crop_fraction is 'all', must be a number"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos'"),
        ({"num_classes": 11}, "do not fit this model"),
        ({"mean": [10**400, 0, 0]}, "pretrained_cfg: mean is .*, must be three"),
        (None, r"config\.json is no JSON that can be read: maximum recursion depth"),
    ],
)
def test_a_config_that_does_not_fit(changes: Any, message: str, hub: Hub, tmp_path: Path) -> None:
    changed = {"pretrained_cfg": {**CONFIG["pretrained_cfg"], **(changes or {})}}
    hub.files["config.json"] = b"[" * 200_000 if changes is None else json.dumps(changed).encode()
    with pytest.raises(ModelFormatError, match=message):
        load_pretrained(NAME, cache_dir=tmp_path)


def test_the_command_classifies(hub: Hub, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 70, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    arguments = ["classify", str(tmp_path / "x.png"), "--model", NAME, "--repeat", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "sepconv", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model"], result["input"], len(result["top"])) == (NAME, [64, 64, 3], 5)


def test_every_name_is_of_a_family() -> None:
    assert {*PRETRAINED, *ALIASES} == {*pretrained_names()}
    for name, entry in PRETRAINED.items():
        assert entry.family in FAMILIES
        assert entry.repository == f"timm/{name}"
    assert PRETRAINED[ALIASES["mobilenet_v1_100.ra4"]].family == "mobilenet_v1"

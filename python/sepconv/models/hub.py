"""Trained weights from the Hugging Face hub, by the names that timm gives them there (extra ``hub``).

What is fetched is checked against the SHA-256 that the hub itself states for the file (its LFS object's name, which is
also the name of the blob in the hub's cache), and recorded: ``sepconv-pins.json`` in the cache has each repository's
commit and each file's SHA-256, and from then on that commit is what a name means and that digest is what the file must
have. sepconv ships no digests of its own. A project that wants the same weights on every machine keeps such a file and
gives it as ``pins``, or names it in the environment variable ``SEPCONV_PINS``.

Downloads resume where they stopped, show a progress bar, and need no network once they are in the cache;
``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepconv import extras
from sepconv.conventions import TIMM, Convention, checked_triple
from sepconv.errors import ModelFormatError, SepconvError
from sepconv.graph.base import is_choice, is_name
from sepconv.models.catalog import FAMILIES
from sepconv.paths import checked_path, write_files

if TYPE_CHECKING:
    from sepconv.model import Model

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PINS = "sepconv-pins.json"
_CLIENTS = {"httpcore", "httpx", "httpx2", "requests", "urllib3"}  # whose errors need not be OSErrors
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


class DownloadError(SepconvError, OSError):
    """Weights could not be fetched, or are not what they must be."""


@dataclass(frozen=True)
class Pretrained:
    """Weights of the hub: whose they are, and the network that they are for."""

    repository: str
    family: str
    alpha: float = 1.0
    from_tensorflow: bool = False  # then padding and epsilon are TensorFlow's
    fixed_stem: bool = False  # the first convolution is as wide as at a width of 1


def _timm(family: str, name: str, alpha: float = 1.0, *, fixed_stem: bool = False) -> tuple[str, Pretrained]:
    return name, Pretrained(f"timm/{name}", family, alpha, name.startswith("tf_"), fixed_stem)


PRETRAINED: dict[str, Pretrained] = dict(
    [
        _timm("mobilenet_v1", "mobilenetv1_100.ra4_e3600_r224_in1k"),
        _timm("mobilenet_v1", "mobilenetv1_125.ra4_e3600_r224_in1k", 1.25),
        _timm("mobilenet_v2", "mobilenetv2_050.lamb_in1k", 0.5),
        _timm("mobilenet_v2", "mobilenetv2_100.ra_in1k"),
        _timm("mobilenet_v2", "mobilenetv2_140.ra_in1k", 1.4),
        _timm("mobilenet_v3_large", "mobilenetv3_large_100.ra_in1k"),
        _timm("mobilenet_v3_large", "mobilenetv3_large_100.ra4_e3600_r224_in1k"),
        _timm("mobilenet_v3_large", "mobilenetv3_large_100.miil_in21k_ft_in1k"),
        _timm("mobilenet_v3_small", "mobilenetv3_small_050.lamb_in1k", 0.5, fixed_stem=True),
        _timm("mobilenet_v3_small", "mobilenetv3_small_075.lamb_in1k", 0.75),
        _timm("mobilenet_v3_small", "mobilenetv3_small_100.lamb_in1k"),
        _timm("mobilenet_v3_large", "tf_mobilenetv3_large_075.in1k", 0.75),
        _timm("mobilenet_v3_large", "tf_mobilenetv3_large_100.in1k"),
        _timm("mobilenet_v3_large_minimalistic", "tf_mobilenetv3_large_minimal_100.in1k"),
        _timm("mobilenet_v3_small", "tf_mobilenetv3_small_075.in1k", 0.75),
        _timm("mobilenet_v3_small", "tf_mobilenetv3_small_100.in1k"),
        _timm("mobilenet_v3_small_minimalistic", "tf_mobilenetv3_small_minimal_100.in1k"),
        _timm("mobilenet_v4_conv_small", "mobilenetv4_conv_small_050.e3000_r224_in1k", 0.5, fixed_stem=True),
        *(
            _timm("mobilenet_v4_conv_small", f"mobilenetv4_conv_small.{recipe}_in1k")
            for recipe in ("e1200_r224", "e2400_r224", "e3600_r256")
        ),
        *(
            _timm("mobilenet_v4_conv_medium", f"mobilenetv4_conv_medium.{recipe}_in1k")
            for recipe in ("e500_r224", "e500_r256", "e250_r384_in12k_ft")
        ),
        _timm("efficientnet_lite0", "efficientnet_lite0.ra_in1k"),
        *(_timm(f"efficientnet_lite{n}", f"tf_efficientnet_lite{n}.in1k") for n in range(5)),
        _timm("mnasnet_b1", "mnasnet_100.rmsp_in1k"),
        _timm("mnasnet_a1", "semnasnet_075.rmsp_in1k", 0.75),
        _timm("mnasnet_a1", "semnasnet_100.rmsp_in1k"),
    ]
)
ALIASES = {"mobilenet_v1_100.ra4": "mobilenetv1_100.ra4_e3600_r224_in1k"}


def pretrained_names() -> tuple[str, ...]:
    """What :func:`load_pretrained` knows, in order."""
    return tuple(sorted([*PRETRAINED, *ALIASES]))


def load_pretrained(
    name: str,
    *,
    revision: str | None = None,
    pins: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Model:
    """The network that ``name`` means, with its trained weights.

    revision: a commit, branch or tag of the weights' repository. None: the pinned one, else what is current, which
        then is recorded as pinned (UserWarning where the cache cannot be written).
    pins: a file of commits and digests, see this module's description; None for ``SEPCONV_PINS``, else the cache's own.
    cache_dir: where files are kept; None for huggingface_hub's cache.

    Raises:
        ValueError: an unknown name, listing those that are known; a revision that is no name of one.
        MissingExtraError: the package huggingface_hub is not installed.
        DownloadError: no network and nothing in the cache, no such repository or revision, a file that has not the
            digest that it must have, or one of which neither the hub nor a pin states it.
        ModelFormatError: the fetched files hold no such network; ``pins`` lacks the repository, or what a pin has.
    """
    if not is_choice(name, pretrained_names()):
        raise ValueError(f"name was {name!r}, must be one of {', '.join(pretrained_names())}")
    if revision is not None and not is_name(revision):
        raise ValueError(f"revision was {revision!r}, must be the name of a commit, branch or tag, or None")
    full = ALIASES.get(name, name)
    entry = PRETRAINED[full]
    hub = _Hub()
    cache = checked_path(hub.constants.HF_HUB_CACHE if cache_dir is None else cache_dir, "cache_dir")
    given = os.environ.get("SEPCONV_PINS") if pins is None else checked_path(pins, "pins")
    book = Path(given) if given else cache / PINS
    pinned, required = _pin(_read_pins(book) if given or book.exists() else {}, entry.repository, book)
    if given and pinned is None and revision is None:
        raise ModelFormatError(f"{book} has no {entry.repository}, must pin it")
    if revision not in (None, pinned):
        required = {}
    commit = revision or pinned or "main"
    paths, digests = {}, {}
    for file in (CONFIG, WEIGHTS):
        paths[file] = hub.fetch(entry.repository, file, commit, cache)
        commit = _commit_of(paths[file])  # both files from one commit, whatever is pushed in between
        digests[file] = _checked_digest(paths[file], entry.repository, file, required.get(file))
    model = _build(full, entry, paths[WEIGHTS], _read_config(paths[CONFIG]))
    if not given and revision is None and pinned is None:
        try:
            with hub.lock(book):
                _record(book, entry.repository, {"revision": commit, "files": digests})
        except OSError as error:
            warnings.warn(f"{commit} of {entry.repository} is not pinned: {error}", UserWarning, stacklevel=2)
    return model


class _Hub:
    """The package huggingface_hub. MissingExtraError where it is not installed."""

    def __init__(self) -> None:
        def module(name: str) -> Any:
            return extras.require(name, package="huggingface_hub", extra="hub", purpose="fetching trained weights")

        self._package = module("huggingface_hub")
        self._errors = module("huggingface_hub.errors")
        self.constants = module("huggingface_hub.constants")
        self._filelock = module("filelock")  # which comes with it

    def lock(self, path: Path) -> AbstractContextManager[Any]:
        """Held by one process at a time, by a file beside ``path``."""
        lock: AbstractContextManager[Any] = self._filelock.FileLock(f"{path}.lock")
        return lock

    def fetch(self, repository: str, file: str, revision: str, cache: Path) -> Path:
        """The file in the cache, fetched if it is not there. Raises DownloadError."""
        where, errors = f"{file} of {repository} at {revision}", self._errors
        endpoint = os.environ.get("HF_ENDPOINT")  # huggingface_hub reads it once, when it is imported
        endpoint = endpoint and endpoint.rstrip("/")  # as it does
        try:
            path = self._package.hf_hub_download(
                repository, file, revision=revision, cache_dir=cache, endpoint=endpoint
            )
        except errors.LocalEntryNotFoundError as error:
            reason = f"is not in {cache}, and the hub cannot be reached to fetch it: {error}"
            raise DownloadError(f"{where} {reason}") from error
        except errors.OfflineModeIsEnabled as error:
            raise DownloadError(f"{where} is not in {cache}, and HF_HUB_OFFLINE forbids to fetch it") from error
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
            raise DownloadError(f"the hub has no {where}: {error}") from error
        except Exception as error:
            if not isinstance(error, OSError | ValueError) and type(error).__module__.split(".")[0] not in _CLIENTS:
                raise
            raise DownloadError(f"{where} could not be fetched: {error}") from error
        return Path(path)


def _commit_of(path: Path) -> str:
    """The commit that a file of the cache is of: .../snapshots/<commit>/<file>."""
    name = path.parent.name
    if not _COMMIT.fullmatch(name):
        raise DownloadError(f"{path} is of the commit {name!r}, must be of one named by 40 hexadecimal digits")
    return name


def _checked_digest(path: Path, repository: str, file: str, required: str | None) -> str:
    """The file's SHA-256, once it is what the hub stated and what is pinned; one of them must be there."""
    digest, size = hashlib.sha256(), path.stat().st_size
    git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            git.update(chunk)
    found = digest.hexdigest()
    # A blob is called what the hub stated as its ETag: an LFS object's SHA-256, or git's own hash of a small file.
    stated = path.resolve().name
    expected = {_SHA256: found, _COMMIT: git.hexdigest()}
    wrong = [value for pattern, value in expected.items() if pattern.fullmatch(stated) and stated != value]
    if wrong:
        raise DownloadError(
            f"{file} of {repository} has the digest {wrong[0]}, must have the hub's {stated}: delete {path.resolve()}"
        )
    if required is None and not any(pattern.fullmatch(stated) for pattern in expected):
        reason = f"is kept as {stated!r}, must be kept under a digest, the hub's ETag, or be pinned: {path}"
        raise DownloadError(f"{file} of {repository} {reason}")
    if required is not None and found != required:
        raise DownloadError(f"{file} of {repository} has the SHA-256 {found}, must have the pinned {required}")
    return found


# --- Pins: {repository: {"revision": commit, "files": {name: sha256}}}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is no JSON that can be read: {error}") from error


def _read_pins(path: Path) -> dict[str, Any]:
    try:
        pins = _read_json(path)
    except OSError as error:
        raise DownloadError(f"pins: {error}") from error
    if not isinstance(pins, dict):
        raise ModelFormatError(f"{path} must hold an object for each repository")
    return pins


def _pin(pins: Mapping[str, Any], repository: str, path: Path) -> tuple[str | None, Mapping[str, str]]:
    """The commit and the digests pinned for a repository; None and nothing where there is no pin."""
    if repository not in pins:
        return None, {}
    pin = pins[repository] if isinstance(pins[repository], dict) else {}
    revision, files = pin.get("revision"), pin.get("files")
    if not _matches(_COMMIT, revision):
        reason = f"revision is {revision!r}, must be a commit, 40 hexadecimal digits"
        raise ModelFormatError(f"{path}: {repository}: {reason}")
    if not isinstance(files, dict) or WEIGHTS not in files or not all(_matches(_SHA256, f) for f in files.values()):
        reason = f"files is {files!r}, must hold SHA-256 digests, that of {WEIGHTS} among them"
        raise ModelFormatError(f"{path}: {repository}: {reason}")
    return revision, files


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _record(path: Path, repository: str, pin: Mapping[str, Any]) -> None:
    """Pin what has no pin yet, beside those that others made meanwhile. No reader sees half of the file."""
    pins = _read_pins(path) if path.exists() else {}
    write_files({path: json.dumps({repository: pin, **pins}, indent=2, sort_keys=True).encode()})


def _read_config(path: Path) -> dict[str, Any]:
    """The part of a config.json that says how the weights were trained and what they expect; empty without one."""
    config = _read_json(path)
    record = config.get("pretrained_cfg", {}) if isinstance(config, dict) else {}
    return record if isinstance(record, dict) else {}


def _build(name: str, entry: Pretrained, weights: Path, config: Mapping[str, Any]) -> Model:
    from sepconv.model import Model  # here, since it loads the compiled core

    family = FAMILIES[entry.family]
    size = config.get("input_size", [3, family.resolution, family.resolution])
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]):
        raise ModelFormatError(f"{entry.repository}: input_size is {size}, must be [3, n, n]")
    options: dict[str, Any] = {"padding": "same", "batch_norm_epsilon": 1e-3} if entry.from_tensorflow else {}
    if entry.fixed_stem:
        options["fixed_stem"] = True
    arrays = _read_arrays(weights)
    try:
        layers = family.layers(
            alpha=entry.alpha, resolution=size[1], classes=config.get("num_classes", 1000), weights=arrays, **options
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelFormatError(f"{entry.repository}: {error}") from error
    return Model(layers, name=name, convention=_convention(name, entry, config))


def _read_arrays(path: Path) -> Mapping[str, Any]:
    from sepconv.io import read_weights

    arrays: Mapping[str, Any] = read_weights(path)
    return arrays


def _convention(name: str, entry: Pretrained, config: Mapping[str, Any]) -> Convention:
    """What the repository's own record says; where it says nothing, timm's default for such weights."""
    base = TIMM
    try:
        return Convention(
            name=name,
            mean=_pixels("mean", config["mean"]),
            std=_pixels("std", config["std"]),
            crop_fraction=config.get("crop_pct", base.crop_fraction),
            interpolation=config.get("interpolation", base.interpolation),
        )
    except KeyError as error:
        raise ModelFormatError(f"{entry.repository}: pretrained_cfg has no {error}") from error
    except ValueError as error:
        raise ModelFormatError(f"{entry.repository}: pretrained_cfg: {error}") from error


def _pixels(field: str, values: Any) -> tuple[float, float, float]:
    """Of numbers for channels in [0, 1], those for 8-bit pixels."""
    red, green, blue = checked_triple(field, values)
    return (255.0 * red, 255.0 * green, 255.0 * blue)

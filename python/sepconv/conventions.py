"""What a set of weights expects of a photograph, and what its outputs mean.

The same network gives other answers when its input is scaled or cropped in another way than in training, so a
:class:`Convention` travels with the weights: ``model.convention``. It is plain data; JSON holds it.

The resize rules are Pillow's resize (which averages over the source pixels when it shrinks) on 8-bit images: the
published preprocessing of these families, to the bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ResizeRule = Literal["crop", "stretch"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
InputArray = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int8]
Triple = tuple[float, float, float]

BACKGROUND = "background"
_CHOICES = {"resize": ("crop", "stretch"), "interpolation": ("nearest", "bilinear", "bicubic"), "labels": ("imagenet",)}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a photograph becomes the network's input, and an output's index a label.

    resize: "crop" scales the photograph, keeping its proportions, until it just covers ``1/crop_fraction`` of the
        input's height and width, and takes the middle; "stretch" scales height and width each to the input's.
    mean, std: for red, green, blue, in units of 8-bit pixels: input = (pixel - mean) / std.
    label_offset: outputs below it have no name in the list: 1 for the networks whose output 0 is "background".
    labels: the list of class names, "imagenet" being the 1000 of ILSVRC 2012.
    """

    name: str
    mean: Triple
    std: Triple
    resize: ResizeRule = "crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    label_offset: int = 0
    labels: str = "imagenet"

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is {getattr(self, field)!r}, must be one of {', '.join(allowed)}")
        for field in ("mean", "std"):
            values = getattr(self, field)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{field} is {values!r}, must be three finite numbers: red, green, blue")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std!r}, must be positive")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction is {self.crop_fraction!r}, must be above 0 and at most 1")
        if self.label_offset < 0:
            raise ValueError(f"label_offset is {self.label_offset!r}, must not be negative")

    def to_input(self, image: NDArray[np.uint8], dtype: str = "float32") -> InputArray:
        """The network's input ``[1, h, w, 3]`` for an image ``[h, w, 3]`` that already has the network's size.

        ``dtype`` "uint8" gives the pixels themselves and "int8" the pixels less 128, as quantised networks take them.
        """
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image has shape {list(image.shape)}, must be [height, width, 3]")
        if image.dtype != np.uint8:
            raise TypeError(f"image has dtype {image.dtype}, must be uint8")
        batch = image[np.newaxis]
        if dtype == "uint8":
            return np.ascontiguousarray(batch)
        if dtype == "int8":
            return (batch.astype(np.int16) - 128).astype(np.int8)
        if dtype == "float32":
            scaled: NDArray[np.float64] = (batch - np.array(self.mean)) / np.array(self.std)
            return scaled.astype(np.float32)
        raise ValueError(f"dtype is {dtype!r}, must be float32, uint8 or int8")

    def label(self, index: int) -> str:
        """The name of output ``index``: the synonyms of ImageNet's list, separated by commas."""
        if index < 0:
            raise ValueError(f"index is {index}, must not be negative")
        names = class_names(self.labels)
        if index < self.label_offset:
            return BACKGROUND
        position = index - self.label_offset
        return names[position] if position < len(names) else f"class {index}"

    def to_dict(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes and :meth:`from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Convention:
        """The inverse of :meth:`to_dict`, through JSON too. Raises ValueError or TypeError for anything else."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(record) - known):
            raise ValueError(f"record has the unknown field {unknown[0]!r}, must have only {', '.join(sorted(known))}")
        fields: dict[str, Any] = dict(record)
        fields.update({key: tuple(record[key]) for key in ("mean", "std") if key in record})
        return cls(**fields)


def _grey(value: float) -> Triple:
    return (value, value, value)


# EfficientNet-Lite, TensorFlow's and its ports.
EFFICIENTNET_LITE = Convention(name="efficientnet_lite", mean=_grey(127.0), std=_grey(128.0), interpolation="bicubic")
# TensorFlow-Slim's MobileNets: [-1, 1], 1001 outputs.
SLIM = Convention(name="slim", mean=_grey(127.5), std=_grey(127.5), label_offset=1)
# Keras applications: [-1, 1], the photograph loaded at the network's size.
KERAS = Convention(name="keras", mean=_grey(127.5), std=_grey(127.5), resize="stretch")
# timm's tf_* weights and its MobileNet V1 (ra4): [-1, 1], 1000 outputs.
TIMM = Convention(name="timm", mean=_grey(127.5), std=_grey(127.5), interpolation="bicubic")
# torchvision's classification weights, and most of timm's: ImageNet's own mean and standard deviation.
TORCHVISION = Convention(name="torchvision", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# TFLite's hosted quantised MobileNets: pixels straight in as uint8, of which 128 is zero; 1001 outputs.
TFLITE_QUANT = Convention(name="tflite_quant", mean=_grey(128.0), std=_grey(128.0), resize="stretch", label_offset=1)

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {record.name: record for record in (EFFICIENTNET_LITE, SLIM, KERAS, TIMM, TORCHVISION, TFLITE_QUANT)}
)


def convention(name: str) -> Convention:
    """The named record. Raises ValueError for an unknown name."""
    try:
        return CONVENTIONS[name]
    except KeyError:
        raise ValueError(f"convention is {name!r}, must be one of {', '.join(CONVENTIONS)}") from None


def check_convention(value: Any) -> None:
    """TypeError unless it is a record or None."""
    if value is not None and not isinstance(value, Convention):
        raise TypeError(f"convention was {value!r}, must be a sepconv.conventions.Convention or None")


def guess(input_dtype: str, outputs: int) -> Convention:
    """The likeliest convention of a network whose file has none: by its input's dtype and its number of outputs."""
    base = SLIM if input_dtype == "float32" else TFLITE_QUANT
    return dataclasses.replace(base, label_offset=1 if outputs == 1001 else 0)


@cache
def class_names(labels: str = "imagenet") -> Sequence[str]:
    """The class names of a list, in the order of the outputs; 1000 for "imagenet"."""
    if labels not in _CHOICES["labels"]:
        raise ValueError(f"labels is {labels!r}, must be one of {', '.join(_CHOICES['labels'])}")
    from importlib import resources  # here: it takes a quarter of the time that importing sepconv.models does

    path = resources.files("sepconv") / "data" / f"{labels}_labels.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())

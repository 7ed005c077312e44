"""What a set of weights expects of a photograph, and what its outputs mean.

The same network gives other answers when its input is scaled or cropped in another way than in training, so a
:class:`Convention` travels with the weights: ``model.convention``. It is plain data; JSON holds it.

The resize rules are Pillow's resize (which averages over the source pixels when it shrinks) on 8-bit images: the
published preprocessing of these families, to the bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sepconv.graph.base import is_choice, is_finite, is_integer, is_sequence

ResizeRule = Literal["crop", "stretch"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
InputArray = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int8]
Triple = tuple[float, float, float]

BACKGROUND = "background"
_LEAST_CROP = 1 / 16  # of networks it is 0.875 and more; the whole photograph is scaled, to 1/crop_fraction
_CHOICES = {
    "resize": ("crop", "stretch"),
    "interpolation": ("nearest", "bilinear", "bicubic"),
    "labels": ("imagenet", "none"),
}


def checked_triple(field: str, values: Any) -> Triple:
    """The three as floats. Raises ValueError for anything else."""
    if not (is_sequence(values, 3) and all(map(is_finite, values))):
        raise ValueError(f"{field} is {values!r}, must be three finite numbers: red, green, blue")
    red, green, blue = map(float, values)
    return red, green, blue


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a photograph becomes the network's input, and an output's index a label.

    resize: "crop" scales the photograph, keeping its proportions, until it just covers ``1/crop_fraction`` of the
        input's height and width, and takes the middle; "stretch" scales height and width each to the input's.
    mean, std: for red, green, blue, in units of 8-bit pixels: input = (pixel - mean) / std.
    label_offset: outputs below it have no name in the list: 1 for the networks whose output 0 is "background".
    labels: the list of class names, "imagenet" being the 1000 of ILSVRC 2012; with "none" output 7 is "class 7".
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
            if not is_choice(getattr(self, field), allowed):
                raise ValueError(f"{field} is {getattr(self, field)!r}, must be one of {', '.join(allowed)}")
        for field in ("mean", "std"):
            object.__setattr__(self, field, checked_triple(field, getattr(self, field)))
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std!r}, must be positive")
        if not (is_finite(self.crop_fraction) and _LEAST_CROP <= self.crop_fraction <= 1):
            raise ValueError(f"crop_fraction is {self.crop_fraction!r}, must be a number from {_LEAST_CROP} to 1")
        object.__setattr__(self, "crop_fraction", float(self.crop_fraction))
        if not is_integer(self.label_offset) or self.label_offset < 0:
            raise ValueError(f"label_offset is {self.label_offset!r}, must be an integer of at least 0")
        object.__setattr__(self, "label_offset", int(self.label_offset))
        if not isinstance(self.name, str):
            raise ValueError(f"name is {self.name!r}, must be a string")

    def to_input(self, image: NDArray[np.uint8], dtype: str = "float32") -> InputArray:
        """The network's input ``[1, h, w, 3]`` for an image ``[h, w, 3]`` that already has the network's size.

        ``dtype`` "uint8" gives the pixels themselves and "int8" the pixels less 128, as quantised networks take them.
        """
        check_image(image)
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
        if not is_integer(index) or index < 0:
            raise ValueError(f"index is {index!r}, must be an integer of at least 0")
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
        if not isinstance(record, Mapping):
            raise TypeError(f"record was a {type(record).__name__}, must be a mapping")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(map(repr, set(record) - known)):
            raise ValueError(f"record has the unknown field {unknown[0]}, must have only {', '.join(sorted(known))}")
        return cls(**record)


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
    if not is_choice(name, [*CONVENTIONS]):
        raise ValueError(f"convention is {name!r}, must be one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def check_image(image: Any) -> None:
    """TypeError, ValueError unless it is an array [height, width, 3] of uint8 that holds something."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = f"dtype {image.dtype}" if isinstance(image, np.ndarray) else f"type {type(image).__name__}"
        raise TypeError(f"image has {found}, must be an array of uint8")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image has shape {list(image.shape)}, must be [height, width, 3]")


def check_convention(value: Any) -> None:
    """TypeError unless it is a record or None."""
    if value is not None and not isinstance(value, Convention):
        raise TypeError(f"convention was {value!r}, must be a sepconv.conventions.Convention or None")


def guess(input_dtype: str, outputs: int) -> Convention:
    """The likeliest convention of a network whose file has none: by its input's dtype and its number of outputs."""
    base = SLIM if input_dtype == "float32" else TFLITE_QUANT
    return with_names(dataclasses.replace(base, label_offset=1 if outputs == 1001 else 0), outputs or 1000)


def with_names(convention: Convention, outputs: int) -> Convention:
    """The same, without names where the outputs are not ImageNet's classes: 1000, or 1001 with a background."""
    return convention if outputs in (1000, 1001) else dataclasses.replace(convention, labels="none", label_offset=0)


def class_names(labels: str = "imagenet") -> Sequence[str]:
    """The class names of a list, in the order of the outputs; 1000 for "imagenet", none for "none"."""
    if not is_choice(labels, _CHOICES["labels"]):
        raise ValueError(f"labels is {labels!r}, must be one of {', '.join(_CHOICES['labels'])}")
    return () if labels == "none" else _read_names(labels)


@cache
def _read_names(labels: str) -> Sequence[str]:
    from importlib import resources  # here: it takes a quarter of the time that importing sepconv.models does

    path = resources.files("sepconv") / "data" / f"{labels}_labels.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())

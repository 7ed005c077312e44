"""Photographs: read with Pillow, resized as a convention says."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sepconv import extras
from sepconv.conventions import Convention, check_image
from sepconv.errors import SepconvError
from sepconv.graph.base import is_integer
from sepconv.paths import checked_path, standard_stream

if TYPE_CHECKING:
    from PIL.Image import Image

# A strip this many times as long as the network sees is cut before it is resized, not after: memory stays bounded.
_LONGEST = 16

# Bytes of what comes through a pipe, which Pillow would read to its end.
_LARGEST = 1 << 28

# Tags of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


class ImageError(SepconvError, ValueError):
    """A file that Pillow cannot read as a photograph."""


def load_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The photograph in a file as ``[h, w, 3]`` uint8, RGB, upright as its EXIF orientation says.

    Transparency is laid over white; an animation gives its first frame; broken EXIF turns nothing. Raises
    FileNotFoundError, IsADirectoryError or PermissionError for the path, TypeError or ValueError for what can be none,
    :class:`ImageError` for the content or where the path is neither a regular file nor standard input,
    MissingExtraError without Pillow.
    """
    pillow = extras.require("PIL.Image", package="pillow", extra="demo", purpose="reading a photograph")
    from PIL import UnidentifiedImageError

    path = checked_path(path)
    found = path.stat()
    # Asked before opening: to open a pipe would wait for its writer.
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or standard_stream(found) is not None):
        raise ImageError(f"{path} is not a regular file")
    with path.open("rb") as file, _without_warnings(pillow.DecompressionBombWarning):
        try:
            with pillow.open(_seekable(file, path)) as image:
                if image.format == "EPS":
                    raise ImageError(f"{path} is EPS, a program of its own, for which Pillow calls Ghostscript")
                image.load()  # all damage of pixels is told here
                return np.asarray(_to_rgb(_upright(image), image, path))
        except UnidentifiedImageError as error:
            raise ImageError(f"{path} is not an image in any format that Pillow reads") from error
        except pillow.DecompressionBombError as error:
            raise ImageError(f"{path} has more pixels than Pillow admits: {error}") from error
        except (MemoryError, KeyboardInterrupt, ImageError):
            raise
        except Exception as error:  # OSError, SyntaxError, struct.error, ...: damage, or what Pillow cannot decode here
            raise ImageError(f"Pillow cannot read {path}: {error}") from error


def _seekable(file: BinaryIO, path: Path) -> BinaryIO:
    if file.seekable():
        return file
    data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ImageError(f"{path} has more than {_LARGEST} bytes")
    return io.BytesIO(data)


class _Readers:
    """How many threads read photographs, and what the warnings' filters were before them.

    The filters are the process's. Were each thread to change and restore them for itself, those of a thread that reads
    past the others' end would stay.
    """

    lock = threading.Lock()
    count = 0
    filters: warnings.catch_warnings[None]


@contextmanager
def _without_warnings(too_large: type[Warning]) -> Iterator[None]:
    """Between ``too_large``, Pillow's, and its refusal of twice as many pixels are large but honest photographs."""
    with _Readers.lock:
        if _Readers.count == 0:
            _Readers.filters = warnings.catch_warnings()
            _Readers.filters.__enter__()
            warnings.simplefilter("ignore", too_large)
            warnings.simplefilter("ignore", UserWarning)  # oddities of metadata
        _Readers.count += 1
    try:
        yield
    finally:
        with _Readers.lock:
            _Readers.count -= 1
            if _Readers.count == 0:
                _Readers.filters.__exit__(None, None, None)


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # as many kinds as there are ways to break EXIF
        return image


def _to_rgb(image: Image, read: Image, path: Path) -> Image:
    """``image``, made of what was ``read``, which alone knows its file."""
    if image.mode.startswith("I;16") or (image.mode == "I" and read.format == "PPM"):  # which Pillow scales to 16 bits
        import PIL.Image

        tags = getattr(read, "tag_v2", {})  # TIFF's, whose numbers of 12 or 16 bits Pillow leaves as they are
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        values = np.asarray(image)
        grey = (values >> (bits - 8)).astype(np.uint8)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 255 - grey
        grey[values == image.info.get("transparency", -1)] = 255
        return PIL.Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(f"{path} has mode {image.mode!r} (numbers, not colours), must have 8 or 16 bits a channel")
    if image.has_transparency_data:
        import PIL.Image

        with_alpha = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), with_alpha).convert("RGB")
    return image.convert("RGB")


def resize(image: NDArray[np.uint8], convention: Convention, height: int, width: int) -> NDArray[np.uint8]:
    """``image`` ``[h, w, 3]`` as the convention brings it to ``[height, width, 3]``; uint8 in, uint8 out.

    Raises TypeError or ValueError for what is no image, convention or size, MissingExtraError without Pillow.
    """
    pillow = extras.require("PIL.Image", package="pillow", extra="demo", purpose="resizing a photograph")
    check_image(image)
    if not isinstance(convention, Convention):
        raise TypeError(f"convention was {convention!r}, must be a sepconv.conventions.Convention")
    if not all(is_integer(size) and size >= 1 for size in (height, width)):
        raise ValueError(f"height and width are {height!r} and {width!r}, must be integers of at least 1")
    method = pillow.Resampling[convention.interpolation.upper()]
    picture: Image = pillow.fromarray(np.ascontiguousarray(image))
    if convention.resize == "stretch":
        return np.asarray(picture.resize((width, height), method))

    cover_h, cover_w = int(height / convention.crop_fraction), int(width / convention.crop_fraction)
    picture = _limit_strip(picture, cover_h, cover_w)
    w, h = picture.size
    # The side that just fits gets its length exactly, the other's fraction is dropped.
    scaled = (w * cover_h // h, cover_h) if h * cover_w <= w * cover_h else (cover_w, h * cover_w // w)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return np.asarray(picture.resize(scaled, method).crop((left, top, left + width, top + height)))


def _limit_strip(picture: Image, cover_h: int, cover_w: int) -> Image:
    w, h = picture.size
    new_w = min(w, max(1, _LONGEST * h * cover_w // cover_h))
    new_h = min(h, max(1, _LONGEST * w * cover_h // cover_w))
    if (new_w, new_h) == (w, h):
        return picture
    left, top = (w - new_w) // 2, (h - new_h) // 2
    return picture.crop((left, top, left + new_w, top + new_h))

"""Reading photographs and bringing them to a network's size."""

from __future__ import annotations

import struct
import sys
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sepconv import conventions, extras, images
from sepconv.conventions import Convention

Image: Any = pytest.importorskip("PIL.Image", reason="needs pillow")

SHARED_IMAGES = ("bird", "cat", "grace_hopper")
GOLDEN_RULES = {
    "efficientnet_lite0": conventions.EFFICIENTNET_LITE,
    # These goldens were made with bicubic; the weights' own publisher resizes bilinearly.
    "mobilenet_v2_torchvision": replace(conventions.TORCHVISION, interpolation="bicubic"),
    "mobilenet_v1_0.25_128_quant": conventions.TFLITE_QUANT,
    "mobilenet_v1_0.75_192_quant": conventions.TFLITE_QUANT,
    "mobilenet_v2_1.0_224_quant": conventions.TFLITE_QUANT,
}


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.golden
@pytest.mark.parametrize("photograph", SHARED_IMAGES)
@pytest.mark.parametrize("model", GOLDEN_RULES)
def test_reference_inputs_come_out(shared_data: Path, model: str, photograph: str) -> None:
    with np.load(shared_data / "golden" / f"{model}__{photograph}.npz") as golden:
        expected = golden["input"]
    convention = GOLDEN_RULES[model]
    image = images.load_image(shared_data / "images" / f"{photograph}.png")
    x = convention.to_input(images.resize(image, convention, *expected.shape[1:3]), str(expected.dtype))
    if model == "mobilenet_v2_torchvision":  # its mean and std are no binary fractions: the order of rounding shows
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("convention", conventions.CONVENTIONS.values(), ids=list(conventions.CONVENTIONS))
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 200), (200, 300), (224, 224), (5000, 2), (2, 5000)])
@pytest.mark.parametrize("target", [(224, 224), (33, 65), (65, 33), (1, 1)])
def test_any_size_becomes_the_target(convention: Convention, size: tuple[int, int], target: tuple[int, int]) -> None:
    resized = images.resize(noise(*size), convention, *target)
    assert resized.shape == (*target, 3)
    assert resized.dtype == np.uint8


def test_crop_takes_the_middle() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 255
    whole = replace(conventions.SLIM, crop_fraction=1.0)
    assert images.resize(image, whole, 100, 100).min() == 255
    assert images.resize(image, replace(whole, resize="stretch"), 100, 100).min() == 0


def test_no_change_at_the_networks_own_size() -> None:
    image = noise(64, 64)
    for convention in (conventions.TFLITE_QUANT, replace(conventions.SLIM, crop_fraction=1.0)):
        np.testing.assert_array_equal(images.resize(image, convention, 64, 64), image)


def test_long_strips_are_cut_first() -> None:
    # Scaled whole it would be 256 × 12,800,000 pixels. What is left is the middle.
    strip = np.zeros((2, 100_000, 3), np.uint8)
    strip[:, 49_990:50_010] = 255
    for image in (strip, strip.transpose(1, 0, 2)):
        resized = images.resize(image, conventions.SLIM, 224, 224)
        assert (resized.shape, resized.min()) == ((224, 224, 3), 255)


def test_resize_refuses_what_is_no_image() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"image has shape .* must be \[height, width, 3\]"):
            images.resize(wrong, conventions.SLIM, 8, 8)
    with pytest.raises(ValueError, match="height and width are 0 and 8, must be integers of at least 1"):
        images.resize(noise(4, 4), conventions.SLIM, 0, 8)
    with pytest.raises(TypeError, match=r"convention was 'slim', must be a sepconv\.conventions\.Convention"):
        images.resize(noise(4, 4), "slim", 8, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.full((4, 6), 255, np.uint8))
    picture = Image.fromarray(np.full((4, 6), 65535, np.uint16)) if mode == "I;16" else grey.convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    picture.save(path)
    np.testing.assert_array_equal(images.load_image(path), np.full((4, 6, 3), 255))


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert images.load_image(tmp_path / "clear.png").min() == 255


def png(bits: int, row: bytes, kind: bytes, content: bytes) -> bytes:
    """A grey picture of two pixels, with a chunk more."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(kind, content) + pixels + chunk(b"IEND", b"")


def tiff(bits: int, white_is_zero: bool, row: bytes) -> bytes:
    """A grey picture of two pixels."""
    begin = 8 + 2 + 12 * 7 + 4
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: int(not white_is_zero), 273: begin, 279: len(row)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + row


@pytest.mark.parametrize(
    "content, grey",
    [
        (png(8, b"\0\x50", b"tRNS", b"\0\0"), [255, 80]),
        (png(16, b"\0\x01\x50\0", b"tRNS", b"\0\x01"), [255, 80]),  # 16 bits of the value that is transparent
        (png(8, b"\0\x50", b"eXIf", b"junkjunkjunk"), [0, 80]),
        (b"P5 2 1 65535\n" + struct.pack(">HH", 65535, 256), [255, 1]),
        (b"P5 2 1 1023\n" + struct.pack(">HH", 1023, 512), [255, 128]),
        (tiff(12, False, b"\xff\xf8\x00"), [255, 128]),
        (tiff(16, False, struct.pack("<HH", 65535, 32768)), [255, 128]),
        (tiff(16, True, struct.pack("<HH", 65535, 32768)), [0, 127]),
    ],
    ids=[
        "transparent", "16 bits, transparent", "broken EXIF", "PGM of 16 bits", "PGM of 10 bits", "TIFF of 12 bits",
        "TIFF of 16 bits", "TIFF whose 0 is white",
    ],
)  # fmt: skip
def test_grey_pictures(tmp_path: Path, content: bytes, grey: list[int]) -> None:
    (tmp_path / "grey").write_bytes(content)
    assert images.load_image(tmp_path / "grey").tolist() == [[[value] * 3 for value in grey]]


def test_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°, clockwise
    Image.fromarray(noise(4, 8)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(images.load_image(tmp_path / "turned.png"), np.rot90(noise(4, 8), -1))


def test_numbers_are_no_photograph(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(images.ImageError, match=r"mode 'F' .*must have 8 or 16 bits a channel"):
        images.load_image(tmp_path / "f.tiff")


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        images.load_image(tmp_path / "nothing.png")
    with pytest.raises(IsADirectoryError):
        images.load_image(tmp_path)
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "text.png").write_bytes(content)
        with pytest.raises(images.ImageError, match=r"text\.png"):
            images.load_image(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(noise(40, 40)).save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert images.load_image(path).shape[2] == 3
        except images.ImageError as error:
            assert str(path) in str(error)  # noqa: PT017 - reading a damaged file may also succeed


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1600 pixels: Pillow would only warn
    assert images.load_image(tmp_path / "a.png").shape == (40, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(images.ImageError, match="more pixels than Pillow admits"):
        images.load_image(tmp_path / "a.png")


def test_what_pillow_cannot_decode_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(images.ImageError, match=r"Pillow cannot read .*weights\.h5: cannot find loader"):
        images.load_image(tmp_path / "weights.h5")


def test_no_other_program_is_started_for_a_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    with pytest.raises(images.ImageError, match=r"a\.eps is EPS"):
        images.load_image(tmp_path / "a.eps")


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two read at once, and the one that began first ends first."""
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
    begun, ended = threading.Event(), threading.Event()

    second = threading.Thread(target=images.load_image, args=[tmp_path / "a.png"])

    def upright(image: Any) -> Any:
        if threading.current_thread() is second:
            begun.set()
            assert ended.wait(10)
        else:
            second.start()
            assert begun.wait(10)
        return image

    monkeypatch.setattr(images, "_upright", upright)
    before = [*warnings.filters]
    images.load_image(tmp_path / "a.png")
    ended.set()
    second.join()
    assert [*warnings.filters] == before


def test_missing_pillow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(extras.MissingExtraError, match=r"pillow: install the extra 'demo' \("):
        images.load_image(tmp_path / "a.png")

"""Images that come one by one, in batches, by a pool of threads: a call of a model releases the GIL.

    python examples/thread_pool.py --images 64

Each thread of the pool takes a batch and runs it on one thread of sepconv's, so that as many batches are under way as
there are processors and no thread waits for another. What the images are prepared by (here a crop and a scaling) runs
in the same pool.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sepconv

SIZE = 96


def photographs(count: int) -> Iterator[NDArray[np.uint8]]:
    """Images of different sizes, as from a camera or a folder."""
    random = np.random.default_rng(0)
    for _ in range(count):
        height, width = random.integers(SIZE, 2 * SIZE, 2)
        yield random.integers(0, 256, (height, width, 3), np.uint8)


def batches(images: Iterable[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Lists of ``size`` images; the last may be shorter."""
    source = iter(images)
    while batch := list(islice(source, size)):
        yield batch


def to_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The middle of an image, scaled to [-1, 1]."""
    top, left = (image.shape[0] - SIZE) // 2, (image.shape[1] - SIZE) // 2
    return image[top : top + SIZE, left : left + SIZE].astype(np.float32) / 127.5 - 1.0


def classes(model: sepconv.Model, batch: Sequence[NDArray[np.uint8]]) -> list[int]:
    """The class of each image of a batch, on the thread that calls."""
    scores: Any = model(np.stack([to_input(image) for image in batch]), threads=1)
    return [int(index) for index in scores.argmax(axis=1)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)

    model = sepconv.models.mobilenet_v2(alpha=0.5, resolution=SIZE, classes=10)
    with ThreadPoolExecutor(options.workers) as pool:
        work = batches(photographs(options.images), options.batch)
        found = [index for batch in pool.map(lambda batch: classes(model, batch), work) for index in batch]
    alone = [index for image in photographs(options.images) for index in classes(model, [image])]
    print(f"{len(found)} images in batches of {options.batch} on {options.workers} threads")
    print("the same as one by one:", found == alone)


if __name__ == "__main__":
    main()

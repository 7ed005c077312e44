"""Classification mapped over a bag of images by dask.distributed: the way out of one machine.

    pip install '.[dask]'
    python examples/dask_bag.py
    python examples/dask_bag.py --scheduler tcp://HOST:8786

The model is sent to each worker once and kept there, its weights outside of the pickle's stream (protocol 5). A worker
packs them for its own processor. Without ``--scheduler`` a cluster of two processes is started on this machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import dask.bag
import numpy as np
from dask.distributed import Client, LocalCluster
from numpy.typing import NDArray

import sepconv

SIZE = 96


def photograph(number: int) -> NDArray[np.float32]:
    """One image [h, w, 3]; in a program of one's own, read from where all workers can read."""
    return np.random.default_rng(number).random((SIZE, SIZE, 3), dtype=np.float32)


def classify(images: Sequence[NDArray[np.float32]], model: sepconv.Model) -> list[int]:
    """The class of each image of a partition, in one batch."""
    found: Any = model(np.stack(list(images)), threads=1)
    return [int(index) for index in found.argmax(axis=1)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scheduler", help="of a running cluster whose workers have sepconv")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--partitions", type=int, default=6)
    options = parser.parse_args(arguments)

    model = sepconv.models.mobilenet_v2(alpha=0.35, resolution=SIZE, classes=10)
    cluster = options.scheduler or LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with Client(cluster) as client:
        everywhere = client.scatter(model, broadcast=True)
        images = dask.bag.from_sequence(range(options.images), npartitions=options.partitions).map(photograph)
        found = images.map_partitions(classify, everywhere).compute()
    if options.scheduler is None:
        cluster.close()
    here = classify([photograph(number) for number in range(options.images)], model)
    print(f"{len(found)} images in {options.partitions} partitions")
    print("the same classes as here:", list(found) == here)


if __name__ == "__main__":
    main()

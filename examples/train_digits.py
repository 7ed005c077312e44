"""Train a small MobileNet on scikit-learn's handwritten digits, with sepconv's convolutions and with torch's own.

    pip install '.[torch]' scikit-learn
    python examples/train_digits.py --seeds 3

Both networks have the same parameters by name, begin with the same values and see the same batches in the same order.
RMSprop, as MobileNet was trained. Prints the accuracy on digits that were not trained on.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sepconv.torch import SeparableConv2d, optimize

BATCH = 64
Block = Callable[[int, int, int], nn.Module]


def ours(channels: int, outputs: int, stride: int) -> nn.Module:
    """A depthwise-separable convolution as one operator."""
    return SeparableConv2d(channels, outputs, 3, stride=stride, padding=1, bias=False)


def torchs(channels: int, outputs: int, stride: int) -> nn.Module:
    """The same as two of torch's convolutions, under the same names."""
    depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=nn.Conv2d(channels, outputs, 1, bias=False)))


def network(block: Block) -> nn.Sequential:
    """[n, 1, 8, 8] to ten logits: a convolution, three separable ones, the mean over what is left of the image."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for channels, outputs, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1)):
        layers += [block(channels, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def digits(seed: int) -> list[Any]:
    """Images to train with and to test with, then the labels of each; a quarter is for the test."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    return list(train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels))


def train(model: nn.Module, images: Any, labels: Any, *, epochs: int, seed: int) -> None:
    """RMSprop with a learning rate that falls to nothing along a cosine."""
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3, alpha=0.9, momentum=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()


def accuracy(model: nn.Module, images: Any, labels: Any) -> float:
    """The share of images that an optimized copy, as it would be deployed, gets right."""
    with torch.inference_mode():
        return float((optimize(model.eval())(images).argmax(1) == labels).float().mean())


def run(epochs: int, seeds: int) -> list[tuple[float, float]]:
    """Accuracy with sepconv's convolutions and with torch's, for each seed."""
    results = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model, twin = network(ours), network(torchs)
        twin.load_state_dict(model.state_dict())
        train_images, test_images, train_labels, test_labels = digits(seed)
        for candidate in (model, twin):
            train(candidate, train_images, train_labels, epochs=epochs, seed=seed)
        results.append((accuracy(model, test_images, test_labels), accuracy(twin, test_images, test_labels)))
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="a network so small gains nothing from more")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print("seed  sepconv  torch")
    results = run(options.epochs, options.seeds)
    for seed, (own, other) in enumerate(results):
        print(f"{seed:4}   {own:6.2%}  {other:6.2%}")
    means = [sum(column) / len(results) for column in zip(*results, strict=True)]
    print(f"mean   {means[0]:6.2%}  {means[1]:6.2%}")


if __name__ == "__main__":
    main()

"""MobileNetV3 and ShuffleNetV2 in torch, built and named as torchvision builds and names them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

# kernel, expanded channels, output channels, squeeze-and-excite, activation, stride: Table 2 of the paper
SMALL = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
)


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: Any = None
) -> list[nn.Module]:
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), norm(outputs)]
    return layers if activation is None else [*layers, activation(inplace=True)]


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: Any) -> Any:
        scale = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, kernel: int, hidden: int, outputs: int, squeeze: bool, activation: str, stride: int
    ) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and inputs == outputs
        act = nn.Hardswish if activation == "HS" else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(nn.Sequential(*convolution(inputs, hidden, 1, activation=act)))
        layers.append(nn.Sequential(*convolution(hidden, hidden, kernel, stride, hidden, act)))
        if squeeze:
            layers.append(SqueezeExcitation(hidden, (hidden // 4 + 4) // 8 * 8))
        layers.append(nn.Sequential(*convolution(hidden, outputs, 1)))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        result = self.block(x)
        if self.use_res_connect:
            result += x
        return result


class MobileNetV3Small(nn.Module):
    def __init__(self, classes: int = 10, settings: Sequence[tuple[int, int, int, bool, str, int]] = SMALL) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*convolution(3, 16, 3, 2, activation=nn.Hardswish))]
        channels = 16
        for kernel, hidden, outputs, squeeze, activation, stride in settings:
            layers.append(InvertedResidual(channels, kernel, hidden, outputs, squeeze, activation, stride))
            channels = outputs
        layers.append(nn.Sequential(*convolution(channels, 6 * channels, 1, activation=nn.Hardswish)))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, 1024), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(1024, classes)
        )

    def forward(self, x: Any) -> Any:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def channel_shuffle(x: Any, groups: int) -> Any:
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, outputs // 2
        start = inputs if stride > 1 else half
        depthwise = convolution(start, start, 3, stride, start)
        self.branch1 = nn.Sequential(*depthwise, *convolution(start, half, 1, activation=nn.ReLU))
        self.branch2 = nn.Sequential(
            *convolution(start, half, 1, activation=nn.ReLU),
            *convolution(half, half, 3, stride, half),
            *convolution(half, half, 1, activation=nn.ReLU),
        )
        if stride == 1:
            self.branch1 = nn.Sequential()

    def forward(self, x: Any) -> Any:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    """Width 0.5."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*convolution(3, 24, 3, 2, activation=nn.ReLU))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 24
        for name, outputs, repeats in (("stage2", 48, 4), ("stage3", 96, 8), ("stage4", 192, 4)):
            units = [ShuffleUnit(channels, outputs, 2)]
            units += [ShuffleUnit(outputs, outputs, 1) for _ in range(repeats - 1)]
            setattr(self, name, nn.Sequential(*units))
            channels = outputs
        self.conv5 = nn.Sequential(*convolution(channels, 1024, 1, activation=nn.ReLU))
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(x.mean([2, 3]))

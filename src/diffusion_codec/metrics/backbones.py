"""The three ImageNet feature stacks LPIPS is built on, in torchvision's layout, without torchvision.

Layer order and parameter names follow `torchvision.models` (alexnet, squeezenet1_1, vgg16), so that its
published weights load unchanged. Only `.features` is built: LPIPS uses nothing else.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding), nn.ReLU(inplace=True)]


def alexnet_features() -> nn.Sequential:
    """AlexNet's convolutions (Krizhevsky 2014, "one weird trick"): N x 3 x H x W -> N x 256 x H/32 x W/32."""
    return nn.Sequential(
        *_conv(3, 64, 11, stride=4, padding=2),
        nn.MaxPool2d(3, 2),
        *_conv(64, 192, 5, padding=2),
        nn.MaxPool2d(3, 2),
        *_conv(192, 384, 3, padding=1),
        *_conv(384, 256, 3, padding=1),
        *_conv(256, 256, 3, padding=1),
        nn.MaxPool2d(3, 2),
    )


class Fire(nn.Module):
    """SqueezeNet's block: 1x1 squeeze, then 1x1 and 3x3 expansions side by side (arXiv 1602.07360)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x (2 * expanded) x H x W."""
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], dim=1)


def squeezenet_features() -> nn.Sequential:
    """SqueezeNet 1.1's convolutions: N x 3 x H x W -> N x 512 x H/16 x W/16."""
    return nn.Sequential(
        *_conv(3, 64, 3, stride=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


def vgg16_features() -> nn.Sequential:
    """VGG-16's convolutions (arXiv 1409.1556, D): N x 3 x H x W -> N x 512 x H/32 x W/32."""
    layers: list[nn.Module] = []
    channels = 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += _conv(channels, width, 3, padding=1)
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


FEATURES: dict[str, Callable[[], nn.Sequential]] = {
    "alexnet": alexnet_features,
    "squeezenet1_1": squeezenet_features,
    "vgg16": vgg16_features,
}

"""The ResNets of the CIFAR literature: three stages of basic blocks at 32, 16 and 8 px.

Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; with projections (1x1
convolution and batch norm) where the shape changes, and the wide variants (x4), as in Y. Tian et al., "Contrastive
Representation Distillation", ICLR 2020, whose tables the distillation literature compares with.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        return F.relu(self.bn2(self.conv2(out_BCHW)) + self.downsample(x_BCHW))


class CifarResNet(nn.Module):
    """depth = 6n + 2. widths: of the stem and of each stage."""

    def __init__(
        self, *, depth: int, widths: tuple[int, int, int, int], num_classes: int = 10, in_chans: int = 3
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ...), got {depth}")
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before, stages = widths[0], []
        for stage, width in enumerate(widths[1:]):
            blocks = [BasicBlock(before, width, 1 if stage == 0 else 2)]
            blocks += [BasicBlock(width, width, 1) for _ in range((depth - 2) // 6 - 1)]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        x_BCHW = self.layer3(self.layer2(self.layer1(x_BCHW)))
        logits_BC: Tensor = self.fc(x_BCHW.mean((2, 3)))
        return logits_BC


NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
CIFAR_RESNETS = {
    **{f"resnet{depth}": partial(CifarResNet, depth=depth, widths=NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(CifarResNet, depth=depth, widths=WIDE) for depth in (8, 32)},
}

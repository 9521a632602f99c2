"""Wide residual networks for CIFAR: pre-activation blocks, three stages at 32, 16 and 8 px.

Source: S. Zagoruyko, N. Komodakis, "Wide Residual Networks", BMVC 2016.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F


class WideBlock(nn.Module):
    """Norm and ReLU come before each convolution; where the shape changes, before the projection as well."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.projection = None if before == after else nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        active_BCHW = F.relu(self.bn1(x_BCHW))
        shortcut_BCHW = x_BCHW if self.projection is None else self.projection(active_BCHW)
        out_BCHW: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active_BCHW)))) + shortcut_BCHW
        return out_BCHW


class WideResNet(nn.Module):
    """depth = 6n + 4; widths are 16, then 16, 32 and 64 times `widen`."""

    def __init__(self, *, depth: int, widen: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, ...), got {depth}")
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        before, stages = 16, []
        for stage, base in enumerate((16, 32, 64)):
            width = base * widen
            blocks = [WideBlock(before, width, 1 if stage == 0 else 2)]
            blocks += [WideBlock(width, width, 1) for _ in range((depth - 4) // 6 - 1)]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.block1, self.block2, self.block3 = stages
        self.bn1 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.block3(self.block2(self.block1(self.conv1(x_BCHW))))
        logits_BC: Tensor = self.fc(F.relu(self.bn1(x_BCHW)).mean((2, 3)))
        return logits_BC


WIDE_RESNETS = {
    f"wrn_{depth}_{widen}": partial(WideResNet, depth=depth, widen=widen) for depth in (16, 40) for widen in (1, 2)
}

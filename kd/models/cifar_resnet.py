"""The ResNets of the CIFAR literature: three stages of basic blocks at 32, 16 and 8 px; and ResNet-18 in four, its stem
a 3x3 convolution where ImageNet's would leave 8 px of the 32.

Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; with projections (1x1
convolution and batch norm) where the shape changes, and the wide variants (x4), as in Y. Tian et al., "Contrastive
Representation Distillation", ICLR 2020, whose tables the distillation literature compares with. ResNet-18 is that of
section 4.1 with this stem, as is common for CIFAR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """blocks, widths: of each stage; each but the first halves the image. stem: its width. stem_stride 2 halves the
    image at once: a quarter of the work."""

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        stem: int,
        stem_stride: int = 1,
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, stem, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        before, stages = stem, []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            first = BasicBlock(before, width, 1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(count - 1))))
            before = width
        self.stages = len(stages)
        for number, layers in enumerate(stages, start=1):
            self.add_module(f"layer{number}", layers)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in range(1, self.stages + 1):
            x_BCHW = self.get_submodule(f"layer{number}")(x_BCHW)
        logits_BC: Tensor = self.fc(x_BCHW.mean((2, 3)))
        return logits_BC


def _three_stages(depth: int, *, stem: int, widths: tuple[int, int, int]) -> Callable[..., nn.Module]:
    """depth = 6n + 2: n blocks of two convolutions in each stage, the stem and the classifier."""
    return partial(CifarResNet, blocks=((depth - 2) // 6,) * 3, widths=widths, stem=stem)


def cifar_resnet18(
    *, channels: Sequence[int] = (64, 128, 256, 512), stem_stride: int = 1, num_classes: int = 10, in_chans: int = 3
) -> nn.Module:
    """ResNet-18 for small images: two blocks in each of four stages of so many channels; the stem has the first's."""
    if len(channels) != 4:
        raise ValueError(f"channels: expected one number a stage, four, got {len(channels)}")
    return CifarResNet(
        blocks=(2, 2, 2, 2),
        widths=channels,
        stem=channels[0],
        stem_stride=stem_stride,
        num_classes=num_classes,
        in_chans=in_chans,
    )


CIFAR_RESNETS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": _three_stages(depth, stem=16, widths=(16, 32, 64)) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": _three_stages(depth, stem=32, widths=(64, 128, 256)) for depth in (8, 32)},
    "cifar_resnet18": cifar_resnet18,
}

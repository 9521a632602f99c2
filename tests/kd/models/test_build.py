from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from kd.models.build import ModelError, build, describe, on_device
from tests.kd.helpers import CPU

# At 3 channels and 100 classes; torchvision's ResNets and ViT-B/16 count the same.
PARAMETERS = {
    "vit_base_patch16_224": 85_875_556,
    "vit_tiny_patch16_224": 5_543_716,
    "resnet18": 11_227_812,
    "resnet152": 58_348_708,
    "mobilevit_s": 5_001_732,
}


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", ["small_cnn", "resnet10t"])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    first = weights(build(name, args={}, classes=10, channels=3, seed=1))
    torch.rand(5)  # whatever was drawn before
    again = weights(build(name, args={}, classes=10, channels=3, seed=1))
    other = weights(build(name, args={}, classes=10, channels=3, seed=2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_classes_channels_and_arguments_reach_the_model() -> None:
    for name in ("small_cnn", "resnet10t"):
        model = build(name, args={}, classes=7, channels=1)
        assert model.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    tiny: Any = build("vit_tiny_patch16_224", args={"img_size": 8, "patch_size": 4, "depth": 2}, classes=7, channels=1)
    assert tiny.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    assert len(tiny.blocks) == 2


@pytest.mark.parametrize(("name", "near"), [("smallcnn", "small_cnn"), ("resnet_18", "resnet18")])
def test_an_unknown_name_is_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(ModelError, match=rf"unknown model '{name}'.*did you mean .*{near}"):
        build(name, args={}, classes=10, channels=3)


def test_a_name_near_to_nothing_is_just_unknown() -> None:
    with pytest.raises(
        ModelError, match=r"^unknown model '@@@': neither ours \(small_cnn, resnet8, .*wrn_40_2\) nor timm's$"
    ):
        build("@@@", args={}, classes=10, channels=3)


@pytest.mark.parametrize("name", ["small_cnn", "resnet10t"])
def test_arguments_the_model_refuses_are_named(name: str) -> None:
    with pytest.raises(
        ModelError, match=rf"model {name}: it cannot be built with these arguments: TypeError.*'colour'"
    ):
        build(name, args={"colour": 3}, classes=10, channels=3)


def test_small_cnn_has_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match="model small_cnn: there are no pretrained weights"):
        build("small_cnn", args={}, classes=10, channels=3, pretrained=True)


def test_a_timm_model_without_weights_is_told_before_any_download() -> None:
    with pytest.raises(ModelError, match=r"^model cspresnet50w: timm has no pretrained weights for it; give"):
        build("cspresnet50w", args={}, classes=10, channels=3, pretrained=True)


def cached_in(folder: Path, name: str, weights: dict[str, torch.Tensor]) -> None:
    """The hub's cache as a download of the model leaves it."""
    place = folder / f"models--timm--{name}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0123abcd")
    (place / "snapshots/0123abcd").mkdir(parents=True)
    safetensors.torch.save_file(weights, place / "snapshots/0123abcd/model.safetensors")


def test_pretrained_weights_come_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network; the classifier for other classes, and it alone, is drawn from the seed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    given = timm.create_model("test_resnet").state_dict()
    cached_in(tmp_path, "test_resnet.r160_in1k", given)
    first, second = (
        build("test_resnet", args={}, classes=10, channels=3, pretrained=True, seed=seed).state_dict()
        for seed in (0, 1)
    )
    assert all(torch.equal(first[name], given[name]) for name in given if not name.startswith("fc."))
    assert first["fc.weight"].shape[0] == 10
    assert {name for name in first if not torch.equal(first[name], second[name])} == {"fc.weight", "fc.bias"}


def test_pretrained_weights_that_cannot_be_had_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or it would try for a minute
    with pytest.raises(ModelError) as caught:
        build("test_resnet", args={}, classes=10, channels=3, pretrained=True)
    text = str(caught.value)
    assert text.startswith("model test_resnet: its pretrained weights are neither in the local cache nor can they be")
    assert "hf download timm/test_resnet.r160_in1k" in text
    assert "or give the model a checkpoint; or set pretrained: false" in text
    assert "\n" not in text


def perceptron(num_classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))


def of_channels(num_classes: int, in_chans: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_chans, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, num_classes))


def counting_with_tensors(num_classes: int) -> nn.Module:
    """As stochastic depth often does: reads numbers from a tensor, which the meta device does not have."""
    return perceptron(num_classes, width=int(torch.linspace(1, 4, 2)[-1].item()))


def test_a_factory_makes_the_model_from_what_it_takes() -> None:
    assert build("mine", args={"width": 8}, classes=7, channels=1, factory=perceptron)[1].out_features == 8  # type: ignore[index]
    assert build("mine", args={}, classes=7, channels=2, factory=of_channels)[0].in_channels == 2  # type: ignore[index]
    for seed in (0, 1):
        a, b = (build("mine", args={}, classes=7, channels=1, factory=perceptron, seed=seed) for _ in range(2))
        assert torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("factory", [perceptron, counting_with_tensors])
def test_a_factorys_model_is_described(factory: Any) -> None:
    facts = describe("mine", args={}, classes=10, channels=1, size=(8, 8), factory=factory)
    assert (facts.parameters, facts.macs) == (64 * 4 + 4 + 4 * 10 + 10, 64 * 4 + 4 * 10)


def test_what_a_factory_does_wrong_is_said() -> None:
    def describe_it(factory: Any, **args: Any) -> None:
        describe("mine", args=args, classes=10, channels=1, size=(8, 8), factory=factory)

    with pytest.raises(ModelError, match=r"model mine: it cannot be built with these arguments: TypeError: .*'colour'"):
        describe_it(perceptron, colour=3)
    with pytest.raises(ModelError, match=r"model mine: its factory gave dict, not a torch.nn.Module"):
        describe_it(lambda num_classes: {})
    with pytest.raises(ModelError, match=r"model mine: gives shape \(1, 64\) for one image; expected .* \(1, 10\)"):
        describe_it(lambda num_classes: nn.Flatten())
    with pytest.raises(ModelError, match="model mine: cannot take 1 x 8 x 8 images"):
        describe_it(lambda num_classes: nn.Linear(5, num_classes))
    with pytest.raises(ModelError, match="model mine: in training it gives tuple, not logits alone"):
        describe_it(TwoHeads)
    with pytest.raises(ModelError, match="model mine: none of its parameters can be trained"):
        describe_it(lambda num_classes: perceptron(num_classes).requires_grad_(False))
    with pytest.raises(ModelError, match="model mine: its state '_extra_state' is no tensor"):
        describe_it(WithState)


class TwoHeads(nn.Module):
    """As models with an auxiliary classifier do."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.inner = perceptron(num_classes)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.inner(x)
        return (y, y) if self.training else y


class WithState(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(perceptron(num_classes))

    def get_extra_state(self) -> Any:
        return {"calls": 0}


def test_pretrained_weights_that_do_not_fit_are_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached_in(tmp_path, "test_resnet.r160_in1k", timm.create_model("test_resnet").state_dict())
    args = {"channels": [16, 16, 32, 32]}
    with pytest.raises(ModelError, match=r"model test_resnet: it cannot be built with these arguments: RuntimeError"):
        build("test_resnet", args=args, classes=10, channels=3, pretrained=True)


def test_small_cnn_by_hand() -> None:
    facts = describe("small_cnn", args={}, classes=10, channels=3, size=(32, 32))
    assert facts.parameters == 106_826
    model = build("small_cnn", args={}, classes=10, channels=3)
    assert weights(model).numel() == 106_826
    # Four bytes each; the running mean and variance of 240 channels; an int64 counter in each of four batch norms.
    assert facts.size_bytes == 4 * 106_826 + 4 * 2 * 240 + 4 * 8
    convolutions = [32**2 * 16 * 27, 16**2 * 32 * 144, 8**2 * 64 * 288, 4**2 * 128 * 576]
    assert facts.macs == sum(convolutions) + 128 * 64 + 64 * 10


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameter_counts(name: str, parameters: int) -> None:
    assert describe(name, args={}, classes=100, channels=3, size=(224, 224)).parameters == parameters


def test_a_description_counts_what_the_model_holds_and_scales_with_its_image() -> None:
    model = build("resnet10t", args={}, classes=10, channels=3)
    small, large = (describe("resnet10t", args={}, classes=10, channels=3, size=(s, s)) for s in (32, 64))
    assert small.parameters == large.parameters == weights(model).numel()
    assert small.size_bytes == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    head = 512 * 10
    assert large.macs - head == 4 * (small.macs - head)


def test_attention_is_counted() -> None:
    args = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "num_heads": 2, "depth": 1}
    facts = describe("vit_tiny_patch16_224", args=args, classes=10, channels=3, size=(16, 16))
    tokens, width = 17, 8
    patches = 16 * width * 3 * 4 * 4
    products = 2 * tokens * tokens * width  # queries by keys, weights by values
    layers = tokens * (width * 3 * width + width * width + 2 * width * 4 * width)
    assert facts.macs == patches + products + layers + width * 10


def test_describing_leaves_the_default_device_alone() -> None:
    describe("small_cnn", args={}, classes=10, channels=3, size=(32, 32))
    assert torch.zeros(1).device.type == "cpu"
    with pytest.raises(ModelError):
        describe("small_cnn", args={}, classes=10, channels=3, size=(8, 8))
    assert torch.zeros(1).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "args", "size", "shape"),
    [
        ("vit_tiny_patch16_224", {}, (32, 32), "3 x 32 x 32"),
        ("small_cnn", {}, (8, 15), "3 x 8 x 15"),
    ],
)
def test_images_of_a_wrong_size_are_refused_by_name(
    name: str, args: dict[str, Any], size: tuple[int, int], shape: str
) -> None:
    with pytest.raises(ModelError, match=f"model {name}: cannot take {shape} images"):
        describe(name, args=args, classes=10, channels=3, size=size)


def test_a_model_on_its_device_has_convolutions_with_channels_last() -> None:
    model = build("small_cnn", args={}, classes=10, channels=3)
    before = weights(model)
    moved = on_device(model, CPU)
    kernels = [p for p in moved.parameters() if p.dim() == 4]
    assert len(kernels) == 4
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert torch.equal(weights(moved), before)


def test_small_cnn_takes_16_px_and_no_less() -> None:
    describe("small_cnn", args={}, classes=10, channels=1, size=(16, 16))
    with pytest.raises(ModelError):
        describe("small_cnn", args={}, classes=10, channels=1, size=(15, 15))

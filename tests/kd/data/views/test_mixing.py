from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kd.data.views.boxes import box_mask
from kd.data.views.policy import Mixing, ViewPolicy
from kd.data.views.views import Labels
from kd.draws import permutation
from tests.kd.helpers import noise, stream, whole

CROPPED = ViewPolicy(crop_padding=2, horizontal_flip=True)
MIXUP = Mixing(mixup_alpha=1.0)
CUTMIX = Mixing(cutmix_alpha=1.0)
BOTH = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0)


def test_mixup_is_the_weighted_mean_of_two_views() -> None:
    split = noise(200)
    mixed = stream(split, replace(CROPPED, mixing=MIXUP)).epoch(3)
    x_NCHW = whole(stream(split, CROPPED).epoch(3)).double().numpy()  # partners are cropped and flipped as well
    weight_N, partner_N = (mixed.draws[name].numpy() for name in ("weight", "partner"))
    weight = weight_N[:, None, None, None]
    expected_NCHW = weight * x_NCHW + (1 - weight) * x_NCHW[partner_N]
    # Values reach 2.3: a few roundings of float32 on that scale.
    np.testing.assert_allclose(whole(mixed).numpy(), expected_NCHW, atol=1e-6, rtol=0)
    assert weight_N.dtype == np.float64


def test_cutmix_pastes_a_patch_of_the_partners_view_and_weighs_by_the_pixels_left() -> None:
    split = noise(200, size=(7, 9))
    mixed = stream(split, replace(CROPPED, crop_padding=0, mixing=CUTMIX)).epoch(3)
    x_NCHW = whole(stream(split, replace(CROPPED, crop_padding=0)).epoch(3))
    got_NCHW, partner_NCHW = whole(mixed), x_NCHW[mixed.draws["partner"]]
    inside_NHW = box_mask(mixed.draws["patch"], height=7, width=9)
    expected_NCHW = torch.where(inside_NHW[:, None], partner_NCHW, x_NCHW)
    assert torch.equal(got_NCHW, expected_NCHW)
    left_N = 63 - inside_NHW.sum(dim=(1, 2)).numpy()
    np.testing.assert_allclose(mixed.draws["weight"].numpy(), left_N / 63, rtol=1e-12)
    own_N = (got_NCHW == x_NCHW).all(dim=1).sum(dim=(1, 2)).numpy()  # pixels that equal by chance are as good as none
    elsewhere_N = mixed.draws["partner"].numpy() != np.arange(200)
    assert (own_N == left_N)[elsewhere_N].all()
    assert len(np.unique(left_N)) > 20


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weights_are_drawn_from_a_beta_distribution(alpha: float) -> None:
    split = noise(5000, channels=1, size=(1, 1))
    weight_N = stream(split, ViewPolicy(mixing=Mixing(mixup_alpha=alpha))).epoch(0).draws["weight"].numpy()
    variance = 1 / (4 * (2 * alpha + 1))
    assert weight_N.min() >= 0
    assert weight_N.max() <= 1
    assert weight_N.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / 5000))
    assert weight_N.var() == pytest.approx(variance, rel=0.08)


def test_cutmix_patches_lose_what_lies_beyond_the_border() -> None:
    draws = stream(noise(2000, channels=1, size=(200, 200)), ViewPolicy(mixing=CUTMIX)).epoch(0).draws
    # Of a side s around a centre anywhere, s - s^2 / 4 is left on average. With s^2 uniform (alpha 1) a patch then has
    # 1/2 - 1/5 + 1/48 of the image, less what is rounded down to whole pixels.
    assert draws["weight"].mean().item() == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.025)
    assert draws["pasted"].all()


def test_each_image_draws_mixup_or_cutmix_where_both_are_given() -> None:
    draws = stream(noise(4000, channels=1), ViewPolicy(mixing=BOTH)).epoch(0).draws
    assert abs(draws["pasted"].float().mean().item() - 0.5) < 0.032  # 4 sigma
    shares = draws["weight"] * 64
    whole_pixels = (shares - shares.round()).abs() < 1e-9
    assert whole_pixels[draws["pasted"]].all()
    assert not whole_pixels[~draws["pasted"]].any()


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_mixing_happens_with_its_probability(mixing: Mixing, probability: float) -> None:
    split = noise(2000, channels=1)
    epoch = stream(split, replace(CROPPED, mixing=replace(mixing, probability=probability))).epoch(1)
    bare_NCHW = whole(stream(split, CROPPED).epoch(1))
    alone_N = (whole(epoch) == bare_NCHW).flatten(1).all(dim=1)
    assert alone_N[epoch.draws["weight"] == 1].all()  # to the bit
    # A patch of less than a pixel, or an image as its own partner, leaves a few alone.
    assert 1 - alone_N.float().mean().item() == pytest.approx(probability, abs=0.044 + 0.03)
    if probability == 0:
        assert alone_N.all()
        assert (epoch.draws["weight"] == 1).all()


def test_partners_are_a_permutation_of_the_epoch() -> None:
    views = stream(noise(500, channels=1), ViewPolicy(mixing=MIXUP, stream=2))
    for epoch in (0, 1):
        partner_N = views.epoch(epoch).draws["partner"]
        assert sorted(partner_N.tolist()) == list(range(500))
        assert (partner_N == torch.arange(500)).sum() < 8  # one is expected
    assert (views.epoch(0).draws["partner"] != views.epoch(1).draws["partner"]).sum() > 450


def test_partners_of_the_epoch_do_not_depend_on_its_batches() -> None:
    views = stream(noise(50), ViewPolicy(mixing=BOTH))
    batches = torch.split(torch.randperm(50, generator=torch.Generator().manual_seed(0)), 16)
    assert torch.equal(whole(views.epoch(1, batches=batches)), whole(views.epoch(1)))


def test_partners_of_the_batch_are_the_batch_in_reverse() -> None:
    split = noise(50)
    views = stream(split, replace(CROPPED, mixing=replace(MIXUP, partners="batch")))
    batches = torch.split(torch.from_numpy(permutation(50, key=("order", 0, 1))), 16)
    epoch = views.epoch(1, batches=batches)
    x_NCHW = whole(stream(split, CROPPED).epoch(1)).double()
    for index_B in batches:
        weight = epoch.draws["weight"][index_B][:, None, None, None]
        expected_BCHW = weight * x_NCHW[index_B] + (1 - weight) * x_NCHW[index_B.flip(0)]
        torch.testing.assert_close(epoch.batch(index_B).double(), expected_BCHW, atol=1e-6, rtol=0)
        labels = epoch.labels(index_B)
        assert labels.second_B is not None
        assert torch.equal(labels.second_B, split.labels_N[index_B.flip(0)])
        # A part of the batch has the same partners: those of the whole one.
        assert torch.equal(epoch.batch(index_B[:1]), epoch.batch(index_B)[:1])


def test_partners_of_the_batch_need_the_batches() -> None:
    views = stream(noise(50), ViewPolicy(mixing=replace(MIXUP, partners="batch")))
    with pytest.raises(ValueError, match=r"views.mixing.partners 'batch' takes each image's partner from its batch"):
        views.epoch(0)


def test_a_mixed_image_has_both_labels_and_its_weight() -> None:
    split = noise(100)
    epoch = stream(split, ViewPolicy(mixing=BOTH)).epoch(0)
    index_B = torch.tensor([7, 99, 0, 7])
    labels = epoch.labels(index_B)
    assert labels.second_B is not None
    assert labels.weight_B is not None
    assert torch.equal(labels.first_B, split.labels_N[index_B])
    assert torch.equal(labels.second_B, split.labels_N[epoch.draws["partner"][index_B]])
    assert torch.equal(labels.weight_B, epoch.draws["weight"][index_B].float())


def test_an_image_that_is_not_mixed_has_its_label() -> None:
    split = noise(100)
    index_B = torch.tensor([7, 99, 0, 7])
    labels = stream(split, CROPPED).epoch(0).labels(index_B)
    assert torch.equal(labels.first_B, split.labels_N[index_B])
    assert labels.second_B is labels.weight_B is None
    assert torch.equal(labels.main, labels.first_B)


def test_the_main_label_is_the_heavier_and_the_own_one_of_equals() -> None:
    first_B, second_B = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8])
    labels = Labels(first_B, second_B, torch.tensor([1.0, 0.49, 0.5, 0.0]))
    assert labels.main.tolist() == [1, 6, 3, 8]

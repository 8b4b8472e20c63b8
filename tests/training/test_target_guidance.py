import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, UnsupportedClassifier
from failscape.training.guidance import target_divergence
from failscape.training.target_guidance import TargetGuidance


def brightness() -> Classifier:
    """Logits of the mean grey value and of its negative."""

    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean(dim=(1, 2, 3))
            return torch.stack([8 * mean, 8 * (1 - mean)], dim=1)

    return Classifier(Network(), image_shape=(1, 4, 4), class_names=("bright", "dark"))


def test_is_the_cross_entropy_where_the_target_is_one_class():
    logits = torch.randn(6, 3, dtype=torch.float64)
    one = torch.tensor([0.0, 1.0, 0.0])

    expected = F.cross_entropy(logits, torch.ones(6, dtype=torch.long), reduction="none")
    torch.testing.assert_close(target_divergence(logits, one), expected)


def test_is_the_divergence_from_the_target_and_zero_on_it():
    target = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    logits = torch.randn(6, 3, dtype=torch.float64)
    p = logits.softmax(dim=1)

    torch.testing.assert_close(target_divergence(logits, target), (target * (target / p).log()).sum(dim=1))
    assert target_divergence(target.log()[None], target).abs().max() < 1e-12


def test_is_a_mean_over_images_that_falls_toward_the_target():
    guidance = TargetGuidance(brightness(), torch.tensor([0.5, 0.5]), weight=1.0, guard=False)
    rng = torch.Generator().manual_seed(0)
    x = torch.full((4, 1, 4, 4), 0.9, requires_grad=True)
    loss = guidance(x, rng=rng)
    (gradient,) = torch.autograd.grad(loss, x)

    p = 1 / (1 + math.exp(8 * 0.1 - 8 * 0.9))
    assert loss.item() == pytest.approx(0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p)), rel=1e-4)
    # A step against the gradient darkens, toward the grey on which both are as likely.
    assert (gradient > 0).all()


def test_comes_in_by_its_ramp():
    guidance = TargetGuidance(brightness(), torch.tensor([0.5, 0.5]), weight=3.0, start=0.2, full=0.4)
    assert [guidance.weight(t) for t in (0.1, 0.3, 0.5)] == pytest.approx([0, 1.5, 3.0])


def test_gives_nan_for_images_that_are_not_finite():
    guidance = TargetGuidance(brightness(), torch.tensor([0.5, 0.5]), weight=1.0)
    assert guidance(torch.full((2, 1, 4, 4), torch.nan), rng=torch.Generator()).isnan()


def test_refuses_a_target_for_other_classes_and_a_classifier_without_gradients():
    with pytest.raises(ClassifierError, match=r"2 classes of .*, but got one for 3"):
        TargetGuidance(brightness(), torch.ones(3) / 3, weight=1.0)
    blind = Classifier(lambda x: torch.zeros(len(x), 2), image_shape=(1, 4, 4))
    with pytest.raises(UnsupportedClassifier, match="latent space"):
        TargetGuidance(blind, torch.ones(2) / 2, weight=1.0)

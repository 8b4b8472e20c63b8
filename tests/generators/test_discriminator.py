import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from failscape.generators import Condition, ConditionSpace
from failscape.generators.discriminator import ConditionalHead, ProjectionDiscriminator, ResidualTrunk
from failscape.generators.layers import normalized

SPACE = ConditionSpace(num_classes=3)


def build(
    shape: tuple[int, int, int] = (1, 12, 8), space: ConditionSpace | None = SPACE, **options: Any
) -> ProjectionDiscriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ProjectionDiscriminator(shape, (6, 4), space, **options).eval()


def images(n: int, shape: tuple[int, int, int] = (1, 12, 8), seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def conditions(n: int) -> Condition:
    return Condition(y=torch.arange(n) % 3, score=torch.linspace(0.5, 1, n))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 12, 20), (1, 7, 5)])
@pytest.mark.parametrize("options", [{}, {"concatenate": True}, {"space": None}])
def test_gives_one_score_an_image_of_any_size(shape: tuple[int, int, int], options: dict[str, Any]) -> None:
    discriminator = build(shape, **options)
    given = None if "space" in options else conditions(4)
    score = discriminator(discriminator.views(images(4, shape)), given)
    assert score.shape == (4,)
    assert score.dtype == torch.float32
    assert score.std() > 0


@pytest.mark.parametrize("concatenate", [False, True])
def test_real_and_generated_halves_of_a_batch_never_mix(concatenate: bool) -> None:
    discriminator, asked = build(concatenate=concatenate), conditions(8)
    real = discriminator.views(images(8))
    alone = discriminator(real, asked)
    for seed in (1, 2):
        fake = discriminator.views(images(8, seed=seed))
        both = discriminator(torch.cat([real, fake]), asked.twice())
        assert torch.allclose(both[:8], alone, atol=1e-5)
        swapped = discriminator(torch.cat([fake, real]), asked.twice())
        assert torch.allclose(swapped[8:], alone, atol=1e-5)


def test_within_a_group_neighbours_are_seen() -> None:
    discriminator = build()
    x = discriminator.views(images(8))
    other = torch.cat([x[:1], discriminator.views(images(1, seed=3)), x[2:]])
    moved = (discriminator(other, conditions(8)) - discriminator(x, conditions(8))).abs() > 1e-6
    assert moved.tolist() == [True] * 4 + [False] * 4


def test_permuted_groups_and_images_within_them_give_permuted_scores() -> None:
    discriminator, asked = build(), conditions(8)
    x = discriminator.views(images(8))
    score = discriminator(x, asked)
    for order in ([4, 5, 6, 7, 0, 1, 2, 3], [2, 0, 3, 1, 7, 6, 5, 4]):
        rows = torch.tensor(order)
        assert torch.allclose(discriminator(x[rows], asked[rows]), score[rows], atol=1e-5)


def test_images_laid_out_either_way_are_scored_alike() -> None:
    discriminator = build((3, 12, 8))
    x = discriminator.views(images(4, (3, 12, 8)))
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(discriminator(x, conditions(4)), discriminator(last, conditions(4)), atol=1e-6)


def test_a_faint_image_is_looked_at_with_full_contrast_too() -> None:
    discriminator = build((2, 12, 8))
    x = images(4, (2, 12, 8))
    plain, faint = discriminator.views(x), discriminator.views(0.2 + 0.1 * x)
    assert plain.shape == (4, 4, 12, 8)
    assert torch.equal(plain[:, :2], x)
    assert torch.equal(faint[:, :2], 0.2 + 0.1 * x)
    for views in (plain, faint):
        assert torch.allclose(views[:, 2:].mean(dim=(1, 2, 3)), torch.tensor(0.5), atol=1e-5)
        assert torch.allclose(views[:, 2:].std(dim=(1, 2, 3), correction=0), torch.tensor(0.5), atol=0.05)
    assert torch.allclose(faint[:, 2:], plain[:, 2:], atol=0.15)


def test_an_image_without_any_contrast_is_given_none() -> None:
    discriminator = build()
    for grey in (0.0, 0.3):
        x = torch.full((4, 1, 12, 8), grey, requires_grad=True)
        views = discriminator.views(x)
        assert torch.allclose(views[:, 1:], torch.tensor(0.5), atol=1e-4)
        (gradient,) = torch.autograd.grad(discriminator(views, conditions(4)).sum(), x)
        assert gradient.isfinite().all()


# The head.


def test_the_head_projects_the_condition_on_the_features() -> None:
    torch.manual_seed(0)
    head = ConditionalHead(16, SPACE)
    features, asked = torch.randn(5, 16), conditions(5)
    assert head.encoding is not None
    first, second = head.embed
    hidden = F.leaky_relu(
        F.linear(head.encoding(asked), first.weight / math.sqrt(head.encoding.width), first.bias), 0.2
    )
    embedded = normalized(F.linear(hidden, second.weight / 4, second.bias))
    unconditional = features @ head.score.weight[0] / 4 + head.score.bias
    expected = unconditional + (embedded * features).sum(dim=1) / 4
    assert torch.allclose(head(features, asked), expected, atol=1e-5)


def test_the_paper_s_baseline_concatenates() -> None:
    torch.manual_seed(0)
    head = ConditionalHead(16, SPACE, concatenate=True)
    features, asked = torch.randn(5, 16), conditions(5)
    assert head.encoding is not None
    joined = torch.cat([features, head.encoding(asked)], dim=1)
    hidden = F.leaky_relu(F.linear(joined, head.hidden.weight / math.sqrt(joined.shape[1]), head.hidden.bias), 0.2)
    assert torch.allclose(head(features, asked), hidden @ head.score.weight[0] / 4 + head.score.bias, atol=1e-5)
    assert not hasattr(head, "embed")


def test_without_a_space_there_is_no_condition_to_see() -> None:
    torch.manual_seed(0)
    for concatenate in (False, True):
        head = ConditionalHead(16, None, concatenate=concatenate)
        features = torch.randn(5, 16)
        assert torch.allclose(head(features, None), features @ head.score.weight[0] / 4 + head.score.bias, atol=1e-5)
        assert set(head.state_dict()) == {"score.weight", "score.bias"}


@pytest.mark.parametrize("concatenate", [False, True])
def test_the_score_follows_class_and_confidence(concatenate: bool) -> None:
    discriminator = build(concatenate=concatenate)
    x = discriminator.views(images(4))
    scores = [discriminator(x, Condition.of(y, score, n=4)) for y, score in ((0, 0.6), (0, 0.9), (1, 0.6))]
    assert (scores[0] - scores[1]).abs().min() > 1e-5
    assert (scores[0] - scores[2]).abs().min() > 1e-5


# The trunk, and gradients through all.


def test_the_trunk_of_an_encoder_sees_each_image_alone() -> None:
    torch.manual_seed(0)
    trunk, x = ResidualTrunk((1, 12, 8), (6, 4)), images(6)
    assert trunk(x).shape == (6, trunk.width)
    assert torch.allclose(torch.cat([trunk(each[None]) for each in x]), trunk(x), atol=1e-5)


def test_gradients_agree_with_finite_differences_to_second_order() -> None:
    # The penalty differentiates the gradient of the score once more.
    torch.manual_seed(0)
    # The minibatch deviation, float32 on purpose, has a test of its own.
    trunk = ResidualTrunk((1, 4, 4), (3,)).double()
    x = images(2, (1, 4, 4)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: trunk(x)[:, :4], (x,))
    assert torch.autograd.gradgradcheck(lambda x: trunk(x)[:, :4], (x,))

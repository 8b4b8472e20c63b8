import math

import pytest
import torch
from torch.nn import functional as F

from failscape.errors import GeneratorError
from failscape.generators import Progressive


@pytest.fixture
def progressive() -> Progressive:
    torch.manual_seed(0)
    return Progressive(image_shape=(1, 28, 28), channels=(8, 6, 4), latent_dim=3).eval()


@pytest.mark.parametrize(("stage", "side"), [(0.0, 7), (0.5, 14), (1.0, 14), (1.25, 28), (2.0, 28)])
def test_draws_and_scores_images_of_the_size_of_its_stage(progressive, stage, side):
    progressive.stage = stage
    z = torch.randn(2, 3)

    assert progressive.draw(z).shape == (2, 1, side, side)
    assert progressive.shown(torch.rand(2, 1, 28, 28)).shape == (2, 1, side, side)
    assert progressive.score(progressive.draw(z)).shape == (2,)
    assert progressive(z).shape == (2, 1, 28, 28)


def test_a_resolution_fades_in_without_a_jump(progressive):
    """Just above a whole stage it draws the image of the stage below, enlarged; just below the next one, that."""
    z = torch.randn(2, 3)
    drawn = {}
    for stage in (1.0, 1.0 + 1e-6, 2.0 - 1e-6, 2.0):
        progressive.stage = stage
        drawn[stage] = progressive.draw(z)

    torch.testing.assert_close(F.interpolate(drawn[1.0], scale_factor=2), drawn[1.0 + 1e-6], atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn[2.0], drawn[2.0 - 1e-6], atol=1e-4, rtol=0)


def test_the_critic_fades_in_without_a_jump(progressive):
    small = torch.rand(2, 1, 14, 14)
    large = F.interpolate(small, scale_factor=2)
    scores = []
    for stage, x in ((1.0, small), (1.0 + 1e-6, large)):
        progressive.stage = stage
        scores.append(progressive.score(x))

    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)


def test_shows_real_images_as_sharp_as_the_mixture_draws(progressive):
    x = torch.rand(2, 1, 28, 28)
    progressive.stage = 1.25
    coarse = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)

    torch.testing.assert_close(progressive.shown(x), 0.75 * coarse + 0.25 * x)


def test_only_the_direction_of_a_latent_counts(progressive):
    z = progressive.sample_latents(50, rng=torch.Generator().manual_seed(0))

    torch.testing.assert_close(z.norm(dim=1), torch.full((50,), math.sqrt(3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(progressive(z), progressive(3 * z), rtol=1e-4, atol=1e-4)
    assert progressive.log_prior(z).unique().numel() == 1


def test_refuses_sizes_that_do_not_halve():
    with pytest.raises(GeneratorError, match="base·4 pixels for 3 resolutions"):
        Progressive(image_shape=(1, 30, 30), channels=(8, 6, 4))

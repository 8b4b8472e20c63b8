import pytest
import torch
from torch import Tensor

from failscape import load_classifier, load_generator
from failscape.explain.second_opinion import SecondOpinion


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Stripes are learnt sooner than garments."""
    if "slow" not in request.keywords:
        monkeypatch.setattr("failscape.explain.second_opinion._LEAST_STEPS", 150)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(n: int, shape: tuple[int, int, int] = (1, 12, 8), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of which a half is brighter, and the log-probabilities of a classifier that says which."""
    x = 0.4 * torch.rand(n, *shape, generator=seeded(seed))
    upper = torch.rand(n, generator=seeded(seed + 1)) < 0.5
    x[upper, :, : shape[1] // 2] += 0.5
    x[~upper, :, shape[1] // 2 :] += 0.5
    height = shape[1] // 2
    logit = 20 * (x[:, :, :height].mean(dim=(1, 2, 3)) - x[:, :, height:].mean(dim=(1, 2, 3)))
    return x, torch.stack([logit, -logit], dim=1).log_softmax(dim=1)


@pytest.mark.parametrize("shape", [(1, 12, 8), (3, 4, 4), (1, 80, 64)])
def test_it_learns_what_the_classifier_says_of_images_of_any_size(shape: tuple[int, int, int]) -> None:
    opinion = SecondOpinion(*halves(600, shape), networks=2, rng=seeded())
    x, log_probs = halves(200, shape, seed=5)
    said = opinion(x)
    assert said.shape == (200, 2)
    assert (said.argmax(dim=1) == log_probs.argmax(dim=1)).float().mean() > 0.95


def test_it_can_be_followed_back_to_the_image() -> None:
    opinion = SecondOpinion(*halves(300), networks=2, rng=seeded())
    x = halves(4, seed=5)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(opinion(x)[:, 0].sum(), x)
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()
    # One image does not hang on those beside it.
    assert torch.allclose(torch.cat([opinion(each[None]) for each in x]), opinion(x), atol=1e-5)


def test_a_seed_decides_everything_and_nothing_else_is_drawn_from() -> None:
    examples, state = halves(200), torch.random.get_rng_state()
    x = halves(10, seed=5)[0]
    first, again, other = (SecondOpinion(*examples, networks=1, rng=seeded(seed))(x) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_of_garments_it_says_what_the_classifier_is_sure_of_and_is_no_copy_of_it() -> None:
    classifier, generator = load_classifier("embedded:fashion"), load_generator("embedded:fashion-wgan")
    with torch.no_grad():
        x = generator.sample(6000, rng=seeded())
        opinion = SecondOpinion(x, classifier(x).log_softmax(dim=1), rng=seeded())
        fresh = generator.sample(2000, rng=seeded(1))
        said, asked = opinion(fresh), classifier(fresh)
    agree = (said.argmax(dim=1) == asked.argmax(dim=1)).float()
    # Of every second sample it is sure; what the others are is open.
    sure = asked.softmax(dim=1).amax(dim=1) > 0.9
    assert 0.3 < sure.float().mean() < 0.7
    assert 0.9 < agree[sure].mean() < 0.99
    assert 0.5 < agree[~sure].mean() < 0.8

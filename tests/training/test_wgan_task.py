from pathlib import Path

import pytest
import torch

from failscape.classifiers import load_classifier
from failscape.data import ImageSet
from failscape.errors import ClassifierError
from failscape.generators import WGAN, Progressive, load_generator
from failscape.training import WGANSettings, WGANTask, train
from failscape.training.wgan_task import growth, wasserstein_penalty


@pytest.fixture
def settings() -> WGANSettings:
    return WGANSettings(
        data="stripes.npz",
        images=960,
        batch=32,
        channels=(8, 8),
        latent_dim=4,
        critic_steps=2,
        bf16=False,
        ema_half_life=64,
        log_every=32,
        evaluate_every=960,
        checkpoint_every=320,
    )


def test_penalty_of_a_linear_critic_is_known():
    """Its gradient is its weight everywhere, of norm 3."""
    weight = torch.zeros(1, 4, 4)
    weight[0, 0, 0] = 3.0
    x = torch.rand(5, 1, 4, 4)

    penalty = wasserstein_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), x, 1 - x, rng=torch.Generator())

    torch.testing.assert_close(penalty, torch.tensor(4.0))


def test_penalty_is_taken_between_real_and_generated():
    """Of the critic |x|²/2 the gradient is x itself: on the line from 0 to x it has every norm up to |x|."""
    x = torch.ones(4000, 1, 1, 1)

    penalty = wasserstein_penalty(
        lambda x: 0.5 * x.square().sum(dim=(1, 2, 3)), x, torch.zeros_like(x), rng=torch.Generator().manual_seed(0)
    )

    # The mean of (u - 1)² over u even in [0, 1].
    assert penalty.item() == pytest.approx(1 / 3, abs=0.02)


def test_generator_moves_after_every_so_many_steps_of_the_critic(images: ImageSet, settings: WGANSettings) -> None:
    task = WGANTask(settings, images=images)
    rng = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(4):
        before = task.networks["generator"].decoder.flat.weight.clone()
        losses = task.step(images.x[:32], images.y[:32], progress=0.0, rng=rng)
        moved = not torch.equal(before, task.networks["generator"].decoder.flat.weight)
        seen.append((moved, "generator" in losses))

    assert seen == [(False, False), (True, True)] * 2


def test_the_loss_of_the_critic_is_that_of_the_paper_unless_drift_is_held(
    images: ImageSet, settings: WGANSettings
) -> None:
    frozen = settings.model_dump() | {"critic_steps": 1000}
    for drift in (0.0, 0.5):
        task = WGANTask(WGANSettings.parse(frozen | {"drift": drift}), images=images)
        x = images.x[:32]
        score = task.networks["generator"].realism(x).square().mean()
        losses = task.step(x, images.y[:32], progress=0.0, rng=torch.Generator().manual_seed(0))
        bare = settings.penalty * losses["penalty"] - losses["distance"]
        torch.testing.assert_close(losses["critic"], bare + drift * score, atol=1e-4, rtol=1e-3)
        assert score > 1e-2


def test_critic_tells_real_from_generated_after_some_steps(images: ImageSet, settings: WGANSettings) -> None:
    frozen = WGANSettings.parse(settings.model_dump() | {"critic_steps": 1000})
    task = WGANTask(frozen, images=images)
    rng = torch.Generator().manual_seed(0)
    for _ in range(40):
        losses = task.step(images.x[:64], images.y[:64], progress=0.0, rng=rng)

    generator = task.networks["generator"].eval()
    real, fake = generator.realism(images.x), generator.realism(generator.sample(200, rng=rng))
    assert real.min() > fake.max()
    # The gradient is held to a norm near 1.
    assert losses["penalty"] < 0.2


@pytest.mark.slow
# The progressive one needs more channels: with 8, what it drew covered 0.11 or 0.35 of unseen bars, after two seeds;
# with 24 it was 0.24 to 0.42 after three.
@pytest.mark.parametrize(
    ("family", "channels", "encoder_from", "recall"),
    [("wgan", (8, 8), 0.25, 0.3), ("progressive", (24, 24), 0.5, 0.15)],
)
def test_draws_bars_and_draws_unseen_ones_again(
    family: str,
    channels: tuple[int, int],
    encoder_from: float,
    recall: float,
    images: ImageSet,
    unseen: ImageSet,
    settings: WGANSettings,
    tmp_path: Path,
) -> None:
    changes = {
        "channels": channels,
        # Half as many are enough on one machine and not on another, whose last bits differ.
        "images": 256_000,
        "family": family,
        "drift": None,
        "ema_half_life": 4000,
        "encoder_from": encoder_from,
        "evaluate_every": 256_000,
    }
    settings = WGANSettings.parse(settings.model_dump() | changes)
    task = WGANTask(settings, images=images)
    before = task.evaluate(unseen)["frechet"]

    reached = train(task, images, tmp_path, settings, validation=unseen)
    task.export(tmp_path, {})

    assert reached["frechet"] < 0.1 * before
    assert reached["recall"] > recall
    assert reached["precision"] > 0.4
    generator = load_generator(tmp_path)
    assert isinstance(generator, WGAN | Progressive)
    error = (generator(generator.encode(unseen.x)) - unseen.x).square().mean()
    assert error < 0.5 * (unseen.x.mean(dim=0) - unseen.x).square().mean()


@pytest.mark.parametrize("family", ["wgan", "progressive"])
def test_a_training_that_was_cut_off_ends_with_the_same_bits(
    family: str, images: ImageSet, settings: WGANSettings, tmp_path: Path
) -> None:
    settings = WGANSettings.parse(settings.model_dump() | {"family": family})
    whole = WGANTask(settings, images=images)
    train(whole, images, tmp_path / "whole", settings)

    def cut(task, seen, folder):
        if seen >= 640:
            raise KeyboardInterrupt
        return {}

    early = WGANSettings.parse(settings.model_dump() | {"evaluate_every": 320})
    with pytest.raises(KeyboardInterrupt):
        train(WGANTask(early, images=images), images, tmp_path / "cut", early, hooks=[cut])
    again = WGANTask(early, images=images)
    train(again, images, tmp_path / "cut", early, resume=True)

    for name, tensor in whole.networks.state_dict().items():
        assert torch.equal(tensor, again.networks.state_dict()[name]), name


def test_the_encoder_may_begin_before_a_progressive_generator_is_whole(
    images: ImageSet, settings: WGANSettings
) -> None:
    settings = WGANSettings.parse(
        settings.model_dump() | {"family": "progressive", "encoder_from": 0.0, "critic_steps": 1}
    )
    task = WGANTask(settings, images=images)
    rng = torch.Generator().manual_seed(0)
    for progress in (0.0, 0.35, 0.6):
        losses = task.step(images.x[:32], images.y[:32], progress=progress, rng=rng)
        assert losses["encoder_pixels"] > 0


def test_grows_by_turns_and_ends_whole():
    stages = [growth(t / 100, levels=4, until=0.6) for t in range(101)]
    assert stages[0] == 0
    assert stages[60:] == [3.0] * 41
    assert stages == sorted(stages)
    # Half of the time before it is whole, a resolution is trained as it is.
    turns = [growth(t / 6000, levels=4, until=1.0) for t in range(6000)]
    assert sum(stage == int(stage) for stage in turns) == pytest.approx(3000, abs=4)
    assert growth(0.0, levels=4, until=0.0) == 3.0


def test_refuses_an_oracle_of_other_images(images: ImageSet, settings: WGANSettings) -> None:
    digits_oracle = load_classifier("embedded:mnist-oracle-clean")
    with pytest.raises(ClassifierError, match="oracle for images of shape"):
        WGANTask(settings, images=images, oracle=digits_oracle)

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from failscape.data import ImageSet
from failscape.generators import VAE, load_generator
from failscape.training import VAESettings, VAETask, train


def test_learns_more_than_the_mean_image(
    images: ImageSet, unseen: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    settings = VAESettings.parse(vae_settings.model_dump() | {"images": 12_800, "hidden": (64,)})
    task = VAETask(settings, image_shape=images.image_shape)

    reached = train(task, images, tmp_path, settings, validation=unseen)

    # The best that a decoder without latents can do is to draw the mean of the images.
    mean = images.x.mean(dim=0, keepdim=True).expand_as(unseen.x)
    baseline = -F.binary_cross_entropy(mean, unseen.x, reduction="sum").item() / len(unseen)
    assert reached["elbo"] > baseline + 1
    assert reached["divergence"] > 1
    assert reached["elbo"] == pytest.approx(-reached["reconstruction"] - reached["divergence"])


def test_evaluation_is_repeatable_and_of_the_saved_generator(
    images: ImageSet, unseen: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    task = VAETask(vae_settings, image_shape=images.image_shape)
    reached = train(task, images, tmp_path, vae_settings, validation=unseen)
    task.export(tmp_path, {})
    vae = load_generator(tmp_path)
    assert isinstance(vae, VAE)

    # The divergence has a closed form in the encoder's output.
    mean, log_variance = vae.posterior(unseen.x)
    closed = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()

    assert reached["divergence"] == pytest.approx(closed.item(), rel=1e-4)
    assert task.evaluate(unseen) == {name: reached[name] for name in task.evaluate(unseen)}


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (1 / 6, 0.5), (1 / 3, 1.0), (1.0, 1.0)])
def test_divergence_is_warmed_up_by_images_seen(
    progress: float, weight: float, images: ImageSet, vae_settings: VAESettings
) -> None:
    task = VAETask(vae_settings, image_shape=images.image_shape)

    losses = task.step(images.x, images.y, progress=progress, rng=torch.Generator().manual_seed(0))

    assert losses["divergence"] > 0
    assert math.isclose(losses["loss"], losses["reconstruction"] + weight * losses["divergence"], rel_tol=1e-6)


def test_bfloat16_follows_float32(images: ImageSet, vae_settings: VAESettings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the hardware has none it is emulated.
    monkeypatch.setattr("failscape.training.precision.computes_bf16", lambda device: True)
    tasks = [
        VAETask(vae_settings.model_copy(update={"bf16": bf16}), image_shape=images.image_shape)
        for bf16 in (False, True)
    ]
    exact, rounded = (
        task.step(images.x, images.y, progress=0.5, rng=torch.Generator().manual_seed(0)) for task in tasks
    )

    assert exact["reconstruction"] != rounded["reconstruction"]
    for name in exact:
        assert float(rounded[name]) == pytest.approx(float(exact[name]), rel=0.01)

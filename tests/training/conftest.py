from pathlib import Path

import numpy as np
import pytest
import torch

from failscape.data import ImageSet
from failscape.training import ClassifierSettings, VAESettings


def stripes(n: int, seed: int) -> ImageSet:
    """Slightly noisy 8 × 8 images with a bright bar: upright in class 0, lying in class 1."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=rng)
    x = 0.1 * torch.rand(n, 1, 8, 8, generator=rng)
    for image, label, place in zip(x, y, torch.randint(2, 6, (n,), generator=rng), strict=True):
        bar = image[:, :, place] if label == 0 else image[:, place]
        bar += 0.9
    return ImageSet.from_tensors(x, y, ["upright", "lying"], name="stripes")


@pytest.fixture
def images() -> ImageSet:
    return stripes(200, seed=0)


@pytest.fixture
def unseen() -> ImageSet:
    return stripes(200, seed=1)


@pytest.fixture
def stripes_file(tmp_path: Path, images: ImageSet) -> Path:
    path = tmp_path / "stripes.npz"
    np.savez(path, x=images.x.numpy(), y=images.y.numpy())
    return path


@pytest.fixture
def classifier_settings() -> ClassifierSettings:
    return ClassifierSettings(
        data="stripes.npz",
        images=960,
        batch=32,
        warmup=64,
        learning_rate=3e-3,
        ema_half_life=64,
        log_every=32,
        evaluate_every=320,
        checkpoint_every=160,
        width=4,
        augment=True,
    )


@pytest.fixture
def vae_settings() -> VAESettings:
    return VAESettings(
        data="stripes.npz",
        images=960,
        batch=32,
        warmup=64,
        learning_rate=3e-3,
        ema_half_life=64,
        log_every=32,
        evaluate_every=320,
        checkpoint_every=160,
        latent_dim=2,
        hidden=(16,),
        kl_warmup=320,
    )

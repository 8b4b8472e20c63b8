from pathlib import Path

import numpy as np
import pytest
import torch

from failscape.classifiers import Classifier, build_network, load_classifier, save_classifier
from failscape.data import ImageSet
from failscape.training import ClassifierSettings, GANSettings, VAESettings


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


@pytest.fixture(scope="session")
def stripes_classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved classifier of stripes, trained so briefly that it is right of all and sure of none."""
    images, sizes = stripes(200, seed=0), {"width": 4}
    network = build_network("plain-cnn", seed=0, image_shape=images.image_shape, num_classes=2, **sizes)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images.x), images.y).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(
        folder,
        architecture="plain-cnn",
        sizes=sizes,
        state=network.state_dict(),
        class_names=images.class_names,
        image_shape=images.image_shape,
    )
    return folder


@pytest.fixture
def stripes_classifier(stripes_classifier_folder: Path) -> Classifier:
    return load_classifier(stripes_classifier_folder)


@pytest.fixture
def gan_settings(stripes_classifier_folder: Path) -> GANSettings:
    """Twelve steps, with every part of a step in some of them."""
    return GANSettings(
        data="stripes.npz",
        validation="none",
        classifier=str(stripes_classifier_folder),
        images=192,
        batch=16,
        ema_half_life=64,
        log_every=16,
        evaluate_every=96,
        checkpoint_every=64,
        channels=(8, 8),
        latent_dim=4,
        style_dim=8,
        hidden=16,
        penalty_every=3,
        r2=0.3,
        guidance_from=0.1,
        guidance_full=0.3,
        augment="adaptive",
        encoder_from=0.5,
    )

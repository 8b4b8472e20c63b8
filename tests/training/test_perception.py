import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from failscape.classifiers import Classifier, classifier_features
from failscape.data import ImageSet
from failscape.errors import UnsupportedClassifier
from failscape.training import GANSettings, GANTask
from failscape.training.perception import Perception


@pytest.fixture
def classifier(images: ImageSet) -> Classifier:
    """A network with features, of the classes of the images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(images.x[0].numel(), 12), nn.Tanh(), nn.Linear(12, 2))
    return Classifier(network, class_names=images.class_names, image_shape=images.image_shape)


@pytest.fixture
def seeing(gan_settings: GANSettings) -> GANSettings:
    return gan_settings.model_copy(update={"family": "stylegan2", "perceive": True, "guidance": 0.0})


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rows_are_features_and_logits_of_unit_size_and_two_deviations(classifier: Classifier, images: ImageSet) -> None:
    perception = Perception(classifier, images)
    assert perception.width == 12 + 2 + 2
    with torch.no_grad():
        rows = perception(images.x, rng=rng())
        features, _ = classifier_features(classifier, images.x)
    # Images at even places are moved and noised; the others are as they were.
    expected = features / features.std()
    expected = expected - expected.mean(dim=0)
    assert torch.allclose(rows[1::2, :12], expected[1::2], atol=1e-4)
    assert float(rows[:, :12].square().mean().sqrt()) == pytest.approx(float(expected.square().mean().sqrt()), rel=0.2)


def test_sameness_within_a_group_is_seen(classifier: Classifier, images: ImageSet) -> None:
    perception = Perception(classifier, images)
    alike = images.x[:1].repeat(8, 1, 1, 1)
    with torch.no_grad():
        same, various = perception(alike, rng=rng()), perception(images.x[:8], rng=rng())
    assert float(same[:, -2:].mean()) < float(various[:, -2:].mean())
    # All of a group are told the same of it.
    assert torch.equal(various[0, -2:], various[3, -2:])
    assert not torch.equal(various[0, -2:], various[4, -2:])


def test_a_generator_can_follow_what_is_seen(classifier: Classifier, images: ImageSet) -> None:
    x = images.x[:4].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Perception(classifier, images)(x, rng=rng())[:, :14].square().sum(), x)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())


def test_the_discriminator_heeds_what_is_seen(
    stripes_classifier: Classifier, images: ImageSet, seeing: GANSettings
) -> None:
    task = GANTask(seeing, images=images, classifier=stripes_classifier)
    losses = task.step(images.x[:16], images.y[:16], progress=0.0, rng=rng())
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert any(name.startswith("perceive") for name, _ in task.networks["discriminator"].named_parameters())
    assert "r1" in losses


def test_penalties_are_of_the_views_and_not_through_the_classifier(
    stripes_classifier: Classifier, images: ImageSet, seeing: GANSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier may be steep, and faint images may be brought to full contrast: neither is the discriminator's."""
    see = Perception.__call__

    def steep(self: Perception, x: Tensor, *, rng: torch.Generator) -> Tensor:
        return see(self, x, rng=rng) + 1e4 * (x - x.detach()).mean()

    penalties = []
    for patched in (False, True):
        task = GANTask(seeing, images=images, classifier=stripes_classifier)
        if patched:
            monkeypatch.setattr(Perception, "__call__", steep)
        penalties.append(task.step(images.x[:16], images.y[:16], progress=0.0, rng=rng())["r1"])
    assert float(penalties[0]) > 0
    assert torch.equal(*penalties)


def test_what_cannot_be_seen_is_refused(classifier: Classifier, images: ImageSet, seeing: GANSettings) -> None:
    plain = Classifier(lambda x: classifier(x.detach()), class_names=images.class_names, image_shape=images.image_shape)
    with pytest.raises(UnsupportedClassifier, match="--perceive=false"):
        GANTask(seeing, images=images, classifier=plain)
    for others in ({"family": "mlp"}, {"classifier": "none"}):
        with pytest.raises(ValidationError, match="a stylegan2 and a classifier beside `perceive`"):
            GANSettings(perceive=True, **others)

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.generators import Condition, ConditionSpace, Generator
from failscape.training import GeneratorEvaluation, gan_evaluation

LEVELS = torch.tensor([0.2, 0.8])


def levels(y: Tensor, *, seed: int) -> Tensor:
    """Images of nothing but the class's grey, with a little noise."""
    rng = torch.Generator().manual_seed(seed)
    return (LEVELS[y][:, None, None, None] + 0.002 * torch.randn(len(y), 1, 2, 2, generator=rng)).clamp(0, 1)


class Perfect(Generator):
    """Draws just such images as there are of the class that it is asked for."""

    family: ClassVar[str] = "perfect"

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim, self.image_shape = 4, (1, 2, 2)
        self.condition_space, self.config = ConditionSpace(num_classes=2), {}

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        assert condition is not None
        return (LEVELS[condition.y][:, None, None, None] + 0.002 * z.unflatten(1, (1, 2, 2))).clamp(0, 1)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(
        lambda x: 20 * torch.stack([0.5 - x.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)) - 0.5], dim=1),
        class_names=("dark", "bright"),
        image_shape=(1, 2, 2),
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_perfect_generator_is_at_the_floor_whatever_the_mix_of_classes(classifier: Classifier, seed: int) -> None:
    """Of few images the classes are mixed by chance; that is no fault of the generator's, and the floor shares it."""
    sets = []
    for n, offset in ((100, 0), (300, 1)):
        y = torch.randint(2, (n,), generator=torch.Generator().manual_seed(2 * seed + offset))
        sets.append(ImageSet.from_tensors(levels(y, seed=seed + offset), y, ["dark", "bright"], name="levels"))

    evaluation = GeneratorEvaluation(*sets, classifier=classifier, oracle=None, seed=seed)

    distance = evaluation.distance(Perfect())
    assert distance == pytest.approx(evaluation.floor, rel=0.1, abs=1e-3)
    assert evaluation(Perfect())["frechet"] == distance


@pytest.mark.parametrize(("shape", "features"), [((1, 28, 28), 784), ((3, 18, 18), 972), ((3, 128, 96), 3 * 21 * 16)])
def test_without_a_network_pixels_are_compared_and_of_large_images_the_means_of_patches(
    shape: tuple[int, int, int], features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distance costs the cube of the number of features: of 3 x 64 x 64 pixels it would take half an hour."""
    seen: list[Tensor] = []
    monkeypatch.setattr(gan_evaluation, "frechet_distance", lambda a, b: float(seen.extend((a, b)) or 0))
    grey = torch.linspace(0, 1, 8)
    images = ImageSet.from_tensors(grey[:, None, None, None].expand(8, *shape), torch.arange(8) % 2, name="greys")

    GeneratorEvaluation(images, images, classifier=None, oracle=None, seed=0)

    for each in seen:
        torch.testing.assert_close(each, grey[:, None].expand(8, features), atol=1 / 255, rtol=0)

from typing import Any

import pytest
import torch
from planted_styles import GREY, SHAPE, PlantedStyles, misled_beyond
from torch import Tensor

from failscape.classifiers import Classifier, load_classifier
from failscape.explain import CornerCases, joint_cases
from failscape.explain.joint_cases import JointCases
from failscape.explain.method import to_8_bits
from failscape.explain.style_crossing import EXACT, true_probability
from failscape.explain.style_gradients import measure_influence
from failscape.explain.style_population import images_of
from failscape.generators import StyleGenerator, load_generator


def where_noise(condition: Any, otherwise: float, harm: float = 1.5) -> Classifier:
    """Wrap `misled_beyond`, that heeds its pixels alone where that of the noise meets a condition."""
    known = misled_beyond(harm)

    def logits(x: Tensor) -> Tensor:
        met = condition(x[:, :, 3, 3])
        return torch.where(met, known(x), otherwise * known(x).detach().abs() * torch.eye(3)[0] + 0 * known(x))

    return Classifier(logits, image_shape=SHAPE, name="by noise")


class Watched(PlantedStyles):
    """Remembers of how many rows it has drawn images with a graph at once."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs: list[int] = []

    def synthesize(self, s: Tensor, noise: Tensor | None = None) -> Tensor:
        if s.requires_grad:
            self.graphs.append(len(s))
        return super().synthesize(s, noise)


def find(classifier: Classifier, generator: PlantedStyles, n: int) -> JointCases:
    rng = torch.Generator().manual_seed(0)
    influence = measure_influence(misled_beyond(1.5), PlantedStyles(), 300, rng=rng)
    return joint_cases.joint_cases(classifier, generator, influence, 0, n, steps=16, rng=rng)


def test_searches_go_on_side_by_side_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = [Watched(), Watched()]
    classifier = misled_beyond(1.5)
    together = find(classifier, generators[0], 10)
    monkeypatch.setattr(joint_cases, "_ROWS", 3)
    apart = find(classifier, generators[1], 10)
    # Of each start two descents.
    assert max(generators[0].graphs) > 2 * 3
    assert max(generators[1].graphs) <= 2 * 3
    assert len(together) == len(apart) == 10
    # The mean styles come first in both, and the same is found from them.
    assert torch.allclose(together.moves[0], apart.moves[0], rtol=1e-3, atol=1e-4)
    for found in (together, apart):
        images = to_8_bits(PlantedStyles().synthesize(found.starts + found.moves, found.noise))
        assert float((classifier.probs(images)[:, 0] - 0.5).abs().max()) < 0.03
        assert len(found.starts.unique(dim=0)) == 10


def test_where_a_grey_value_jumps_over_one_half_a_place_close_behind_is_taken() -> None:
    """Of digits bisection alone leaves cases of these classes at 0.476 and 0.483."""
    classifier, generator = load_classifier("embedded:mnist-corrupted"), load_generator("embedded:mnist-stylegan2")
    assert isinstance(generator, StyleGenerator)
    influence = measure_influence(classifier, generator, 200, rng=torch.Generator().manual_seed(0))
    for label in (0, 9):
        rng = torch.Generator().manual_seed(label)
        found = joint_cases.joint_cases(classifier, generator, influence, label, 6, steps=4, rng=rng)
        p = true_probability(classifier, images_of(generator, found.starts + found.moves, found.noise), label)
        assert len(p) == 6
        assert float((p - 0.5).abs().max()) <= EXACT


def test_starts_from_which_nothing_is_found_are_drawn_anew() -> None:
    """Where the noise is strong, class 0 is said whatever the styles: no case starts there."""
    classifier = where_noise(lambda noise: noise < GREY + 0.02, otherwise=1.0)
    found = find(classifier, PlantedStyles(), 12)
    assert len(found) == 12
    assert float(found.noise.max()) < 0.3
    assert torch.equal(found.noise[0], torch.zeros(1))


def test_a_classifier_right_on_few_samples_leaves_too_few_starts_and_the_result_says_so() -> None:
    """Right where the noise is all but nought, as that of the class means is, and undecided elsewhere."""
    classifier = where_noise(lambda noise: (noise - GREY).abs() < 0.5 / 255, otherwise=0.0)
    x, y = torch.full((3, *SHAPE), 0.5), torch.tensor([0, 1, 2])
    method = CornerCases(per_class=0, joint=20, samples=300)
    result = method(classifier, PlantedStyles(), x, y, rng=torch.Generator().manual_seed(0))
    counts = [int((result.y == k).sum()) for k in range(3)]
    assert all(0 < count < 20 for count in counts)
    found = ", ".join(f"{count} for {k}" for k, count in enumerate(counts))
    sentence = f"Of 20 asked for of each class by moving all directions at once, these were found: {found}."
    assert sentence in result.findings[0].sentence
    assert result.summary["joint_missing"] == 60 - sum(counts)

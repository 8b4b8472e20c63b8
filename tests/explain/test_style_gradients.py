import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from planted_styles import DEAD, HARM, HARMLESS, SCALE, PlantedStyles, always, misled_beyond

from failscape.classifiers import Classifier, build_network
from failscape.errors import DataError
from failscape.explain import style_gradients
from failscape.explain.style_gradients import (
    STYLE_SCORES,
    difference_of,
    gradient_of,
    measure_influence,
)
from failscape.explain.style_population import StyleSamples, sample_styles, style_batches
from failscape.generators import ConditionSpace, StyleGAN2
from failscape.metrics import rank_correlation


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_scores_of_known_logits() -> None:
    logits, y = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]), torch.tensor([0, 2])
    assert STYLE_SCORES["logit-margin"](logits, y).tolist() == [1.0, -2.0]
    total = torch.tensor([2.0, 1.0, 0.0]).exp().sum()
    expected = torch.tensor([2.0, 0.0]).exp() / total
    assert torch.allclose(STYLE_SCORES["probability"](logits, y), expected)
    assert torch.allclose(STYLE_SCORES["log-probability"](logits, y), expected.log())


class TestPlanted:
    def test_the_harmful_style_has_its_known_gradient_and_the_others_have_none(self) -> None:
        influence = measure_influence(misled_beyond(1.0), PlantedStyles(), 600, rng=rng())
        # The margin falls by 50 · 0.04 a unit of harm, and the style is twice the harm.
        assert float(influence.overall[HARM]) == pytest.approx(-1.0, abs=0.02)
        assert float(influence.overall[HARMLESS]) == 0
        assert float(influence.overall[DEAD]) == 0
        assert influence.mean[:, HARM].tolist() == pytest.approx([-1.0] * 3, abs=0.02)
        assert float(influence.effect()[HARM]) == pytest.approx(-2.0, rel=0.1)
        assert int(influence.ranking()[0]) == HARM

    def test_the_population_is_known(self) -> None:
        influence = measure_influence(misled_beyond(1.0), PlantedStyles(), 3000, rng=rng())
        assert influence.count.tolist() == [1000] * 3
        # Harm is standard normal: 84.1 % lie below 1.
        assert float(influence.right.sum() / 3000) == pytest.approx(0.841, abs=0.03)
        assert influence.spread[HARM:DEAD].tolist() == pytest.approx(SCALE[HARM:DEAD].tolist(), rel=0.05)
        assert influence.spread[:HARM].abs().max() < 1e-4
        assert influence.centre[1, :3].tolist() == pytest.approx([-1.0, 1.0, -1.0], abs=1e-5)
        assert bool((influence.low <= influence.kept.amin(dim=0)).all())
        # A sample is misled just where its harm is beyond 1, up to the rounding of its pixel.
        harm = influence.kept[:, HARM] / SCALE[HARM]
        assert float((influence.kept_right == (harm < 1.0)).double().mean()) > 0.98

    def test_standard_errors_are_those_of_the_mean(self) -> None:
        means, errors = [], []
        for seed in range(30):
            found = measure_influence(misled_beyond(0.0), PlantedStyles(), 60, rng=rng(seed), score="probability")
            means.append(found.mean[0, HARM])
            errors.append(found.error[0, HARM])
        assert float(torch.stack(means).std()) == pytest.approx(float(torch.stack(errors).mean()), rel=0.35)

    def test_differences_agree_with_gradients(self) -> None:
        generator, classifier = PlantedStyles(), misled_beyond(1.0)
        samples = sample_styles(generator, 20, rng=rng())
        gradient, logits = gradient_of(classifier, generator, samples, "logit-margin")
        # Steps of ten grey values, which rounding cannot hide.
        difference, again = difference_of(classifier, generator, samples, "logit-margin", 0.4 * SCALE)
        assert torch.allclose(gradient[:, HARM:], difference[:, HARM:], atol=0.06)
        assert torch.equal(logits, again)

    def test_without_gradients_differences_are_taken(self) -> None:
        known = misled_beyond(1.0)
        blind = Classifier(lambda x: known(x.detach()), image_shape=known.image_shape, name="no gradients")
        assert not blind.differentiable
        influence = measure_influence(blind, PlantedStyles(), 3000, rng=rng(), gradients=False)
        # The population is as large as ever; only the differences are taken of fewer.
        assert int(influence.count.sum()) == 3000
        assert float(influence.overall[HARM]) == pytest.approx(-1.0, abs=0.1)

    def test_too_few_samples_for_a_standard_error_are_refused(self) -> None:
        with pytest.raises(DataError, match="`samples` of at least 12, 4 for each of the 3 classes, but got 10"):
            measure_influence(misled_beyond(1.0), PlantedStyles(), 10, rng=rng())

    def test_a_constant_classifier_is_moved_by_nothing(self) -> None:
        influence = measure_influence(always(1), PlantedStyles(), 90, rng=rng())
        assert float(influence.overall.abs().max()) == 0
        assert influence.right.tolist() == [0, 30, 0]


def test_memory_does_not_grow_with_the_population() -> None:
    influence = measure_influence(misled_beyond(0.0), PlantedStyles(), 15_000, rng=rng())
    assert len(influence.kept) == 10_000
    assert influence.kept_right.sum() == 5000


def test_no_tensor_of_a_batch_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = {}

    def batches(*arguments: Any, **settings: Any) -> Iterator[StyleSamples]:
        for number, batch in enumerate(style_batches(*arguments, **settings, size=20)):
            if number in (30, 110):
                alive[number] = sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
            yield batch

    monkeypatch.setattr(style_gradients, "style_batches", batches)
    measure_influence(misled_beyond(0.0), PlantedStyles(), 2220, rng=rng())
    assert alive[30] == alive[110]


def test_styles_are_ranked_alike_with_and_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"channels": (8, 8), "latent_dim": 8, "style_dim": 16}
        generator = StyleGAN2(image_shape=(1, 8, 8), condition=ConditionSpace(num_classes=3).config, **sizes).eval()
    network = build_network("plain-cnn", seed=0, image_shape=(1, 8, 8), num_classes=3, width=8).eval()
    classifier = Classifier(network, image_shape=(1, 8, 8), name="small")
    same = list(style_batches(generator, 60, rng=rng()))

    def batches(*arguments: Any, **settings: Any) -> Iterator[StyleSamples]:
        # The steps of the differences are measured on others.
        return iter(same) if arguments[1] == 60 else style_batches(*arguments, **settings)

    monkeypatch.setattr(style_gradients, "style_batches", batches)
    exact = measure_influence(classifier, generator, 60, rng=rng(1))
    rough = measure_influence(classifier, generator, 60, rng=rng(1), gradients=False, differences=60)
    for label in (None, 0, 1, 2):
        sizes_of_effects = (exact.effect(label).abs(), rough.effect(label).abs())
        assert rank_correlation(*sizes_of_effects) > 0.95
        assert rank_correlation(exact.effect(label), rough.effect(label)) > 0.95
        assert len(set(exact.ranking(label)[:10].tolist()) & set(rough.ranking(label)[:10].tolist())) >= 8

"""Class convergence in worlds whose every share is known by analysis, and with the package's own networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import GREY, PLANE, Linear, classes_by, never
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import GeneratorError, LabelError, UnsupportedClassifier, UnsupportedGenerator
from failscape.explain import ClassConvergence, ClassConvergenceResult, load_result
from failscape.explain.class_convergence_result import REAL, SEARCH, TRAINING
from failscape.figures import PictureMatrix
from failscape.generators import MLP, Condition, ConditionSpace

SLOPE = 400.0
# The second latent of `PLANE` makes the left half brighter than the right, by 0.2 a unit.
DISPUTED = 0.3
TILT = 0.2 * torch.distributions.Normal(0, 1).icdf(torch.tensor(DISPUTED)).item()


def brightness(x: Tensor) -> Tensor:
    return x.mean(dim=(1, 2)) - GREY


def tilt(x: Tensor) -> Tensor:
    return x[:, :, :2].mean(dim=(1, 2)) - x[:, :, 2:].mean(dim=(1, 2))


def brighter_by(margin: float) -> Classifier:
    """Class 1 is what is brighter than grey by the margin, whatever its tilt; class 2 is nothing."""
    return classes_by(lambda x: 0 * brightness(x), lambda x: SLOPE * (brightness(x) - margin), never)


def tilted_oracle(margin: float = 0.05) -> Classifier:
    """See class 2 where the tilt is below that of a known share of the prior, and else what `brighter_by` sees."""
    return classes_by(
        lambda x: -SLOPE * (brightness(x) - margin),
        lambda x: SLOPE * (brightness(x) - margin),
        lambda x: SLOPE * (brightness(x) - margin).abs() + 50 * SLOPE * (TILT - tilt(x)),
    )


def converge(method: ClassConvergence, classifier: Classifier, **options: Any) -> ClassConvergenceResult:
    world = Linear(PLANE)
    x = world.sample(200, rng=torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(0)
    given = {"oracle": tilted_oracle(), "generator": world} | options
    generator = given.pop("generator")
    return method(classifier, generator, x, classifier.predict(x), rng=rng, **given)


@pytest.fixture(scope="module")
def found() -> ClassConvergenceResult:
    return converge(ClassConvergence(samples=400, classes=("1", "0")), brighter_by(0.05))


def test_what_is_disputed_is_the_share_that_was_planted(found: ClassConvergenceResult) -> None:
    for k, share in zip((1, 0), found.disputed_rates(SEARCH) or [], strict=True):
        assert share.n == 400
        assert share.low < DISPUTED < share.high, k
    seen = found.seen(SEARCH)
    assert seen is not None
    # What is disputed of the bright ones is class 2, and nothing else.
    assert seen[0, 0] == 0
    assert seen[0].sum() == 400
    assert found.estimates["search_rate"].value == 1


def test_what_is_found_is_typical_of_the_prior_where_the_class_is_common(found: ClassConvergenceResult) -> None:
    z = Linear(PLANE).encode(found.images[found.of(SEARCH, 1)])
    # A normal variable beyond 0.5 has the mean φ(0.5) / (1 - Φ(0.5)) = 1.141; the tilt is untouched.
    assert z[:, 0].mean().item() == pytest.approx(1.141, abs=0.1)
    assert z[:, 0].min() > 0.5 - 0.02
    assert z[:, 1].mean().item() == pytest.approx(0, abs=0.2)
    assert z[:, 1].std().item() == pytest.approx(1, abs=0.12)


def test_a_class_too_rare_to_be_drawn_is_searched_for_by_short_ways() -> None:
    # Beyond 4.5 lie 3 of a million latents.
    flat, rare = Linear(PLANE, scale=0.05), brighter_by(0.225)
    result = converge(ClassConvergence(samples=60, classes=("1",), candidates=2), rare, generator=flat)
    assert result.summary["search_rate"] == 1
    assert result.summary["search_unreached"] == 0
    assert result.verification is not None
    assert (result.verification.probs[result.of(SEARCH), 1] >= 0.9).all()
    z = flat.encode(result.images[result.of(SEARCH)])
    # The way to it leads along the brightness, so that it keeps the tilt, but for the pull to the middle.
    assert z[:, 0].max() < 5
    assert z[:, 1].std() > 0.7
    drawn = converge(ClassConvergence(samples=60, classes=("1",), candidates=2, steps=0), rare, generator=flat)
    assert drawn.summary["search_rate"] == 0
    assert drawn.summary["search_unreached"] == 1


def test_a_class_that_cannot_be_reached_is_reported() -> None:
    result = converge(ClassConvergence(samples=5, candidates=4, steps=3), brighter_by(0.0))
    assert [share.value for share in result.rates(SEARCH)] == [1, 1, 0]
    assert result.unreached(SEARCH) == [2]
    assert result.summary["search_rate"] == 0
    assert any("takes for 2" in finding.sentence for finding in result.findings)
    for figure in result.figures:
        figure.draw()


def test_the_disputed_ones_stand_where_the_oracle_sees_them(found: ClassConvergenceResult) -> None:
    (matrix,) = [figure for figure in found.figures if isinstance(figure, PictureMatrix)]
    seen = found.seen(SEARCH)
    assert seen is not None
    groups = {group.cells[0]: group for group in matrix.groups}
    assert {*groups} == {(0, 2), (1, 2)} | ({(1, 1)} if seen[1, 1] else set())
    assert groups[0, 2].note.startswith(f"{int(seen[0, 2])} of the 400 images")
    shown = torch.stack([panel.pixels for panel in groups[0, 2].panels])
    assert (tilted_oracle().predict(shown) == 2).all()
    assert (brighter_by(0.05).predict(shown) == 1).all()


def test_real_images_of_the_class_are_the_measure(found: ClassConvergenceResult) -> None:
    rows = found.of(REAL)
    assert found.accepted[rows].all()
    assert rows.sum() == 200
    real = found.estimates["real_disputed"]
    assert real.low < DISPUTED < real.high


def test_without_an_oracle_nothing_is_disputed_and_nothing_claimed() -> None:
    result = converge(ClassConvergence(samples=5, candidates=4, classes=("1",)), brighter_by(0.0), oracle=None)
    assert result.disputed is None
    assert not [key for key in result.summary if "disputed" in key]
    assert "oracle_prediction" not in result.table.column_names
    assert result.findings == []
    for figure in result.figures:
        assert "oracle" not in figure.caption
        figure.draw()


def test_draws_alone_need_no_gradients() -> None:
    def by_numpy(x: Tensor) -> Any:
        return brighter_by(0.0)(x).detach().numpy()

    classifier = Classifier(by_numpy, image_shape=(1, 4, 4))
    result = converge(ClassConvergence(samples=20, steps=0, classes=("1", "0")), classifier)
    assert result.summary["search_rate"] == 1
    with pytest.raises(UnsupportedClassifier, match="Set `steps` to 0"):
        converge(ClassConvergence(), classifier)
    with pytest.raises(UnsupportedClassifier, match='Set `by` to "search" and `steps` to 0'):
        converge(ClassConvergence(by="training", steps=0), classifier)


def test_a_generator_that_cannot_be_trained_further_is_named() -> None:
    with pytest.raises(UnsupportedGenerator, match=r'got a planted.*Set `by` to "search"'):
        converge(ClassConvergence(by="training"), brighter_by(0.0))


def test_an_unknown_class_and_wrong_settings_are_refused() -> None:
    with pytest.raises(LabelError, match="among 0, 1, 2, but got three"):
        converge(ClassConvergence(classes=("1", "three")), brighter_by(0.0))
    wrong: list[dict[str, Any]] = [
        {"classes": ()}, {"samples": 0}, {"candidates": 0}, {"steps": -1}, {"training_steps": 0},
        {"shown": 0}, {"probability": 0.5}, {"probability": 1.0}, {"weight": 0.0}, {"weight": float("nan")},
    ]  # fmt: skip
    for settings in wrong:
        with pytest.raises(ValueError, match="Expected"):
            ClassConvergence(**settings)


class TestOnCondition:
    """A generator that draws the class asked for, brighter or darker than grey."""

    class ByClass(MLP):
        def __init__(self, **space: Any) -> None:
            super().__init__(image_shape=(1, 4, 4), latent_dim=2, hidden=4)
            self.condition_space = ConditionSpace(**{"num_classes": 3} | space)

        def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
            self.check_condition(condition, len(z))
            assert condition is not None
            means = GREY + 0.1 * (2.0 * condition.y - 1) + 0.03 * z[:, 0]
            return means[:, None, None, None].expand(-1, 1, 4, 4).clamp(0, 1)

    def test_each_class_is_asked_for(self) -> None:
        method = ClassConvergence(classes=("0", "1"), samples=50, candidates=1, steps=0)
        result = converge(method, brighter_by(0.0), generator=self.ByClass())
        assert result.summary["search_rate"] > 0.99
        assert result.log_prior.isnan().all()
        assert "log_prior" not in result.table.column_names

    def test_other_classes_and_one_never_seen_are_refused(self) -> None:
        with pytest.raises(GeneratorError, match="conditioned on the 3 classes"):
            converge(ClassConvergence(), brighter_by(0.0), generator=self.ByClass(num_classes=2))
        unseen = self.ByClass(supported=[[0.5, 1.0], [0.5, 1.0], [1.0, 0.0]])
        with pytest.raises(GeneratorError, match="no training image was taken for '2'"):
            converge(ClassConvergence(), brighter_by(0.0), generator=unseen)


def test_both_ways_lead_digits_to_a_class_and_are_compared(world: Any, tmp_path: Path) -> None:
    method = ClassConvergence(by="both", classes=("7", "4"), samples=60)
    x, y = world.images.x[:1000], world.images.y[:1000]
    rng = torch.Generator().manual_seed(0)
    result = method(world.classifier, world.ten, x, y, rng=rng, oracle=world.oracle)
    assert result.summary["search_rate"] == 1
    assert result.summary["training_rate"] > 0.95
    accepted = [result.accepted[result.of(way)].float().mean().item() for way in (SEARCH, TRAINING)]
    assert result.summary["rate_difference"] == pytest.approx(accepted[1] - accepted[0])
    # The oracle guided neither: most of what is accepted is a digit of that class to it, too.
    assert result.summary["search_disputed"] < 0.2
    assert result.summary["training_disputed"] < 0.4
    expected = world.ten.log_prior(world.ten.encode(result.images[result.of(TRAINING)])).mean().item()
    assert result.summary["training_log_prior"] == pytest.approx(expected, abs=1e-3)
    result.save(tmp_path)
    assert load_result(tmp_path).summary == pytest.approx(result.summary)

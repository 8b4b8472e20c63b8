"""Uncertain samples of generators whose every image is known by analysis."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from failscape.classifiers import SCORES, Classifier
from failscape.errors import FailscapeError, GeneratorError, LabelError, UnsupportedClassifier, UnsupportedGenerator
from failscape.explain import UncertainResult, UncertainSamples, load_result
from failscape.explain.uncertain_result import ALONE, GRID, REAL, REAL_GRID, REAL_SWEEP, REFINED, SWEEP
from failscape.figures import Gallery, Plot
from failscape.generators import Autoencoder, Condition, ConditionSpace

SHAPE = (1, 4, 4)
NAMES = ("dark", "bright")
# Of the bright class: its logit rises by so much from black to white, and by so much from one grey value to the next.
SLOPE = 20.0
GREY_VALUE = SLOPE / 255
LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6)
CHECKERS = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)


class Flat(Autoencoder):
    """Images of one grey value, at which the classifier has the requested score, but for an offset.

    The first latent adds to the grey value, and is drawn as 0. The second draws a pattern, which the classifier does
    not see; the encoder finds it.
    """

    family: ClassVar[str] = "flat"

    def __init__(self, *, score: str = "confidence", offset: float = 0.0, wave: float = 0.0, supported: Any = None):
        super().__init__()
        self.config, self.latent_dim, self.image_shape = {}, 2, SHAPE
        self.condition_space = ConditionSpace(num_classes=2, score=score, supported=supported)
        self._offset, self._wave = offset, wave

    def sample_latents(self, n: int, *, rng: torch.Generator) -> Tensor:
        return super().sample_latents(n, rng=rng) * torch.tensor([0.0, 1.0])

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_latents(z)
        self.check_condition(condition, len(z))
        assert condition is not None
        bright = self._probability(condition.score).logit() * (2 * condition.y - 1)
        if condition.probs is not None:
            bright = (condition.probs[:, 1] / condition.probs[:, 0]).log()
        bright = bright + self._wave * torch.sin(40 * condition.score)
        grey = 0.5 + bright / SLOPE + self._offset + z[:, 0] / SLOPE
        return (grey[:, None, None, None] + 0.03 * z[:, 1, None, None, None] * CHECKERS).clamp(0, 1)

    def _probability(self, score: Tensor) -> Tensor:
        """Return the probability of the class at which the classifier has the score."""
        assert self.condition_space is not None
        if self.condition_space.score == "margin":
            return (1 + score) / 2
        if self.condition_space.score == "entropy":
            p = torch.linspace(0.5, 1 - 1e-6, 100_001, dtype=torch.float64)
            bits = -p * p.log2() - (1 - p) * (1 - p).log2()
            return p[torch.searchsorted(-bits, -score.double())].float()
        return score

    def encode(self, x: Tensor) -> Tensor:
        pattern = (x * CHECKERS).mean(dim=(1, 2, 3)) / 0.03
        return torch.stack([torch.zeros_like(pattern), pattern], dim=1)


def by_brightness(slope: float = SLOPE) -> Classifier:
    def logits(x: Tensor) -> Tensor:
        bright = slope * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([torch.zeros_like(bright), bright], dim=1)

    return Classifier(logits, image_shape=SHAPE, class_names=NAMES)


def real_images(n: int = 400) -> tuple[Tensor, Tensor]:
    """Return images of all grey values with patterns, and as labels what the classifier says."""
    rng = torch.Generator().manual_seed(0)
    grey = 0.2 + 0.6 * torch.rand(n, generator=rng)
    pattern = 0.03 * torch.randn(n, generator=rng)
    x = ((grey[:, None, None, None] + pattern[:, None, None, None] * CHECKERS) * 255).round() / 255
    return x, by_brightness().predict(x)


def explain(generator: Any, method: UncertainSamples | None = None, **options: Any) -> UncertainResult:
    x, y = real_images()
    settings: dict[str, Any] = {"rng": torch.Generator().manual_seed(0), "ids": [f"real-{i}" for i in range(len(x))]}
    method = UncertainSamples(per_class=50, rows=4, real_rows=5, levels=LEVELS) if method is None else method
    classifier = options.pop("classifier", by_brightness())
    return method(classifier, generator, options.pop("x", x), options.pop("y", y), **settings | options)


def logits_of(result: UncertainResult, part: int) -> tuple[Tensor, Tensor]:
    """Return requested and obtained probability of the class asked for, as logits."""
    rows = result.of(part)
    assert result.verification is not None
    obtained = result.verification.probs[rows].gather(1, result.asked[rows][:, None])[:, 0]
    return result.requested[rows].logit(), obtained.logit()


def sweeps_of(result: UncertainResult) -> Gallery:
    return next(figure for figure in result.figures if isinstance(figure, Gallery))


def patterns(x: Tensor) -> Tensor:
    return x - x.mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture(scope="module")
def off() -> UncertainResult:
    """What a generator gives whose images are all too bright by 0.05, a logit of 1; the oracle is half as sure."""
    return explain(Flat(offset=0.05), oracle=by_brightness(SLOPE / 2))


def test_requests_are_spread_evenly_over_each_class() -> None:
    result = explain(Flat(supported=[[0.3, 1.0], [0.7, 0.9]]), UncertainSamples(levels=(0.9, 0.8), rows=1))
    for k, (low, high) in enumerate([(0.5, 0.999), (0.7, 0.9)]):
        requested = result.requested[result.of(ALONE) & (result.asked == k)].sort().values
        assert len(requested) == 200
        even = torch.linspace(low, high, 200)
        # Kolmogorov and Smirnov: an even sample of 200 departs from it by more in one case of a thousand.
        assert ((requested - even).abs() / (high - low)).max() < 0.14
        assert low <= requested[0] < requested[-1] <= high + 1e-6


def test_the_generator_alone_is_off_by_what_was_planted(off: UncertainResult) -> None:
    requested, obtained = logits_of(off, ALONE)
    asked = off.asked[off.of(ALONE)]
    assert torch.allclose(obtained - requested, 0.05 * SLOPE * (2.0 * asked - 1), atol=GREY_VALUE)
    # A dark image asked to be less sure than this logit of 1 is bright.
    lost = (asked == 0) & (requested < 1 - GREY_VALUE)
    assert lost.any()
    assert not off.kept[off.of(ALONE)][lost].any()


def test_the_refinement_meets_every_request(off: UncertainResult) -> None:
    requested, obtained = logits_of(off, REFINED)
    assert (requested - obtained).abs().max() < GREY_VALUE
    assert off.kept[off.of(REFINED)][requested > GREY_VALUE].all()
    assert torch.equal(off.requested[off.of(REFINED)], off.requested[off.of(ALONE)])
    summary = off.summary
    assert summary["refined_spearman"] > 0.995
    assert summary["refined_error"] < 0.25 * GREY_VALUE < summary["alone_error"]
    assert summary["refined_class"] > 0.97 > summary["alone_class"]


def test_the_refinement_moves_no_farther_than_it_must(off: UncertainResult) -> None:
    # The pattern, which the classifier does not see, is that of the generator alone, but for rounding.
    alone, refined = patterns(off.images[off.of(ALONE)]), patterns(off.images[off.of(REFINED)])
    assert (alone - refined).abs().max() < 1.01 / 255


def test_the_oracle_judges_the_same_images(off: UncertainResult) -> None:
    requested, _ = logits_of(off, REFINED)
    theirs = off.oracle_obtained
    assert theirs is not None
    assert (theirs[off.of(REFINED)].logit() - requested / 2).abs().max() < GREY_VALUE
    assert off.summary["refined_oracle_spearman"] > 0.995
    assert off.summary["refined_oracle_class"] == off.summary["refined_class"]


def test_real_images_stand_for_requests_of_their_class_and_score(off: UncertainResult) -> None:
    x, y = real_images()
    rows = off.of(REAL)
    assert 20 < rows.sum() <= 100
    places = [int(torch.nonzero((x == image).all(dim=(1, 2, 3)))[0]) for image in off.images[rows]]
    assert len(set(places)) == len(places)
    assert torch.equal(y[places], off.asked[rows])
    confidence = by_brightness().probs(x[places]).amax(dim=1)
    assert (confidence - off.requested[rows]).abs().max() <= 0.01


def test_samples_are_held_against_the_real_images_that_stand_for_their_requests(off: UncertainResult) -> None:
    assert off.verification is not None
    assert off.verification.oracle_probs is not None
    real, requests = off.of(REAL).nonzero()[:, 0], off.row[off.of(REAL)]
    alone = off.of(ALONE).nonzero()[:, 0]
    assert torch.equal(off.requested[alone[requests]], off.requested[real])
    assert torch.equal(off.asked[alone[requests]], off.asked[real])
    # To the oracle they are like the real ones, and all others are of no class that was asked for.
    probs = off.verification.oracle_probs.clone()
    probs[alone] = torch.nn.functional.one_hot(1 - off.asked[alone], len(NAMES)).to(probs)
    probs[alone[requests]] = probs[real]
    like = replace(off, verification=replace(off.verification, oracle_probs=probs))

    assert like.summary["alone_oracle_class"] < like.summary["real_oracle_class"]
    assert like.summary["alone_oracle_class_ratio"] == 1
    assert like.summary["alone_oracle_spearman_ratio"] == 1


def test_the_grid_has_a_row_a_level_and_a_column_a_class(off: UncertainResult) -> None:
    rows = off.of(GRID)
    assert off.row[rows].tolist() == [i for i in range(len(LEVELS)) for _ in NAMES]
    assert off.asked[rows].tolist() == [0, 1] * len(LEVELS)
    assert off.requested[rows].tolist() == pytest.approx([min(level, 0.999) for level in LEVELS for _ in NAMES])
    requested, obtained = logits_of(off, GRID)
    assert (requested - obtained).abs().max() < GREY_VALUE


def test_real_images_of_its_classes_and_scores_stand_beside_the_grid(off: UncertainResult) -> None:
    x, y = real_images()
    real, grid = off.of(REAL_GRID), off.of(GRID)
    cells = off.row[real]
    assert 5 < len(cells) == len(cells.unique()) <= int(grid.sum())
    places = [int(torch.nonzero((x == image).all(dim=(1, 2, 3)))[0]) for image in off.images[real]]
    assert torch.equal(y[places], off.asked[grid][cells])
    assert (off.obtained[real] - off.requested[grid][cells]).abs().max() <= 0.01
    assert {off.origins[i] for i in real.nonzero()[:, 0].tolist()} == {"test"}


def test_a_sweep_changes_the_score_and_keeps_the_latent(off: UncertainResult) -> None:
    for part, count in ((SWEEP, 4), (REAL_SWEEP, 5)):
        rows = off.of(part)
        assert off.row[rows].tolist() == [i for i in range(count) for _ in LEVELS]
        requested, obtained = logits_of(off, part)
        assert (requested - obtained).abs().max() < GREY_VALUE
        assert off.monotone(part).all()
        images = patterns(off.images[rows]).unflatten(0, (count, -1))
        assert (images - images[:, :1]).abs().max() < 1.01 / 255
    assert off.asked[off.of(SWEEP)].tolist() == [k for k in (0, 1, 0, 1) for _ in LEVELS]


def test_the_real_images_swept_are_the_first_sure_ones_the_classes_in_turn(off: UncertainResult) -> None:
    x, y = real_images()
    sure = by_brightness().probs(x).amax(dim=1) > LEVELS[1]
    dark, bright = ((sure & (y == k)).nonzero()[:, 0].tolist() for k in (0, 1))
    expected = [dark[0], bright[0], dark[1], bright[1], dark[2]]
    assert off.source_ids == tuple(f"real-{i}" for i in expected)
    # What becomes of them is no image that was merely drawn.
    swept = off.of(REAL_SWEEP).nonzero()[:, 0].tolist()
    assert {off.origins[i] for i in swept} == {"test"}
    assert [off.made_from[i] for i in swept] == [off.source_ids[k] for k in off.row[swept].tolist()]
    assert torch.equal(off.sources, x[expected])
    # Each is drawn with the pattern that the encoder found in it.
    drawn = off.images[off.of(REAL_SWEEP)][:: len(LEVELS)]
    assert (patterns(drawn) - patterns(off.sources)).abs().max() < 2.01 / 255


def test_a_score_that_rises_in_between_fails_the_sweep() -> None:
    settings = {"per_class": 2, "rows": 2, "real_rows": 0, "levels": LEVELS}
    raw = explain(Flat(wave=1.5), UncertainSamples(steps=0, **settings))  # type: ignore[arg-type]
    refined = explain(Flat(wave=1.5), UncertainSamples(steps=20, **settings))  # type: ignore[arg-type]
    assert raw.monotone().tolist() == [False, False]
    assert refined.monotone().tolist() == [True, True]
    assert (raw.summary["monotone"], refined.summary["monotone"]) == (0, 1)
    cases = [next(f for f in each.figures if isinstance(f, Gallery)).cases for each in (raw, refined)]
    assert [[case.good for case in part] for part in cases] == [[False] * 2, [True] * 2]
    assert cases[0][0].verdict.endswith("but not evenly: it rises in between.")
    assert cases[1][0].verdict == "The confidence goes from 1.00 to 0.60, falling all the way."


@pytest.mark.parametrize("step", [0.0, 0.004])
def test_what_does_not_fall_does_not_fall_all_the_way(off: UncertainResult, step: float) -> None:
    assert off.verification is not None
    probs = off.verification.probs.clone()
    rows = off.of(SWEEP) & (off.row == 0)
    probs[rows, 0] = 0.9 + step * torch.arange(len(LEVELS))
    probs[rows, 1] = 1 - probs[rows, 0]
    flat = replace(off, verification=replace(off.verification, probs=probs))

    assert flat.monotone().tolist() == [False, True, True, True]
    sweeps = next(figure for figure in flat.figures if isinstance(figure, Gallery))
    assert sweeps.cases[0].verdict.endswith("and does not fall.")


def test_the_finding_shows_a_series_that_falls_and_counts_them(off: UncertainResult) -> None:
    falls = off.monotone()
    (finding,) = off.findings
    assert finding.sentence.endswith(f"in {int(falls.sum())} of {len(falls)} such series it falls all the way.")
    assert finding.sentence.startswith("Led from sure to unsure, the picture of a ")
    scores = [float(panel.label.split("(")[1].rstrip(")")) for panel in finding.panels]
    assert scores == sorted(scores, reverse=True)
    assert f"confidence from {scores[0]:.2f} to {scores[-1]:.2f};" in finding.sentence
    assert len(finding.panels) == len(LEVELS)


def test_only_the_classes_asked_for_are_drawn() -> None:
    result = explain(Flat(), UncertainSamples(per_class=3, rows=2, real_rows=2, levels=LEVELS, classes=("bright",)))
    assert set(result.asked.tolist()) == {1}
    # The other class needs no support then.
    explain(Flat(supported=[[1.0, 0.0], [0.5, 1.0]]), UncertainSamples(per_class=2, rows=1, classes=("bright",)))


@pytest.mark.parametrize("score", ["true-class", "margin", "entropy"])
def test_other_scores_are_met_as_well(score: str) -> None:
    # Asked for less certainty, dark images that are too bright by this are bright ones, which no small step mends.
    generator = Flat(score=score, offset=0.02, supported=[[0.3, 0.9], [0.3, 0.9]])
    levels = (0.9, 0.7, 0.5, 0.3)
    result = explain(generator, UncertainSamples(per_class=50, steps=30, rows=2, real_rows=1, levels=levels))
    assert result.score == score
    # One grey value moves a margin by at most half as much as the logit, and the others by less.
    for part, worst in ((ALONE, 0.1), (REFINED, 0.5 * GREY_VALUE), (SWEEP, 0.5 * GREY_VALUE)):
        error = (result.obtained - result.requested)[result.of(part)].abs()
        assert (error.max() < worst) == (part != ALONE)


def test_falling_entropy_leads_from_unsure_to_sure() -> None:
    method = UncertainSamples(per_class=2, rows=1, real_rows=0, levels=(0.9, 0.5, 0.1))
    result = explain(Flat(score="entropy"), method)
    assert result.verification is not None
    confidence = result.verification.probs[result.of(SWEEP)].amax(dim=1)
    assert (confidence.diff() > 0).all()
    assert result.figures[0].title == "From unsure to sure: samples at falling entropy"
    assert "One latent, from unsure to sure" in [figure.title for figure in result.figures]


def test_a_generator_of_whole_distributions_is_asked_for_those_of_real_images() -> None:
    x, y = real_images()
    confidences = by_brightness().probs(x).amax(dim=1)
    method = UncertainSamples(per_class=20, rows=2, real_rows=3, levels=LEVELS)
    result = explain(Flat(score="vector", offset=0.05), method)
    assert set(result.requested[result.of(ALONE)].tolist()) <= set(confidences.tolist())
    requested, obtained = logits_of(result, REFINED)
    assert (requested - obtained).abs().max() < GREY_VALUE
    # An encoder gives no distribution to go with the latent, so no real image is swept.
    assert not result.of(REAL_SWEEP).any()
    assert len(result.sources) == 0
    assert "Real images are not swept: the generator takes whole distributions" in sweeps_of(result).caption
    with pytest.raises(UnsupportedGenerator, match=r"taken for class 0, .* Give more images"):
        explain(Flat(score="vector"), method, x=x[y == 1], y=y[y == 1], ids=None)


def test_without_steps_the_generator_alone_answers_and_no_gradients_are_needed() -> None:
    def blind(x: Tensor) -> Any:
        return by_brightness()(x.detach()).numpy()

    classifier = Classifier(blind, image_shape=SHAPE, class_names=NAMES)
    method = UncertainSamples(per_class=5, steps=0, rows=2, real_rows=2, levels=LEVELS)
    result = explain(Flat(offset=0.05), method, classifier=classifier)
    assert torch.equal(result.images[result.of(REFINED)], result.images[result.of(ALONE)])
    seen = explain(Flat(offset=0.05), method)
    assert torch.equal(result.images, seen.images)
    with pytest.raises(UnsupportedClassifier, match=r"gradients for the refinement.*Set `steps` to 0"):
        explain(Flat(), UncertainSamples(per_class=5, steps=1), classifier=classifier)


def test_where_no_real_image_is_sure_none_is_swept() -> None:
    x, y = real_images()
    result = explain(Flat(), x=x, y=1 - y)
    assert not result.of(REAL_SWEEP).any()
    assert "real_monotone" not in result.summary
    why = "of the 400 given none of these classes is taken for its own with a score above 0.9."
    assert sweeps_of(result).caption.endswith(f"Real images are not swept: {why}")
    assert [figure.name for figure in result.figures] == [
        "grid",
        "real-grid",
        "requested-against-obtained",
        "requested-against-obtained-table",
        "sweeps",
    ]


def test_what_is_not_beside_the_samples_is_said(off: UncertainResult) -> None:
    assert "Real images" not in sweeps_of(off).caption
    assert "No real images" not in off.figures[0].caption
    assert off.unswept == ""
    x, y = real_images()
    method = UncertainSamples(per_class=2, rows=1, real_rows=0, levels=(0.9, 0.6), classes=("bright",))
    result = explain(Flat(), method, x=x[y == 0], y=y[y == 0], ids=None)
    assert sweeps_of(result).caption.endswith("Real images are not swept: none were asked for.")
    assert result.figures[0].caption.endswith("of those given none comes near a confidence asked for of its class.")
    names = ["grid", "requested-against-obtained", "requested-against-obtained-table", "sweeps"]
    assert [figure.name for figure in result.figures] == names


@pytest.mark.parametrize(
    ("score", "levels"),
    [("true-class", (0.9, 0.8, 0.6)), ("margin", (0.9, 0.6, 0.3)), ("entropy", (0.9, 0.5, 0.2))],
)
def test_the_real_images_swept_are_sure_by_the_score_itself(score: str, levels: tuple[float, ...]) -> None:
    x, y = real_images()
    result = explain(Flat(score=score), UncertainSamples(per_class=2, rows=1, real_rows=6, levels=levels))
    value = SCORES[score].of(by_brightness()(x), y)
    # Of an entropy the second level from the sure end, which is the last.
    sure = value < levels[-2] if score == "entropy" else value > levels[1]
    dark, bright = ((sure & (y == k)).nonzero()[:, 0].tolist() for k in (0, 1))
    assert result.source_ids == tuple(f"real-{i}" for pair in zip(dark[:3], bright[:3], strict=True) for i in pair)


@pytest.mark.parametrize(
    ("score", "supported", "first", "last"),
    [
        ("confidence", [[0.3, 1.0], [0.5, 0.995]], 0.999, 0.55),
        # As of a classifier that learnt smoothed labels.
        ("confidence", [[0.3, 0.93], [0.5, 0.95]], 0.93, 0.55),
        ("confidence", [[0.3, 1.0], [0.7, 1.0]], 0.999, 0.7),
        ("true-class", [[0.0, 0.9], [0.1, 0.9]], 0.9, 0.1),
        ("margin", [[0.0, 1.0], [0.2, 0.9]], 0.9, 0.2),
        ("entropy", [[0.1, 0.9], [0.05, 0.8]], 0.8, 0.1),
        ("entropy", None, 0.999, 0.001),
    ],
)
def test_levels_are_by_default_what_the_generator_supports(
    score: str, supported: Any, first: float, last: float
) -> None:
    generator = Flat(score=score, supported=supported)
    result = explain(generator, UncertainSamples(per_class=2, rows=1, real_rows=1, steps=0))
    requested = result.requested[result.of(SWEEP)]
    assert len(requested) == 10
    assert (requested.diff() < 0).all()
    assert requested[[0, -1]].tolist() == pytest.approx([first, last])
    assert len(result.sources) == 1


def test_classes_without_a_score_in_common_need_levels() -> None:
    generator = Flat(supported=[[0.5, 0.7], [0.8, 0.95]])
    with pytest.raises(GeneratorError, match=r"of dark, bright the highest low is 0\.800 and the lowest high 0\.700"):
        explain(generator, UncertainSamples())
    explain(generator, UncertainSamples(per_class=2, rows=1, real_rows=0, classes=("bright",)))


@pytest.mark.parametrize(
    ("generator", "settings", "kind", "message"),
    [
        (Flat(supported=[[0.3, 1.0], [0.62, 0.9]]), {}, GeneratorError, "0.620 and 0.900 for class 'bright'.* got 1"),
        (Flat(supported=[[0.3, 1.0], [0.65, 1.0]]), {}, GeneratorError, "0.650 and 1.000 for class 'bright'.* got 0.6"),
        (Flat(supported=[[1.0, 0.0], [0.5, 1.0]]), {}, GeneratorError, "no training image was taken for 'dark'"),
        (Flat(), {"classes": ("bright", "pink")}, LabelError, "among dark, bright, but got pink"),
    ],
    ids=["above", "below", "class never seen", "unknown class"],
)
def test_what_cannot_be_asked_for_is_refused(
    generator: Flat, settings: dict[str, Any], kind: type[FailscapeError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        explain(generator, UncertainSamples(levels=LEVELS, **settings))


def test_a_generator_without_condition_is_refused(world: Any) -> None:
    images = world.images.select(torch.arange(4))
    rng = torch.Generator().manual_seed(0)
    for generator in (world.ten, world.two):
        with pytest.raises(UnsupportedGenerator, match=r"condition .* `failscape train gan`"):
            UncertainSamples()(world.classifier, generator, images.x, images.y, rng=rng)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_class": 1}, "but got 1, 100, 10, 20"),
        ({"steps": -1}, "but got 200, 100, -1, 20"),
        ({"rows": 0}, "`rows` of at least 1"),
        ({"real_rows": -1}, "`real_rows` of at least 0"),
        ({"levels": (0.9,)}, "two falling `levels`"),
        ({"levels": (0.6, 0.9)}, "two falling `levels`"),
        ({"levels": (0.9, 0.9)}, "two falling `levels`"),
        ({"levels": (1.1, 0.9)}, "two falling `levels`"),
        ({"levels": (0.9, 0.0)}, "two falling `levels`"),
        ({"classes": ()}, "`classes` to name at least one"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UncertainSamples(**settings)


def test_survives_saving(off: UncertainResult, tmp_path: Path) -> None:
    off.save(tmp_path)
    loaded = load_result(tmp_path)
    assert isinstance(loaded, UncertainResult)
    assert loaded.summary == off.summary
    assert loaded.table.equals(off.table)
    assert (loaded.source_ids, loaded.score) == (off.source_ids, "confidence")
    assert torch.equal(loaded.images, off.images)


class TestFigures:
    def test_the_grid_says_what_was_asked_and_what_was_obtained(self, off: UncertainResult) -> None:
        axes = off.figures[0].draw().axes  # type: ignore[attr-defined]
        titles = [ax.get_title() for ax in axes]
        assert titles[0].startswith("dark\n")
        assert titles[1].startswith("bright\n")
        obtained = off.obtained[off.of(GRID)].tolist()
        assert [title.split("\n")[-1] for title in titles] == [f"{score:.2f}" for score in obtained]
        assert [ax.get_ylabel() for ax in axes[::2]] == ["asked\n1.00", "0.90", "0.80", "0.70", "0.60"]

    def test_a_prediction_that_was_not_asked_for_is_named(self) -> None:
        result = explain(Flat(offset=0.05), UncertainSamples(steps=0, per_class=3, levels=(0.9, 0.6), rows=1))
        titles = [ax.get_title() for ax in result.figures[0].draw().axes]  # type: ignore[attr-defined]
        assert titles[2].startswith("[bright] ")
        assert not titles[3].startswith("[")

    def test_the_table_says_what_was_obtained_of_each_tenth_of_the_requests(self, off: UncertainResult) -> None:
        (table,) = (figure for figure in off.figures if figure.name == "requested-against-obtained-table")
        assert isinstance(table, Plot)
        alone, refined = table.draw().axes
        assert (alone.get_title("left"), refined.get_title("left")) == ("generator alone", "refined")
        low, high = float(off.requested[off.of(ALONE)].min()), float(off.requested[off.of(ALONE)].max())
        edges = np.linspace(low, high, 11)
        labels = [label.get_text() for label in alone.get_yticklabels()]
        for ax, part in ((alone, ALONE), (refined, REFINED)):
            cells = np.array([float(text.get_text()) for text in ax.texts]).reshape(10, 5)
            requested, obtained = (scores[off.of(part)].double().numpy() for scores in (off.requested, off.obtained))
            tenth = np.searchsorted(edges[1:-1], requested)
            for i, row in enumerate(cells):
                mine = obtained[tenth == i]
                assert labels[i] == f"{50 * (edges[i] + edges[i + 1]):.1f} ({len(mine)})"
                assert row == pytest.approx(100 * np.quantile(mine, [0.05, 0.25, 0.5, 0.75, 0.95]), abs=0.051)
                if part == REFINED:
                    # All are met, but for what one grey value changes.
                    assert 100 * (edges[i] - 0.25 * GREY_VALUE) - 0.1 < row[0] <= row[4]
                    assert row[4] < 100 * (edges[i + 1] + 0.25 * GREY_VALUE) + 0.1
        assert sum(int(label.split("(")[1].rstrip(")")) for label in labels) == 100

    def test_without_a_refinement_none_is_shown(self) -> None:
        result = explain(Flat(offset=0.05), UncertainSamples(steps=0, per_class=20, levels=(0.9, 0.6), rows=1))
        dots, table = (figure for figure in result.figures if figure.name.startswith("requested-against"))
        assert isinstance(dots, Plot)
        assert isinstance(table, Plot)
        assert len(dots.draw().axes) == len(table.draw().axes) == 1
        assert dots.caption.count("All are as the generator draws them.") == 1
        assert "refinement" not in table.caption

    def test_each_change_stands_under_its_picture(self, off: UncertainResult) -> None:
        for gallery in off.figures[4:]:
            assert isinstance(gallery, Gallery)
            real = gallery.name == "real-sweeps"
            case = gallery.cases[1]
            labels = [f"{min(level, 0.999):.2f}" for level in LEVELS]
            expected = [label for label in labels for _ in (0, 1)][1:]
            told = [panel.label.partition(": ") for panel in case.panels]
            assert [asked for asked, _, _ in told] == ["real"] * real + expected
            drawn = [panel.pixels for panel in case.panels[real:] if not panel.signed]
            changes = [panel.pixels for panel in case.panels if panel.signed]
            for picture, change in zip(drawn[1:], changes, strict=True):
                assert torch.equal(change, picture - drawn[0])
            if real:
                assert torch.equal(case.panels[0].pixels, off.sources[1])
                assert case.id == off.source_ids[1]

    def test_what_classifier_and_oracle_take_each_picture_for_stands_beside_it(self, off: UncertainResult) -> None:
        (sweeps,) = (figure for figure in off.figures if figure.name == "sweeps")
        assert isinstance(sweeps, Gallery)
        probs = off.verification.probs.clone()  # type: ignore[union-attr]
        rows = (off.of(SWEEP) & (off.row == 0)).nonzero()[:, 0]
        probs[rows[1]] = torch.tensor([0.2, 0.8])
        other = replace(off, verification=replace(off.verification, probs=probs))
        theirs = off.verification.oracle_probs[rows[1]]  # type: ignore[union-attr, index]
        (moved,) = (figure for figure in other.figures if figure.name == "sweeps")
        assert isinstance(moved, Gallery)

        label = next(panel.label for panel in moved.cases[0].panels[1:] if not panel.signed)

        assert label == f"{LEVELS[1]:.2f}: {NAMES[1]} 0.80, oracle {NAMES[int(theirs.argmax())]} {theirs.max():.2f}"

    def test_a_case_has_the_probability_of_its_class_by_classifier_and_oracle(self, off: UncertainResult) -> None:
        gallery = off.figures[4]
        assert isinstance(gallery, Gallery)
        case = gallery.cases[1]
        assert case.heading == "bright, from sure to unsure"
        assert list(case.probabilities) == ["first, 1.00", "last, 0.60"]
        assert case.numbers["oracle agrees"] == "5 of 5"
        assert float(case.numbers["largest miss"]) < 0.25 * GREY_VALUE
        assert case.line is not None
        assert list(case.line.curves) == ["bright, classifier", "bright, oracle"]
        assert (case.line.x.diff() > 0).all()
        assert (case.line.curves["bright, classifier"] - case.line.x).abs().max() < 0.25 * GREY_VALUE

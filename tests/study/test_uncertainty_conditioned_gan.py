import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from failscape.data import load_images
from failscape.explain import METHODS, UncertainResult, Verification
from failscape.explain.uncertain_result import ALONE, GRID, REAL, REFINED, SWEEP
from failscape.generators import load_generator
from failscape.metrics import Estimate, mean, rate, rate_of
from failscape.study import StudyConfig
from failscape.study.methods import prepare_method
from failscape.study.reproduce import digits, moons, reproduce, uncertainty_conditioned_gan
from failscape.study.reproduce.ablation import DIGITS, MOONS, SUBJECTS, Ablation, read_ablation, run_ablation
from failscape.study.reproduce.claims import write_metrics
from failscape.study.reproduce.uncertainty_conditioned_gan import CLAIMS, WEIGHTS, metrics, study
from failscape.training import gan_evaluation

EMBEDDED = {name: f"embedded:{name}" for name in WEIGHTS}
CLAIMED = [claim for claim in CLAIMS if claim.target != "–"]
REQUESTED = torch.tensor([0.6, 0.7, 0.8, 0.9])


def two_classes(first: torch.Tensor) -> torch.Tensor:
    return torch.stack([first, 1 - first], dim=1)


def some_samples() -> UncertainResult:
    """Four requests of class 0: alone off by 0.1 and one of another class, refined and real ones exact."""
    alone = torch.tensor([0.7, 0.6, 0.9, 0.05])
    sweep = torch.tensor([0.9, 0.7, 0.6, 0.9, 0.95, 0.6])  # falls, and does not
    parts = {ALONE: alone, REFINED: REQUESTED, REAL: REQUESTED[:3], GRID: REQUESTED[:2], SWEEP: sweep}
    requested = [REQUESTED, REQUESTED, REQUESTED[:3], REQUESTED[:2], torch.tensor([0.9, 0.8, 0.6] * 2)]
    rows = [torch.full((4,), -1), torch.full((4,), -1), torch.arange(3), torch.tensor([0, 1])]
    probs = torch.cat(list(parts.values()))
    n = len(probs)
    # The oracle is of the classifier's mind, but for the second refined image.
    theirs = probs.clone()
    theirs[5] = 0.2
    return UncertainResult(
        images=torch.zeros(n, 1, 2, 2),
        part=torch.cat([torch.full((len(values),), part) for part, values in parts.items()]),
        row=torch.cat([*rows, torch.tensor([0, 0, 0, 1, 1, 1])]),
        asked=torch.zeros(n, dtype=torch.long),
        requested=torch.cat(requested),
        sources=torch.zeros(0, 1, 2, 2),
        source_ids=(),
        unswept="none were asked for",
        score="confidence",
        class_names=("a", "b"),
        verification=Verification(probs=two_classes(probs), oracle_probs=two_classes(theirs)),
    )


class Summed:
    """Stands for the calibration step: the reproduction reads its summary alone."""

    summary = {"temperature": 1.5, "calibration_error_before": 0.02, "calibration_error_after": 0.01}  # noqa: RUF012


class Moons:
    metrics = {  # noqa: RUF012
        "moons.spearman": 0.98,
        "moons.mae": mean(torch.tensor([0.01, 0.03])),
        "moons.mae_low": mean(torch.tensor([0.02, 0.04])),
    }


def results() -> dict[str, Any]:
    return {
        "uncertain-samples": some_samples(),
        "calibration": Summed(),
        "moons": Moons(),
        "accuracy": {name: rate(torch.tensor([True, True, False, True])) for name in ("clean", "corrupted")},
        "training_accuracy": {name: rate(torch.tensor([True, False])) for name in ("clean", "corrupted")},
        "quality": {"frechet": 0.3, "floor": 0.2, "recall": rate_of(7, 10), "precision": rate_of(8, 10)},
        "ablation": Ablation(
            rows={
                name: {"guided": {key: [0.4, 0.5, 0.6] for key in subject.numbers}}
                for name, subject in SUBJECTS.items()
            }
        ),
    }


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    return metrics(results())


def value(number: Any) -> Any:
    return number.value if isinstance(number, Estimate) else number


class TestMetrics:
    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            # Of the last image alone, the confidence is that of the other class.
            ("mnist.corrupted.alone.mae", (0.1 + 0.1 + 0.1 + 0.05) / 4),
            ("mnist.corrupted.alone.class", 0.75),
            ("mnist.corrupted.refined.mae", 0.0),
            ("mnist.corrupted.refined.spearman", 1.0),
            ("mnist.corrupted.refined.class", 1.0),
            ("mnist.corrupted.refined.oracle_class", 0.75),
            ("mnist.corrupted.real.oracle_class", 1.0),
            ("mnist.corrupted.refined.oracle_class_ratio", 2 / 3),
            ("mnist.corrupted.training_accuracy", 0.5),
            ("mnist.corrupted.monotone", 0.5),
            ("mnist.corrupted.frechet", 0.3),
            ("mnist.corrupted.frechet_ratio", 1.5),
            ("mnist.corrupted.recall", 0.7),
            ("mnist.corrupted.calibration_error_before", 0.02),
            ("mnist.corrupted.calibration_error_after", 0.01),
            ("mnist.clean.accuracy", 0.75),
            ("moons.mae", 0.02),
            ("ablation.moons.guided.mae_low", 0.5),
            ("ablation.digits.guided.oracle_class", 0.5),
        ],
    )
    def test_means_what_it_says(self, numbers: dict[str, Any], key: str, expected: float) -> None:
        assert value(numbers[key]) == pytest.approx(expected, abs=1e-6)

    def test_every_number_that_was_asked_for_is_there(self, numbers: dict[str, Any]) -> None:
        own = ("spearman", "mae", "class", "oracle_spearman", "oracle_class")
        asked = {f"mnist.corrupted.{part}.{name}" for part in ("alone", "refined") for name in own}
        asked |= {f"mnist.corrupted.real.{name}" for name in ("oracle_spearman", "oracle_class")}
        asked |= {f"mnist.corrupted.{name}" for name in ("frechet", "floor", "monotone", "accuracy")}
        asked |= {"mnist.clean.accuracy", "moons.spearman", "moons.mae", "moons.mae_low"}
        assert asked <= set(numbers)

    def test_every_claim_has_its_number(self, numbers: dict[str, Any], tmp_path: Path) -> None:
        write_metrics(tmp_path, numbers, CLAIMS)
        written = json.loads((tmp_path / "metrics.json").read_text())
        assert written["mnist"]["corrupted"]["alone"]["mae"]["n"] == 4
        assert written["mnist"]["corrupted"]["recall"] == asdict(rate_of(7, 10))
        assert len(json.loads((tmp_path / "claims.json").read_text())) == len(CLAIMS)

    def test_claims_are_no_weaker_than_what_was_set_out_to_be_reached(self) -> None:
        assert {claim.key: (claim.at_least, claim.at_most) for claim in CLAIMED} == {
            "moons.spearman": (0.97, None),
            "moons.mae": (None, 0.03),
            "moons.mae_low": (None, 0.06),
            "mnist.clean.accuracy": (0.985, None),
            "mnist.corrupted.accuracy": (0.932, None),
            "mnist.clean.training_accuracy": (0.988, None),
            "mnist.corrupted.training_accuracy": (0.94, None),
            "mnist.corrupted.alone.spearman": (0.5, None),
            "mnist.corrupted.alone.mae": (None, 0.13),
            "mnist.corrupted.alone.class": (0.95, None),
            "mnist.corrupted.alone.oracle_spearman_ratio": (0.9, None),
            "mnist.corrupted.alone.oracle_class_ratio": (0.9, None),
            "mnist.corrupted.refined.spearman": (0.98, None),
            "mnist.corrupted.refined.mae": (None, 0.02),
            "mnist.corrupted.refined.class": (0.95, None),
            "mnist.corrupted.refined.oracle_spearman_ratio": (0.9, None),
            "mnist.corrupted.refined.oracle_class_ratio": (0.9, None),
            "mnist.corrupted.frechet_ratio": (None, 1.5),
            "mnist.corrupted.recall": (0.6, None),
            "mnist.corrupted.monotone": (0.95, None),
        }


class TestStudy:
    def test_every_step_can_be_built(self) -> None:
        for step in study(EMBEDDED).steps:
            assert isinstance(prepare_method(step).method, METHODS[step.method])

    def test_it_survives_being_written_down(self) -> None:
        assert StudyConfig.from_mapping(tomllib.loads(study(EMBEDDED).to_toml())) == study(EMBEDDED)

    def test_its_requests_are_200_a_class(self) -> None:
        (step,) = [step for step in study(EMBEDDED).steps if step.method == "uncertain-samples"]
        assert prepare_method(step).method.per_class == 200  # type: ignore[attr-defined]
        assert prepare_method(step).method.steps <= 10  # type: ignore[attr-defined]

    def test_calibration_is_measured_from_the_bare_network_on(self) -> None:
        (step,) = [step for step in study(EMBEDDED).steps if step.method == "calibration"]
        assert prepare_method(step).method.bare is True  # type: ignore[attr-defined]


class TestAblation:
    @pytest.mark.parametrize("name", [MOONS, DIGITS])
    def test_the_package_ships_all_variants_of_all_seeds(self, name: str) -> None:
        subject, rows = SUBJECTS[name], read_ablation().rows[name]
        assert list(rows) == list(subject.variants)
        for row in rows.values():
            assert list(row) == list(subject.numbers)
            assert all(len(values) == len(subject.seeds) for values in row.values())

    def test_of_two_seeds_there_is_a_mean_but_no_interval(self) -> None:
        shipped = read_ablation()
        values = shipped.rows[DIGITS]["guided"]["recall"]
        assert len(values) == 2
        assert shipped.metrics["ablation.digits.guided.recall"] == pytest.approx(sum(values) / 2)

    def test_numbers_are_means_over_seeds_with_intervals(self) -> None:
        shipped = read_ablation()
        values = shipped.rows[MOONS]["guided"]["mae_low"]
        number = shipped.metrics["ablation.moons.guided.mae_low"]
        assert isinstance(number, Estimate)
        assert number.n == len(values) == 3
        assert number.value == pytest.approx(sum(values) / 3)
        assert number.low < number.value < number.high

    @pytest.mark.parametrize(("subject", "key"), [(MOONS, "mae_low"), (DIGITS, "mae")])
    def test_guidance_binds_better_than_the_papers_baseline(self, subject: str, key: str) -> None:
        rows = read_ablation().rows[subject]
        # Of each seed, and so by more than seeds differ.
        assert max(rows["guided"][key]) < min(rows["scalar"][key])

    def test_each_subject_has_a_chart_that_says_what_is_compared(self) -> None:
        on_moons, on_digits = read_ablation().plots
        for plot, variants in ((on_moons, moons.VARIANTS), (on_digits, digits.VARIANTS)):
            assert all(f"{name}: " in plot.caption.lower() for name in variants)
            plot.draw().canvas.draw()
        assert "Fréchet distance" in on_digits.caption
        assert "Fréchet distance" not in on_moons.caption

    def test_run_again_it_trains_and_measures_every_variant_of_every_seed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[Path, str, str, int]] = []

        class Measured:
            def __init__(self, seed: int) -> None:
                numbers = {f"moons.{key}": float(seed) for key in SUBJECTS[MOONS].numbers}
                self.metrics: dict[str, Any] = numbers | {"moons.mae": mean(torch.full((2,), float(seed)))}

        def moons_of(folder: Path, *, seed: int, progress: Any) -> dict[str, Measured]:
            return dict.fromkeys(moons.VARIANTS, Measured(seed))

        def digits_of(folder: Path, *, classifier: str, oracle: str, seed: int, progress: Any) -> dict[str, Any]:
            asked.append((folder, classifier, oracle, seed))
            return {
                name: dict.fromkeys(SUBJECTS[DIGITS].numbers, seed + place / 100)
                for place, name in enumerate(digits.VARIANTS)
            }

        monkeypatch.setattr(moons, "moons_ablation", moons_of)
        monkeypatch.setattr(digits, "digits_ablation", digits_of)
        ablation = run_ablation(tmp_path, classifier="one", oracle="other", progress=print)
        assert asked == [(tmp_path / "digits", "one", "other", seed) for seed in SUBJECTS[DIGITS].seeds]
        assert ablation.rows[MOONS]["vector"]["mae"] == [0.0, 1.0, 2.0]
        assert ablation.rows[DIGITS]["vector"]["recall"] == [0.04, 1.04]
        assert set(read_ablation().metrics) == set(ablation.metrics)

    @pytest.mark.parametrize("retrain", [True, False])
    def test_only_a_retraining_makes_it_again_and_of_the_weights_that_were_retrained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: bool
    ) -> None:
        trained = {name: f"trained {name}" for name in WEIGHTS}
        again = Ablation(rows={})

        def ran(out: Path, *, classifier: str, oracle: str, progress: Any) -> Ablation:
            assert (out, classifier, oracle) == (tmp_path, "trained mnist-corrupted", "trained mnist-oracle-corrupted")
            return again

        for name in ("run_moons", "_accuracy", "_quality"):
            monkeypatch.setattr(uncertainty_conditioned_gan, name, lambda *_, **__: None)
        monkeypatch.setattr(uncertainty_conditioned_gan, "run_ablation", ran)
        measured = uncertainty_conditioned_gan.measure(trained, tmp_path, retrain=retrain, progress=print)
        assert (measured["ablation"] is again) == retrain


class TestDigits:
    @pytest.mark.parametrize("name", digits.VARIANTS)
    def test_variants_differ_from_ours_in_what_they_say_alone(self, name: str) -> None:
        ours, variant = (digits.settings_of(each, classifier="one", seed=3) for each in ("perceived", name))
        theirs = variant.model_dump()
        differing = {key for key, value in ours.model_dump().items() if theirs[key] != value} - {"name"}
        assert differing == set(digits.VARIANTS[name].changes)
        assert (variant.classifier, variant.seed) == ("one", 3)
        assert variant.name in digits.ablation_seconds(3)

    def test_the_paper_has_neither_projection_nor_guidance_nor_perception(self) -> None:
        scalar = digits.settings_of("scalar", classifier="one", seed=0)
        assert (scalar.embedding, scalar.guidance, scalar.late_guidance, scalar.perceive) == ("scalar", 0, 0, False)

    def test_each_is_measured_against_the_classifier_that_it_was_trained_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = {name: digits.VARIANTS[name] for name in ("perceived", "uncalibrated")}
        trained: list[str] = []

        def train(settings: Any, folder: Path, *, progress: Any) -> Path:
            trained.append(settings.name)
            return folder

        monkeypatch.setattr(digits, "VARIANTS", few)
        monkeypatch.setattr(digits, "train_by", train)
        monkeypatch.setattr(digits, "load_generator", {tmp_path: load_generator("embedded:mnist-stylegan2")}.get)
        monkeypatch.setattr(gan_evaluation, "_EVEN", 400)
        monkeypatch.setattr(digits, "load_images", lambda spec: load_images(spec).select(torch.arange(400)))
        numbers = digits.digits_ablation(
            tmp_path, classifier="embedded:mnist-corrupted", oracle="embedded:mnist-oracle-corrupted", seed=4
        )
        assert trained == ["digits-perceived-seed4", "digits-uncalibrated-seed4"]
        assert all(set(SUBJECTS[DIGITS].numbers) == set(row) for row in numbers.values())
        # The same generator and requests; of the bare network's verdicts, its confidence alone is another.
        assert numbers["perceived"]["class"] == numbers["uncalibrated"]["class"] > 0.9
        assert numbers["perceived"]["mae"] != numbers["uncalibrated"]["mae"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestWhole:
    """The numbers that are promised, measured."""

    @pytest.mark.parametrize("claim", CLAIMED, ids=[claim.key for claim in CLAIMED])
    def test_claim_is_reached(self, whole: Path, claim: Any) -> None:
        row = next(row for row in json.loads((whole / "claims.json").read_text()) if row["key"] == claim.key)
        assert row["value"] is not None
        assert row["reached"] is True, (row["value"], claim.target)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce("uncertainty-conditioned-gan", tmp_path_factory.mktemp("whole"))

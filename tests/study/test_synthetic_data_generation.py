import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from failscape import load_classifier, load_generator, load_images
from failscape.explain import METHODS, CentroidPath, ClassConvergence, Frontier, RetrainingResult, Verification
from failscape.explain.frontier_request import frontier_targets
from failscape.metrics import Estimate
from failscape.study import StudyConfig
from failscape.study.methods import prepare_method
from failscape.study.reproduce.claims import Claim, write_metrics
from failscape.study.reproduce.families import read_families
from failscape.study.reproduce.registry import reproduce
from failscape.study.reproduce.synthetic_data_generation import CLAIMS, WEIGHTS, metrics, study

EMBEDDED = {name: f"embedded:{name}" for name in WEIGHTS}


def retrained() -> RetrainingResult:
    """Two replicates of four fresh images: all wrong before, one in each after, three by the control."""
    labels = torch.ones(8, dtype=torch.long)
    after = torch.tensor([1, 1, 1, 0] * 2)
    control = torch.tensor([1, 0, 0, 0] * 2)
    return RetrainingResult(
        images=torch.zeros(8, 1, 2, 2),
        ids=tuple(str(i) for i in range(8)),
        replicate=torch.arange(8) // 4,
        new_frontier=torch.zeros(8, dtype=torch.bool),
        labels=labels,
        predictions=torch.stack([after, control, control]),
        clean=torch.tensor([[True, True, False, False]] * 4)[:, None].expand(4, 2, 4).contiguous(),
        corrupted=torch.full((4, 2, 4), 0.5),
        labelled=4,
        taught=torch.full((2, 2), 0.5),
        examples=torch.zeros(1, 1, 2, 2),
        example_labels=torch.ones(1, dtype=torch.long),
        labeller="oracle",
        stand_in=True,
        judge="",
        protocol="planted",
        data="data",
        test="test",
        class_names=("a", "b"),
        verification=Verification(probs=torch.tensor([[0.9, 0.1]]).expand(8, 2)),
    )


def spoilt(result: Any, n: int) -> Any:
    """Return a result of which the first class alone is said of the first images, so that its numbers are its own."""
    probs = torch.eye(10)[:1].expand(n, 10)
    whole = result.verification
    oracle = None if whole.oracle_probs is None else torch.cat([probs, whole.oracle_probs[n:]])
    return replace(result, verification=replace(whole, probs=torch.cat([probs, whole.probs[n:]]), oracle_probs=oracle))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    classifier, oracle = load_classifier("embedded:fashion"), load_classifier("embedded:fashion-oracle")
    generator = load_generator("embedded:fashion-wgan")

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    x = generator.sample(32, rng=rng())
    y = classifier.predict(x)
    convergence = ClassConvergence(by="both", samples=4, candidates=5, steps=3, training_steps=2)
    frontier = Frontier(targets=("Pullover,Coat", "Trouser,Bag"), per_target=4, samples=300, restarts=0, opinions=0)
    digits = load_images("embedded:mnist-test").select(torch.arange(100))
    paths = CentroidPath(pairs=(("4", "7"), ("3", "8")), points=9)
    found = frontier(classifier, generator, x, y, rng=rng(), oracle=oracle)
    converged = convergence(classifier, generator, x, y, rng=rng(), oracle=oracle)
    vae = load_generator("embedded:mnist-vae-10d")
    ways = paths(load_classifier("embedded:mnist-clean"), vae, digits.x, digits.y, rng=rng())
    return {
        "class-convergence": converged,
        "frontier": found,
        "frontier-triples": spoilt(found, 1),
        "frontier-training": spoilt(found, 2),
        "frontier-vae": spoilt(found, 3),
        "centroid-path": ways,
        # Garments and digits in place of faces, for which all is alike but slower.
        "hair-convergence": spoilt(converged, 3),
        "hair-frontier": spoilt(found, 4),
        "hair-path": spoilt(ways, 9),
        "retraining": retrained(),
        "families": read_families(),
    }


class TestMetrics:
    def test_every_claim_has_its_number(self, results: dict[str, Any], tmp_path: Path) -> None:
        numbers = metrics(results)
        keys = [claim.key for claim in CLAIMS]
        assert len(set(keys)) == len(keys)
        assert set(keys) <= set(numbers)
        write_metrics(tmp_path, numbers, CLAIMS)
        assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "claims.json"}

    def test_what_nothing_is_known_of_is_null_and_not_left_out(self, results: dict[str, Any], tmp_path: Path) -> None:
        # No image is on a frontier, and no way begins and ends at its classes: class 0 is said of everything.
        found, ways = results["frontier"], results["centroid-path"]

        def certain(n: int) -> Verification:
            of_one = torch.eye(10)[:1].expand(n, 10)
            return Verification(probs=of_one, oracle_probs=of_one)

        nothing = replace(found, verification=certain(len(found.images)))
        lost = replace(ways, verification=certain(len(ways.images)))
        empty = {"frontier": nothing, "hair-frontier": nothing, "centroid-path": lost, "hair-path": lost}
        write_metrics(tmp_path, metrics(results | empty), CLAIMS)
        numbers = json.loads((tmp_path / "metrics.json").read_text())
        for place in (numbers, numbers["hair"]):
            assert place["centroid_path"]["third"]["value"] is None
            assert place["frontier"]["oracle_top2"]["value"] is place["frontier"]["oracle_agrees"]["value"] is None
        claims = {claim["key"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
        assert claims["frontier.oracle_top2"]["reached"] is None

    def test_the_lowest_target_counts(self, results: dict[str, Any]) -> None:
        numbers, rates = metrics(results), results["frontier"].rates
        found = numbers["frontier.rate"]
        assert isinstance(found, Estimate)
        assert found.value == min(each.value for each in rates)
        assert numbers["frontier.by_target.Pullover | Coat.rate"] == rates[0]
        assert numbers["frontier.pairs"] == sum(each.value > 0 for each in rates)

    @pytest.mark.parametrize(
        ("key", "step"),
        [
            ("frontier", "frontier"),
            ("frontier_triples", "frontier-triples"),
            ("frontier_training", "frontier-training"),
            ("frontier_vae", "frontier-vae"),
            ("hair.frontier", "hair-frontier"),
        ],
    )
    def test_frontiers_have_the_numbers_of_their_step(self, results: dict[str, Any], key: str, step: str) -> None:
        numbers = metrics(results)
        # Two targets of four images each; of every step another number of them is spoilt.
        assert (
            len(
                {
                    result.estimates["oracle_agrees"]
                    for result in results.values()
                    if "oracle_agrees" in getattr(result, "estimates", {})
                }
            )
            == 5
        )
        for name in ("rate", "median_tv", "oracle_agrees"):
            if f"{key}.{name}" in numbers:
                assert numbers[f"{key}.{name}"] == results[step].estimates[name]

    @pytest.mark.parametrize(
        ("key", "step"), [("convergence", "class-convergence"), ("hair.convergence", "hair-convergence")]
    )
    def test_convergence_has_the_numbers_of_its_step(self, results: dict[str, Any], key: str, step: str) -> None:
        assert (
            results["class-convergence"].estimates["search_disputed"]
            != results["hair-convergence"].estimates["search_disputed"]
        )
        numbers = metrics(results)
        assert numbers[f"{key}.rate"] == results[step].estimates["search_rate"]
        assert numbers[f"{key}.disputed"] == results[step].estimates["search_disputed"]

    def test_paths_have_the_numbers_of_their_step(self, results: dict[str, Any]) -> None:
        numbers = metrics(results)
        values = []
        for key, step in (("centroid_path", "centroid-path"), ("hair.centroid_path", "hair-path")):
            arrives = numbers[f"{key}.arrives"]
            assert isinstance(arrives, Estimate)
            assert arrives.value == results[step].arrives.float().mean().item()
            values.append(arrives.value)
        assert values[0] != values[1]

    @pytest.mark.parametrize(
        ("key", "expected"),
        [("before", 1.0), ("after", 0.25), ("ratio", 0.25), ("control", 0.75), ("clean_before", 0.5)],
    )
    def test_retraining_by_hand(self, results: dict[str, Any], key: str, expected: float) -> None:
        number = metrics(results)[f"retraining.{key}"]
        assert isinstance(number, Estimate)
        assert number.value == pytest.approx(expected)

    def test_claims_are_no_weaker_than_what_was_set_out_to_be_reached(self) -> None:
        assert {claim.key: (claim.at_least, claim.at_most) for claim in CLAIMS if claim.target != "–"} == {
            "convergence.rate": (0.99, None),
            "convergence.training_rate": (0.99, None),
            "frontier.pairs": (45.0, None),
            "frontier.rate": (0.99, None),
            "frontier.median_tv": (None, 0.05),
            "frontier.oracle_top2": (0.6, None),
            "frontier_triples.rate": (0.99, None),
            "frontier_vae.pairs": (45.0, None),
            "frontier_vae.rate": (0.99, None),
            "frontier_vae.median_tv": (None, 0.05),
            "frontier_vae.oracle_top2": (0.6, None),
            "retraining.ratio": (None, 0.5),
            "retraining.clean_change": (0.0, None),
        }


class TestStudy:
    def test_every_step_can_be_built(self) -> None:
        for step in study(EMBEDDED).steps:
            assert isinstance(prepare_method(step).method, METHODS[step.method])

    def test_the_way_of_the_paper_to_frontiers_is_gone_for_three_pairs(self) -> None:
        (step,) = (step for step in study(EMBEDDED).steps if step.name == "frontier-training")
        method = prepare_method(step).method
        assert (method.by, method.weight) == ("training", None)
        _, targets = frontier_targets(method.targets, load_classifier("embedded:fashion").class_names)
        assert targets.shape == (3, 10)
        assert torch.equal(targets.amax(dim=1), torch.full((3,), 0.5))

    def test_its_steps_are_those_that_the_numbers_are_made_of(self, results: dict[str, Any]) -> None:
        assert [*(step.name for step in study(EMBEDDED).steps), "retraining", "families"] == list(results)

    def test_it_survives_being_written_down(self) -> None:
        assert StudyConfig.from_mapping(tomllib.loads(study(EMBEDDED).to_toml())) == study(EMBEDDED)

    def test_weights_come_from_where_they_are_said_to_be(self) -> None:
        assert "embedded" not in study({name: f"runs/{name}" for name in WEIGHTS}).to_toml()


CLAIMED = [claim for claim in CLAIMS if claim.target != "–"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
class TestWhole:
    """The numbers that are promised, measured: half an hour."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return reproduce("synthetic-data-generation", tmp_path_factory.mktemp("whole") / "out")

    @pytest.mark.parametrize("claim", CLAIMED, ids=lambda claim: claim.key)
    def test_claim_is_reached(self, claim: Claim, run: Path) -> None:
        row = next(row for row in json.loads((run / "claims.json").read_text()) if row["key"] == claim.key)
        assert row["value"] is not None
        assert row["reached"] is True, (row["value"], claim.target)

import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from failscape import load_classifier, load_generator, load_images
from failscape.data import TRAITS
from failscape.errors import SpecError, StudyError
from failscape.explain import (
    METHODS,
    EdgeCasesResult,
    HeatmapResult,
    SympatheticExamples,
    SympatheticResult,
    Verification,
)
from failscape.figures import Plot
from failscape.metrics import Estimate, rate
from failscape.study import StudyConfig
from failscape.study.methods import prepare_method
from failscape.study.reproduce import REPRODUCTIONS, latent_sympathetic_examples, registry, reproduce
from failscape.study.reproduce.claims import Claim, write_metrics
from failscape.study.reproduce.latent_sympathetic_examples import CLAIMS, WEIGHTS, metrics, study
from failscape.study.reproduce.traits import LEFT_OUT, region_of

EMBEDDED = {name: f"embedded:{name}" for name in WEIGHTS}
CLAIMED = [claim for claim in CLAIMS if claim.target != "–"]


def searched(
    success: list[int], norm: list[float], *, reachable: list[int] | None = None, oracle: list[int] | None = None
) -> SympatheticResult:
    """Return a result whose rows succeed, and whose oracle agrees, where there is a 1."""
    n = len(success)
    right, agrees = torch.tensor(success).bool(), torch.tensor(oracle or [1] * n)
    epsilon = torch.tensor(norm)[:, None] * torch.tensor([0.6, 0.8])
    return SympatheticResult(
        images=torch.zeros(n, 1, 2, 2),
        originals=torch.zeros(n, 1, 2, 2),
        reconstructions=torch.zeros(n, 1, 2, 2),
        z=torch.zeros(n, 2),
        epsilon=epsilon,
        target=torch.ones(n, dtype=torch.long),
        found=right,
        reachable=torch.tensor(reachable or success),
        steps=torch.ones(n, dtype=torch.long),
        path=epsilon[:, None],
        line=torch.full((n, 1, 2), 0.5),
        prior_length=1.0,
        mode="boundary",
        confidence=0.0,
        class_names=("a", "b"),
        ids=tuple(str(row) for row in range(n)),
        verification=Verification(probs=torch.eye(2)[right.long()], oracle_probs=torch.eye(2)[agrees]),
    )


def some_pairs() -> EdgeCasesResult:
    """Two pairs, of which one is on both sides, found from nine images."""
    inside = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    return EdgeCasesResult(
        images=torch.zeros(4, 1, 2, 2),
        epsilon_outside=inside * torch.tensor([[0.9995], [0.9998]]),
        epsilon_inside=inside,
        target=torch.tensor([1, 1]),
        searched=torch.tensor([5, 4]),
        looked_for=torch.tensor([10, 8]),
        tolerance=1e-3,
        class_names=("a", "b"),
        ids=("0/0", "0/1"),
        verification=Verification(probs=torch.eye(2)[torch.tensor([0, 1, 1, 1])]),
    )


def some_map(trait: str) -> HeatmapResult:
    """Three test faces of which one trait alone was changed."""
    ids = tuple(f"face-2-{i:06d}" for i in (10, 16, 18))
    change = 0.5 * region_of(trait, ids).float().expand(3, 3, -1, -1).clone()
    return HeatmapResult(
        images=torch.zeros(3, 3, 64, 64),
        change=change,
        chance=torch.zeros_like(change),
        target=torch.ones(3, dtype=torch.long),
        confidence=0.9,
        class_names=("no smile", "smile"),
        ids=ids,
        verification=Verification(probs=torch.tensor([[0.0, 1.0]]).repeat(3, 1)),
    )


def results() -> dict[str, Any]:
    # Both solve rows 0 and 1; row 2 ours alone, row 3 the baseline alone, row 4 neither.
    ours, theirs = [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]
    baseline = searched(theirs, [4.0, 8.0, 100.0, 100.0, 100.0], oracle=[1, 0, 1, 1, 1])
    found = searched(ours, [1.0, 2.0, 9.0, 50.0, 50.0], oracle=[1, 1, 0, 0, 0])
    plane = searched(ours, [1.0, 2.0, 9.0, 50.0, 50.0], reachable=[1, 1, 1, 1, 0])
    unknown = searched(ours, [1.0, 2.0, 9.0, 50.0, 50.0], reachable=[1, 1, 1, -1, 0])
    return {
        "lse-10d": found,
        "lse-10d-confident": searched([1] * 5, [2.0, 4.0, 6.0, 8.0, 10.0], oracle=[1, 1, 1, 1, 0]),
        "lse-10d-confident75": searched([1, 1, 0, 0, 0], [3.0, 6.0, 0.0, 0.0, 0.0], oracle=[1, 0, 1, 1, 1]),
        "lse-10d-unguarded": found,
        "lse-10d-baseline": baseline,
        "lse-2d": plane,
        "lse-2d-baseline": baseline,
        "lae-10d": found,
        "lae-10d-baseline": baseline,
        "lae-2d": unknown,
        "lae-2d-baseline": searched([0] * 5, [1.0] * 5),
        "edge-cases": some_pairs(),
        "perturbation-heatmap": None,
        # Three faces a trait; of moustaches one is not put right.
        **{
            f"traits-{trait.replace('_', '-')}": searched(
                [1, 1, int(trait != "moustache")], [1.0] * 3, oracle=[1, 0, 1]
            )
            for trait in TRAITS
        },
        **{f"lacking-{trait}": some_map(trait) for trait in LEFT_OUT},
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
            ("lse.d10.success", 0.6),
            ("lse.d10.baseline_success", 0.6),
            # Means are over what each solves itself …
            ("lse.d10.norm", 4.0),
            ("lse.d10.baseline_norm", 112 / 3),
            # … but the ratio only over what both solve.
            ("lse.d10.baseline_norm_ratio", 3 / 12),
            ("lse.d10.oracle", 2 / 3),
            ("lse.d10.baseline_oracle", 2 / 3),
            ("lse.d2.success", 0.6),
            # One row of five is proven to be out of reach; what is not known counts as reachable.
            ("lse.d2.reachable_success", 0.75),
            ("lse.d2.proven_unreachable", 1),
            ("lae.d2.reachable_success", 0.75),
            ("lae.d2.baseline_success", 0.0),
            ("lse.d10.confident.success", 1.0),
            ("lse.d10.confident.oracle", 0.8),
            ("lse.d10.confident.norm", 6.0),
            ("lse.d10.confident.baseline_norm_ratio", (2 + 4 + 8) / 112),
            ("lse.d10.confident.oracle_gain", 0.8 - 2 / 3),
            ("lse.d10.confident75.baseline_norm_ratio", 9 / 12),
            ("lse.d10.confident75.oracle_gain", 0.5 - 2 / 3),
            ("lse.d10.unguarded.oracle", 2 / 3),
            ("edge_cases.pairs", 2),
            ("edge_cases.images", 9),
            ("edge_cases.success", 0.5),
            ("edge_cases.max_gap", 5e-4),
            ("traits.glasses", 1.0),
            ("traits.moustache", 2 / 3),
            ("traits.min", 2 / 3),
            ("traits.mean", 29 / 30),
            # Of 29 that were put right the oracles agree on all but one a trait.
            ("traits.oracle", 19 / 29),
            ("heatmap.glasses.iou_alone", 1.0),
            ("heatmap.beard.iou_alone", 1.0),
            ("heatmap.moustache.success", 1.0),
        ],
    )
    def test_by_hand(self, numbers: dict[str, Any], key: str, expected: float) -> None:
        assert value(numbers[key]) == pytest.approx(expected, rel=1e-3)

    def test_a_map_is_held_against_the_exact_mask(self, numbers: dict[str, Any]) -> None:
        overlaps = []
        for trait in LEFT_OUT:
            ids = some_map(trait).ids
            alone, both = region_of(trait, ids), region_of(trait, ids) | region_of("smile", ids)
            assert 0.01 < alone.float().mean() < 0.2
            assert both.sum() > alone.sum()
            assert numbers[f"heatmap.{trait}.area"] == alone.float().mean()
            assert numbers[f"heatmap.{trait}.combination_area"] == both.float().mean()
            overlaps.append(float(alone.sum() / both.sum()))
            assert numbers[f"heatmap.{trait}.iou"] == pytest.approx(overlaps[-1])
        assert len(set(overlaps)) == len(LEFT_OUT)
        assert numbers["heatmap.iou"] == pytest.approx(min(overlaps))

    def test_rates_say_of_how_many(self, numbers: dict[str, Any]) -> None:
        assert numbers["lse.d10.success"] == rate(torch.tensor([True, True, True, False, False]))
        assert numbers["lse.d2.reachable_success"].n == 4
        assert numbers["lse.d10.baseline_norm_ratio"].n == 2
        assert numbers["lse.d10.oracle"].n == 3

    def test_of_nothing_solved_by_both_there_is_no_ratio(self, numbers: dict[str, Any], tmp_path: Path) -> None:
        assert numbers["lae.d2.baseline_norm_ratio"].n == 0
        write_metrics(tmp_path, numbers, CLAIMS)
        written = json.loads((tmp_path / "metrics.json").read_text())
        assert written["lae"]["d2"]["baseline_norm_ratio"]["value"] is None

    def test_every_number_is_written(self, numbers: dict[str, Any], tmp_path: Path) -> None:
        write_metrics(tmp_path, numbers, CLAIMS)
        for key, number in numbers.items():
            place = json.loads((tmp_path / "metrics.json").read_text())
            for part in key.split("."):
                place = place[part]
            written = place["value"] if isinstance(number, Estimate) else place
            assert written is None or written == value(number), key

    def test_every_number_that_was_asked_for_is_there(self, numbers: dict[str, Any]) -> None:
        own = ("success", "reachable_success", "norm", "baseline_success", "baseline_norm_ratio", "oracle")
        asked = {f"{kind}.{d}.{name}" for kind in ("lse", "lae") for d in ("d2", "d10") for name in own}
        asked |= {
            f"lse.d10.{mode}.{name}"
            for mode in ("confident", "confident75")
            for name in ("success", "oracle", "baseline_norm_ratio")
        }
        asked |= {"lse.d10.baseline_oracle", "edge_cases.success", "edge_cases.max_gap", "traits.min"}
        asked |= {f"traits.{trait}" for trait in TRAITS}
        assert asked <= set(numbers)

    def test_every_claim_has_its_number(self, numbers: dict[str, Any]) -> None:
        keys = [claim.key for claim in CLAIMS]
        assert len(set(keys)) == len(keys)
        assert set(keys) <= set(numbers)

    def test_claims_are_no_weaker_than_what_was_set_out_to_be_reached(self) -> None:
        claims = {claim.key: (claim.at_least, claim.at_most) for claim in CLAIMED}
        assert claims == {
            "lse.d10.success": (1.0, None),
            "lse.d2.reachable_success": (0.99, None),
            "lse.d10.baseline_norm_ratio": (None, 0.4),
            "lse.d2.baseline_norm_ratio": (None, 0.4),
            "lse.d10.confident.success": (0.99, None),
            "lse.d10.confident.oracle": (0.93, None),
            "lse.d10.confident.baseline_norm_ratio": (None, 0.9),
            "lse.d10.confident75.oracle_gain": (0.0, None),
            "lse.d10.confident75.baseline_norm_ratio": (None, 0.65),
            "lae.d10.success": (0.999, None),
            "lae.d2.reachable_success": (0.99, None),
            "lae.d10.baseline_norm_ratio": (None, 0.65),
            "lae.d2.baseline_norm_ratio": (None, 0.65),
            "edge_cases.max_gap": (None, 1e-3),
            **{f"traits.{trait}": (0.95, None) for trait in TRAITS},
            "heatmap.iou": (0.5, None),
            **{f"heatmap.{trait}.iou": (0.5, None) for trait in LEFT_OUT},
        }


class TestFigures:
    @pytest.fixture(scope="class")
    @classmethod
    def searches(cls) -> dict[str, Any]:
        images, classifier = load_images("embedded:mnist-test"), load_classifier(EMBEDDED["mnist-clean"])
        few = images.select((classifier.predict(images.x[:2000]) != images.y[:2000]).nonzero()[:, 0])

        def search(dimensions: int, **settings: Any) -> SympatheticResult:
            generator = load_generator(EMBEDDED[f"mnist-vae-{dimensions}d"])
            method, rng = SympatheticExamples(**settings), torch.Generator().manual_seed(0)
            return method(classifier, generator, few.x, few.y, rng=rng, ids=few.ids)

        return {
            "lse-2d": search(2, plane=12),
            # Short of steps, it leaves some undone that can be done.
            "lse-2d-baseline": search(2, mode="fixed-step", max_steps=2, plane=0, grid=20),
            "lse-10d": search(10),
            **{f"lacking-{trait}": some_map(trait) for trait in LEFT_OUT},
        }

    def test_are_drawn(self, searches: dict[str, Any]) -> None:
        plots = latent_sympathetic_examples.figures(searches)
        assert [plot.name for plot in plots] == ["search", "local-minimum", "dimensions", "lacking"]
        for plot in plots:
            assert plot.title
            assert plot.caption
            plot.draw().canvas.draw()

    def test_what_nobody_solved_is_not_drawn(self, searches: dict[str, Any]) -> None:
        n, k = searches["lse-2d"].line[:, 0].shape
        nothing = Verification(probs=torch.eye(k)[(searches["lse-2d"].target + 1) % k])
        assert n > 5
        unsolved: dict[str, Any] = {
            name: replace(searches[name], verification=nothing) for name in ("lse-2d", "lse-2d-baseline", "lse-10d")
        }
        for trait in LEFT_OUT:
            wrong = Verification(probs=torch.eye(2)[[0, 0, 0]])
            unsolved[f"lacking-{trait}"] = replace(some_map(trait), verification=wrong)
        assert latent_sympathetic_examples.figures(unsolved) == []


class TestStudy:
    def test_every_step_can_be_built(self) -> None:
        for step in study(EMBEDDED).steps:
            assert isinstance(prepare_method(step).method, METHODS[step.method])

    def test_its_steps_are_those_that_the_numbers_are_made_of(self) -> None:
        assert [step.name for step in study(EMBEDDED).steps] == list(results())

    def test_it_survives_being_written_down(self) -> None:
        assert StudyConfig.from_mapping(tomllib.loads(study(EMBEDDED).to_toml())) == study(EMBEDDED)

    def test_weights_come_from_where_they_are_said_to_be(self) -> None:
        retrained = study({name: f"runs/{name}" for name in WEIGHTS})
        assert "embedded" not in retrained.to_toml().replace("embedded:mnist-test", "")
        assert [step.oracle for step in retrained.steps if step.name.startswith("traits")] == [
            f"runs/avatars-oracle-{trait}" for trait in TRAITS
        ]
        by_name = {step.name: step for step in retrained.steps}
        for kind in ("lse", "lae"):
            assert by_name[f"{kind}-2d"].generator == by_name[f"{kind}-2d-baseline"].generator == "runs/mnist-vae-2d"
            assert by_name[f"{kind}-10d"].generator == "runs/mnist-vae-10d"

    def test_ours_and_the_baseline_are_given_the_same_images(self) -> None:
        by_name = {step.name: step for step in study(EMBEDDED).steps}
        for name, step in by_name.items():
            if name.endswith("-baseline"):
                assert step.settings["mode"] == "fixed-step"
                assert step.settings["step"] == 0.1
                ours = by_name[name.removesuffix("-baseline")]
                assert (ours.images, ours.generator) == (step.images, step.generator)
            if name.startswith("lae"):
                assert (step.images.only, step.images.limit, step.images.targets) == ("correct", 100, "others")


class TestRegistry:
    def test_an_unknown_paper_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"Expected one of .*latent-sympathetic-examples.* but got 'other'"):
            reproduce("other", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_numbers_and_claims_are_written_beside_the_steps(self, small: type, tmp_path: Path) -> None:
        said: list[str] = []
        run = reproduce("small", tmp_path / "out", progress=said.append)
        assert run == tmp_path / "out"
        written = json.loads((run / "metrics.json").read_text())
        assert written["edge_cases"]["pairs"] >= 8
        assert json.loads((run / "claims.json").read_text())[0]["reached"] is True
        assert (run / "steps" / "01-edge-cases" / "result.safetensors").is_file()
        (figure,) = json.loads((run / "figures.json").read_text())
        assert figure["name"] == "sheet"
        assert figure["title"]
        assert figure["caption"]
        assert list((run / "figures").glob("sheet.*"))
        # A second time, all is kept.
        before = (run / "metrics.json").read_bytes()
        reproduce("small", tmp_path / "out", progress=said.append)
        assert "done before" in said[-2]
        assert said[-1] == "measuring in out, as embedded"
        assert (run / "metrics.json").read_bytes() == before

    def test_a_step_that_fails_is_an_error_and_no_numbers(
        self, small: type, tmp_path: Path, probe: type, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(small, "method", {"method": "probe", "settings": {"fails": True}})
        with pytest.raises(StudyError, match=r"probe did not: Expected luck, but got none\. Try again\. Mend that"):
            reproduce("small", tmp_path / "out")
        assert not (tmp_path / "out" / "metrics.json").exists()

    def test_a_missing_extra_is_told_of_before_anything_is_trained_or_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "python_avatars", None)
        monkeypatch.setattr(registry, "train_embedded", lambda *_, **__: pytest.fail("trained"))
        for retrain in (False, True):
            with pytest.raises(SpecError, match=r"pip install 'failscape\[avatars\]'"):
                reproduce("latent-sympathetic-examples", tmp_path / "out", retrain=retrain)
            assert not (tmp_path / "out").exists()

    def test_retraining_uses_the_new_weights(
        self, small: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, Path]] = []

        def train(name: str, out: Path, *, progress: Any) -> Path:
            # Stands for hours of training: the embedded weights, copied as a training would leave them.
            asked.append((name, out))
            kind, saved = ("generators", "generator") if "vae" in name else ("classifiers", "classifier")
            source = Path(registry.__file__).parents[2] / "assets" / kind
            folder = out / f"00001-{name}"
            folder.mkdir(parents=True)
            for ending in ("json", "safetensors"):
                (folder / f"{saved}.{ending}").write_bytes((source / f"{name}.{ending}").read_bytes())
            return folder

        monkeypatch.setattr(registry, "train_embedded", train)
        said: list[str] = []
        run = reproduce("small", tmp_path / "out", retrain=True, progress=said.append)
        assert said[0] == (
            "small: took 7 minutes of one core where it was measured, and the trainings before it; a run that is cut "
            "off goes on"
        )
        # With what is trained beside the weights.
        assert said[1].startswith(f"{len(WEIGHTS) + 1} to be trained, which took ")
        assert said[1].endswith(", another")
        assert asked == [(name, tmp_path / "out" / "weights") for name in WEIGHTS]
        resolved = tomllib.loads((run / "study.toml").read_text())
        assert resolved["classifier"]["spec"] == str(run / "weights" / "00001-mnist-clean")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> type:
    """A reproduction of one step on a few digits."""

    class Small:
        MINUTES = 7
        TRAININGS: dict[str, float] = {"more/another": 60.0}  # noqa: RUF012
        WEIGHTS = WEIGHTS
        CLAIMS = (Claim(key="edge_cases.max_gap", what="gap", at_most=1e-3),)
        method: dict[str, Any] = {"method": "edge-cases", "settings": {"crossings": 4}}  # noqa: RUF012

        @classmethod
        def study(cls, weights: dict[str, str]) -> StudyConfig:
            return StudyConfig.from_mapping(
                {
                    "name": "small",
                    "images": {"spec": "embedded:mnist-test", "only": "mistakes", "limit": 2},
                    "classifier": {"spec": weights["mnist-clean"]},
                    "generator": {"spec": weights["mnist-vae-10d"]},
                    "steps": [cls.method],
                }
            )

        @staticmethod
        def measure(weights: dict[str, str], out: Path, *, retrain: bool, progress: Any) -> dict[str, Any]:
            progress(f"measuring in {out.name}, {'anew' if retrain else 'as embedded'}")
            return {"measured": weights["mnist-clean"]}

        @staticmethod
        def figures(results: dict[str, Any]) -> list[Plot]:
            assert "mnist-clean" in results["measured"]
            return [replace(results["edge-cases"].figures[0], name="sheet")]

        @staticmethod
        def metrics(results: dict[str, Any]) -> dict[str, Any]:
            pairs = results["edge-cases"]
            return {"edge_cases.pairs": len(pairs.ids), "edge_cases.max_gap": pairs.gap.max().item()}

    monkeypatch.setitem(REPRODUCTIONS, "small", Small)
    return Small


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestWhole:
    """The numbers that are promised, measured."""

    @pytest.mark.parametrize("claim", CLAIMED, ids=[claim.key for claim in CLAIMED])
    def test_claim_is_reached(self, whole: Path, claim: Claim) -> None:
        row = next(row for row in json.loads((whole / "claims.json").read_text()) if row["key"] == claim.key)
        assert row["value"] is not None
        assert row["reached"] is True, (row["value"], claim.target)

    def test_nothing_is_dropped(self, whole: Path) -> None:
        for step in sorted((whole / "steps").iterdir()):
            ids = json.loads((step / "result.json").read_text())["values"]["ids"]
            name = json.loads((step / "step.json").read_text())["name"]
            if name.startswith("lae"):
                assert len(ids) == 900
            elif name.startswith("lse"):
                assert len(ids) == 102


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce("latent-sympathetic-examples", tmp_path_factory.mktemp("whole"))

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from planted_styles import (
    DEAD,
    HARM,
    HARMLESS,
    SCALE,
    SCORE,
    SHAPE,
    STYLES,
    PlantedStyles,
    always,
    blind_to,
    misled_beyond,
)
from safetensors.torch import load_file

from failscape.classifiers import Classifier, load_classifier
from failscape.data import load_images
from failscape.errors import StorageError, UnsupportedGenerator
from failscape.explain import CornerCases, CornerCasesResult, Verification
from failscape.explain.corner_cases import place_of
from failscape.explain.corner_result import BEYOND, TRIPLE, WITHIN
from failscape.explain.method import to_8_bits
from failscape.figures import Gallery
from failscape.generators import load_generator


def find(classifier: Any, generator: Any, **settings: Any) -> CornerCasesResult:
    x, y = torch.full((3, *classifier.image_shape), 0.5), torch.tensor([0, 1, 2])
    method = CornerCases(**({"samples": 300, "joint": 0, "per_class": 1} | settings))
    return method(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))


def largest_difference(folder: Path, generator: Any) -> int:
    """Return by how many grey values at most the PNGs of a data set differ from what its latents draw."""
    latents = load_file(folder / "latents.safetensors")
    with torch.no_grad():
        drawn = to_8_bits(generator.synthesize(latents["styles"], latents["noise"]))
    files = pq.read_table(folder / "corner-cases.parquet")["file"].to_pylist()
    images = load_images(str(folder / "images"), image_shape=generator.image_shape, allow_one_class=True)
    stored = {f"images/{name}": x for name, x in zip(images.ids, images.x, strict=True)}
    seen = torch.stack([stored[file] for file in files])
    return int(((seen - drawn) * 255).abs().max().round())


@pytest.fixture(scope="module")
def planted() -> CornerCasesResult:
    return find(misled_beyond(1.5), PlantedStyles(), per_class=7, joint=4)


@pytest.fixture(scope="module")
def digits() -> CornerCasesResult:
    images = load_images("embedded:mnist-test").select(torch.arange(3))
    classifier, generator = load_classifier("embedded:mnist-corrupted"), load_generator("embedded:mnist-stylegan2")
    method = CornerCases(samples=200, per_class=2, joint=2, most=8, steps=4)
    return method(classifier, generator, images.x, images.y, rng=torch.Generator().manual_seed(0))


class TestPlanted:
    def test_the_harmful_style_is_the_first_case_of_each_class(self, planted: CornerCasesResult) -> None:
        first = [int((planted.single & (planted.y == k)).nonzero()[0]) for k in range(3)]
        assert planted.dimension[first].tolist() == [HARM] * 3
        # From the mean of about 0 to a little before 1.5 units of harm.
        assert (planted.move[first] / SCALE[HARM]).tolist() == pytest.approx([1.3] * 3, abs=0.4)
        assert planted.deviations[first].tolist() == pytest.approx([1.3] * 3, abs=0.4)
        assert planted.place[first].tolist() == [WITHIN] * 3

    def test_styles_without_effect_are_counted(self, planted: CornerCasesResult) -> None:
        # Harmless, dead and score; of the styles of the classes some have an effect too small.
        for k in range(3):
            passed = planted.passed.without_effect & (planted.passed_y == k)
            assert {HARMLESS, DEAD, SCORE} <= set(planted.passed_dimension[passed].tolist())
            tried = planted.dimension[planted.single & (planted.y == k)].tolist()
            tried += planted.passed_dimension[planted.passed_y == k].tolist()
            assert sorted(tried) == list(range(STYLES))
        assert planted.summary["without_effect"] == float(planted.passed.without_effect.sum())
        assert planted.summary["not_reached"] == float((~planted.passed.without_effect).sum())

    def test_joint_cases_move_no_farther_than_the_single_ones(self, planted: CornerCasesResult) -> None:
        joint = ~planted.single
        assert int(joint.sum()) == 3 * 4
        means = joint & (planted.before > 0.9)
        shortest = min(planted.deviations[planted.single].abs().tolist())
        assert float(planted.move[means].min()) <= shortest + 0.1
        # Nothing but harm is lost by: the smallest perturbation moves that alone.
        moved = ((planted.styles - planted.starts) / SCALE)[joint]
        assert float(moved[:, HARM].abs().mean()) > 5 * float(moved[:, HARM + 1].abs().mean())

    def test_probabilities_are_one_half_up_to_a_grey_value(self, planted: CornerCasesResult) -> None:
        # One grey value of the harmful pixel changes the margin by 50 / 255 · 0.4.
        assert float((planted.probability - 0.5).abs().max()) < 0.03

    def test_the_data_set_holds_what_the_result_does(self, planted: CornerCasesResult, tmp_path: Path) -> None:
        folder = planted.export(tmp_path / "cases")
        table = pq.read_table(folder / "corner-cases.parquet")
        assert table.num_rows == len(planted.ids)
        latents = load_file(folder / "latents.safetensors")
        assert set(latents) == {"styles", "starts", "noise"}
        images = load_images(str(folder / "images"), image_shape=(1, 4, 4))
        assert len(images) == len(planted.ids)
        rows = {row["file"]: number for number, row in enumerate(table.to_pylist())}
        for name, x in zip(images.ids, images.x, strict=True):
            assert torch.allclose(x, planted.images[rows.pop(f"images/{name}")])
        assert not rows
        with pytest.raises(StorageError, match="a new or empty folder"):
            planted.export(folder)

    def test_the_latents_of_the_data_set_draw_its_pictures(self, planted: CornerCasesResult, tmp_path: Path) -> None:
        assert int((~planted.single & (planted.y == 0)).sum()) >= 3
        folder = planted.export(tmp_path / "cases")
        assert largest_difference(folder, PlantedStyles()) == 0
        latents = load_file(folder / "latents.safetensors")
        starts = to_8_bits(PlantedStyles().synthesize(latents["starts"], latents["noise"]))
        assert torch.equal(starts, planted.originals)


def test_class_names_that_no_file_can_have_are_exported_all_the_same(
    planted: CornerCasesResult, tmp_path: Path
) -> None:
    folder = replace(planted, class_names=("T-shirt/top", "..", "2")).export(tmp_path / "cases")
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["000-T-shirt-top", "001--", "002-2"]


class TestWords:
    def test_the_shortest_is_said_to_be_that_of_the_nearest_place(self, planted: CornerCasesResult) -> None:
        """A case within the observed values at 6 deviations comes before one outside of them at 3."""
        rows = planted.single.nonzero()[:2, 0]
        place, deviations = planted.place.clone().fill_(BEYOND), planted.deviations.clone()
        place[rows], deviations[rows] = torch.tensor([WITHIN, TRIPLE]), torch.tensor([6.0, 3.0])
        sentence = replace(planted, place=place, deviations=deviations).findings[0].sentence
        assert "1 of them within what the images vary by; the shortest of these is a move by 6.0 deviations" in sentence
        place[rows[0]] = BEYOND
        sentence = replace(planted, place=place, deviations=deviations).findings[0].sentence
        assert "0 of them within what the images vary by; the shortest of those within three times that " in sentence
        assert "range is a move by 3.0 deviations" in sentence

    def test_it_is_said_in_how_many_the_oracle_still_sees_the_true_class(self, planted: CornerCasesResult) -> None:
        assert "oracle" not in planted.findings[0].sentence
        assert planted.verification is not None
        rows = planted.single.nonzero()[:, 0]
        seen = torch.nn.functional.one_hot((planted.y + 1) % 3, 3).float()
        seen[rows[:2]] = torch.nn.functional.one_hot(planted.y[rows[:2]], 3).float()
        graded = replace(planted, verification=replace(planted.verification, oracle_probs=seen))
        said = f" The oracle, asked about each of them, still sees the true class in 2 of {len(rows)}."
        assert said in graded.findings[0].sentence

    def test_a_style_that_does_not_vary_within_its_class_is_not_told_in_deviations(self) -> None:
        # The styles of the classes are the same in every sample of one.
        result = find(misled_beyond(1.5), PlantedStyles(), per_class=7)
        still = result.single & (result.dimension < HARM)
        assert still.any()
        assert result.deviations[still].isnan().all()
        assert result.deviations[~still].isfinite().all()
        some = replace(result, place=torch.where(still, WITHIN, BEYOND))
        assert (
            "the shortest of these is a move along a style that does not vary within the class"
            in some.findings[0].sentence
        )
        (_, gallery, *_) = some.figures
        assert isinstance(gallery, Gallery)
        verdicts = [case.verdict for case in gallery.cases if "does not vary within the class" in case.verdict]
        assert len(verdicts) == int(still.sum())
        assert not [case for case in gallery.cases if "nan" in f"{case.verdict}{case.numbers}"]

    def test_where_the_probability_jumps_it_is_not_said_to_be_one_half(self, planted: CornerCasesResult) -> None:
        probs = torch.tensor([0.3, 0.33, 0.37]).expand(len(planted.ids), 3)
        jumped = replace(planted, verification=Verification(probs=probs))
        (finding,) = jumped.findings
        assert "a probability of 0.3" in finding.sentence
        assert "one half" not in finding.sentence
        assert all("0.50" not in panel.label for panel in finding.panels)
        gallery = next(figure for figure in jumped.figures if isinstance(figure, Gallery))
        assert not [case.heading for case in gallery.cases if "half" in case.heading or "0.50" in case.heading]
        assert gallery.cases[0].heading.startswith("A 0 at 0.30, next a 2 (0.37)")

    def test_cases_at_a_jump_are_counted_and_judged_as_all_are(self, planted: CornerCasesResult) -> None:
        rows = planted.single.nonzero()[:, 0]
        fall, probs = torch.full((len(planted.ids),), torch.nan), torch.full((len(planted.ids), 3), 0.499)
        fall[rows] = 0.002
        fall[rows[0]], probs[rows[0]] = 0.1, 0.45
        summary = replace(planted, fall=fall, verification=Verification(probs=probs)).summary
        assert summary["jumps"] == 1
        assert summary["max_error"] == pytest.approx(0.05, abs=1e-5)
        fall[rows[0]] = 0.002
        summary = replace(planted, fall=fall, verification=Verification(probs=probs)).summary
        assert summary["jumps"] == 0
        assert summary["max_error"] == pytest.approx(0.05, abs=1e-5)

    def test_classes_of_too_few_cases_are_named(self, planted: CornerCasesResult) -> None:
        counts = [int((planted.single & (planted.y == k)).sum()) for k in range(3)]
        sentence = replace(planted, asked=max(counts) + 1, asked_joint=4).findings[0].sentence
        assert sentence.endswith(
            f" Of {max(counts) + 1} asked for of each class by moving one direction each, these were found: "
            + ", ".join(f"{count} for {k}" for k, count in enumerate(counts))
            + "."
        )
        full = replace(planted, asked=min(counts), asked_joint=4)
        assert "asked for" not in full.findings[0].sentence
        assert replace(planted, asked_joint=5).summary["joint_missing"] == 3


class TestBadInput:
    def test_a_class_that_is_never_said_is_named_and_the_others_go_on(self) -> None:
        result = find(blind_to(1, harm=1.5), PlantedStyles())
        assert result.without == ("1",)
        assert result.classes.tolist() == [0, 2]
        assert set(result.y.tolist()) == {0, 2}

    def test_a_constant_classifier_has_no_corner_case(self, tmp_path: Path) -> None:
        result = find(always(1), PlantedStyles(), per_class=2, joint=2)
        assert len(result.images) == 0
        assert result.without == ("0", "2")
        assert sorted(result.passed_dimension.tolist()) == list(range(STYLES))
        assert bool(result.passed.without_effect.all())
        assert result.summary["found"] == 0
        assert result.summary["missing"] == 3 * 2
        assert result.findings[0].sentence == (
            "None of the 7 moves tried, one direction each, brings any class to one half. Left out: 0, 2, whose mean "
            "picture it gives at most one half. Of 2 asked for of each class by moving all directions at once, these "
            "were found: 0 for 1."
        )
        (figure,) = result.figures
        assert all(f"s{d}" in figure.caption for d in range(STYLES))
        table = pq.read_table(result.export(tmp_path / "cases") / "passed-over.parquet")
        assert sorted(table["dimension"].to_pylist()) == list(range(STYLES))
        assert set(table["outcome"].to_pylist()) == {"without effect"}
        assert set(table["true_class"].to_pylist()) == {"1"}

    def test_without_a_class_to_start_from_nothing_is_said_to_have_been_tried(self) -> None:
        """A classifier that gives every class a third."""
        undecided = Classifier(
            lambda x: 0 * x.mean(dim=(1, 2, 3))[:, None] + torch.zeros(3), image_shape=SHAPE, name="undecided"
        )
        (finding,) = find(undecided, PlantedStyles(), joint=1).findings
        assert finding.sentence == "No move could start: it gives the mean picture of no class more than one half."

    def test_joint_cases_alone_are_told_of(self) -> None:
        result = find(misled_beyond(1.5), PlantedStyles(), per_class=0, joint=2)
        assert result.findings[0].sentence.startswith("6 corner cases were found by moving all directions at once, ")
        assert result.findings[0].panels
        assert result.summary["missing"] == 0
        assert result.summary["joint_missing"] == 0

    def test_without_gradients_only_single_cases_are_found(self) -> None:
        known = misled_beyond(1.5)
        plain = type(known)(lambda x: known(x.detach()), image_shape=known.image_shape, name="plain")
        result = find(plain, PlantedStyles(), joint=1)
        assert result.dimension.tolist() == [HARM] * 3
        assert "that needs gradients, which it has not" in result.findings[0].sentence

    def test_a_generator_without_condition_is_refused(self) -> None:
        with pytest.raises(UnsupportedGenerator, match="has no condition"):
            find(misled_beyond(1.5), PlantedStyles(condition=False))

    @pytest.mark.parametrize(
        "settings", [{"per_class": -1}, {"per_class": 0, "joint": 0}, {"samples": 1}, {"steps": 0}, {"most": -1}]
    )
    def test_settings_out_of_range_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Expected `per_class` and `joint`"):
            CornerCases(**settings)

    @pytest.mark.usefixtures("as_installed")
    def test_a_score_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Expected `score` to be one of logit-margin"):
            CornerCases(score="luck")  # type: ignore[arg-type]


@pytest.mark.parametrize(("half_ranges", "place"), [(0.0, WITHIN), (1.0, WITHIN), (2.9, TRIPLE), (3.1, BEYOND)])
def test_places(half_ranges: float, place: int) -> None:
    assert place_of(half_ranges) == place


class TestDigits:
    def test_probabilities_are_one_half_on_8_bit_pictures(self, digits: CornerCasesResult) -> None:
        assert int(digits.single.sum()) >= 15
        error = (digits.probability - 0.5).abs()
        exact = digits.single & ~digits.jumps
        assert int(exact.sum()) >= 10
        assert float(error[exact].max()) <= 0.005
        # Where a single grey value of a pixel takes it past one half, another place close behind has it.
        assert int((~digits.single).sum()) >= 12
        assert float(error[~digits.single].max()) <= 0.005
        assert float(digits.before[digits.single].min()) > 0.5

    def test_the_latents_of_the_data_set_draw_its_pictures(self, digits: CornerCasesResult, tmp_path: Path) -> None:
        assert int((~digits.single).sum()) >= 3
        folder = digits.export(tmp_path / "cases")
        # A value between two greys may fall to either side where other images are in the batch.
        assert largest_difference(folder, load_generator("embedded:mnist-stylegan2")) <= 1

    def test_figures_show_every_class(self, digits: CornerCasesResult) -> None:
        grid, gallery = digits.figures[:2]
        titles = [ax.get_title() for ax in grid.draw().axes]  # type: ignore[attr-defined]
        assert sum(title.startswith(tuple(f"{k}: " for k in range(10))) for title in titles) >= 8
        assert len(gallery.cases) == len(digits.ids)  # type: ignore[attr-defined]

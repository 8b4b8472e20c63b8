import math
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import GREY, PLANE, Linear, classes_by
from torch import Tensor

from failscape import load_generator
from failscape.classifiers import Classifier
from failscape.errors import LabelError, UnsupportedGenerator
from failscape.explain import CentroidPath, CentroidPathResult, load_result
from failscape.figures import Gallery, Plot


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def band(low: float, high: float, slope: float = 400.0) -> Classifier:
    """Classes by the mean grey: 0 below `low`, 2 above `high`, 1 between."""
    return classes_by(
        lambda x: slope * (low - x.mean(dim=(1, 2))),
        lambda x: 0 * x.mean(dim=(1, 2)),
        lambda x: slope * (x.mean(dim=(1, 2)) - high),
    )


def latents(*rows: tuple[float, float]) -> tuple[Linear, Tensor]:
    world = Linear(PLANE)
    return world, world(torch.tensor(rows, dtype=torch.float32))


class TestPlanted:
    """Brightness rises by 0.1 a unit of the first latent, so every crossing can be computed."""

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls) -> CentroidPathResult:
        # Centroids at (-2, 0) and (2, 0); the verdict changes at the means GREY ∓ 0.05, that is at ∓ 0.5.
        world, x = latents((-2, 1), (-2, -1), (2, 1), (2, -1))
        classifier = band(GREY - 0.05, GREY + 0.05)
        method = CentroidPath(pairs=(("0", "2"),), points=9, samples=1)
        return method(classifier, world, x, torch.tensor([0, 0, 2, 2]), rng=seeded())

    def test_its_ends_are_the_centres_of_mass(self, found: CentroidPathResult) -> None:
        world = Linear(PLANE)
        ends = world(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
        assert torch.allclose(found.images[[0, 8]], ends, atol=0.51 / 255)
        assert found.length[0].item() == pytest.approx(4.0)
        # From the first image of either class, (-2, 1) and (2, 1), to the centre of the other the way is longer.
        assert found.sample.tolist() == [-1, 0, 2]
        assert found.first.tolist() == [0, 0, 2]
        assert found.second.tolist() == [2, 2, 0]
        assert found.length[1:].tolist() == pytest.approx([math.sqrt(17)] * 2, rel=1e-6)
        # What is met on them is made from those images, and what lies between the centres from none.
        expected = {("0 → 2", "generated"), ("0", "test"), ("2", "test")}
        assert set(zip(found.made_from, found.origins, strict=True)) == expected

    def test_a_pair_given_in_both_directions_begins_at_no_image_twice(self) -> None:
        world, x = latents((-2, 0), (2, 0))
        method = CentroidPath(pairs=(("0", "2"), ("2", "0")), points=3, samples=1)
        result = method(band(GREY, GREY), world, x, torch.tensor([0, 2]), rng=seeded())
        assert result.sample.tolist() == [-1, 0, -1, 1]

    def test_changes_are_where_analysis_says(self, found: CentroidPathResult) -> None:
        own = found.change_path == 0
        assert found.change_before[own].tolist() == [0, 1]
        assert found.change_after[own].tolist() == [1, 2]
        # An 8-bit image stands for the greys half a level to each side: that is 0.02 units of the latent.
        assert torch.allclose(found.place[own], torch.tensor([1.5, 2.5], dtype=torch.float64) / 4, atol=0.03 / 4)
        assert (found.change_high - found.change_low).max() <= 1e-5
        assert found.held.all()

    def test_a_third_class_takes_the_part_that_it_takes(self, found: CentroidPathResult) -> None:
        assert found.met(0) == [0, 1, 2]
        assert found.third_way[0].item() == pytest.approx(0.25, abs=0.02)
        assert found.summary["third"] == 1.0
        assert found.summary["direct"] == 0.0

    def test_with_no_band_between_the_way_is_direct(self) -> None:
        world, x = latents((-2, 0), (2, 0))
        result = CentroidPath(points=9)(band(GREY, GREY), world, x, torch.tensor([0, 2]), rng=seeded())
        assert result.met(0) == [0, 2]
        assert result.summary["direct"] == 1.0
        assert result.summary["third_way"] == 0.0

    def test_a_centre_that_is_another_class_to_the_classifier_is_told_and_not_taken_for_one_between(self) -> None:
        world, x = latents((-2, 0), (2, 0), (0, 0))
        # What is labelled 1 lies where the classifier says 2; a way from there to 0 leads past the band of 1.
        y = torch.tensor([0, 1, 2])
        method = CentroidPath(pairs=(("0", "1"), ("1", "0")), points=9)
        result = method(band(GREY - 0.05, GREY + 0.05), world, x, y, rng=seeded())
        assert result.arrives.tolist() == [False, False]
        assert result.summary["arrives"] == 0
        assert "third" not in result.summary
        assert result.thirds(result.met(0), 0) == [2]
        (finding,) = result.findings
        assert finding.sentence.startswith("The image at the centre of 1 the classifier takes for 2 (")
        assert finding.sentence.endswith("so it is with 1 of 2 classes.")
        (panel,) = finding.panels
        assert torch.equal(panel.pixels, result.images[8])

    def test_ways_that_lead_from_class_to_class_come_first(self) -> None:
        world, x = latents((-2, 0), (2, 0), (2, 1))
        y = torch.tensor([0, 1, 2])
        method = CentroidPath(pairs=(("0", "1"), ("0", "2")), points=9, shown=1)
        result = method(band(GREY - 0.05, GREY + 0.05), world, x, y, rng=seeded())
        assert result.arrives.tolist() == [False, True]
        assert result.third_way[0] > result.third_way[1]
        between, centre = result.findings
        assert between.sentence.startswith("Between 0 and 2 lies 1: ")
        assert between.sentence.endswith(
            "a third class is met on 1 of the 1 ways at whose ends it says the two classes, of 2 that were gone."
        )
        assert result.summary["third"] == result.summary["third_n"] == 1
        assert centre.sentence.startswith("The image at the centre of 1 the classifier takes for 2 (")
        assert [figure.title for figure in result.figures][1] == "0 → 2"

    def test_the_great_circle_keeps_away_from_the_middle(self) -> None:
        # A quarter of a circle of radius 2 about the origin.
        world, x = latents((-2, 0), (0, 2))
        result = CentroidPath(way="both", points=33)(band(0.0, 1.0), world, x, torch.tensor([0, 2]), rng=seeded())
        straight, circle = world.encode(result.images[:66]).unflatten(0, (2, 33)).norm(dim=2)
        assert circle.min() == pytest.approx(2.0, abs=0.05)
        assert straight.min() == pytest.approx(math.sqrt(2), abs=0.05)
        # The arc's length, by its chords: 32 of an angle of π / 64.
        assert result.length[1].item() == pytest.approx(32 * 4 * math.sin(math.pi / 128), rel=1e-6)

    def test_several_centroids_are_those_of_the_groups(self) -> None:
        world, x = latents((-2, 1), (-2, 1), (-2, -1), (2, 0))
        method = CentroidPath(pairs=(("0", "2"),), centroids=2, points=3)
        result = method(band(GREY, GREY), world, x, torch.tensor([0, 0, 0, 2]), rng=seeded())
        begins = world.encode(result.images[: 3 * len(result.ids) : 3])
        assert sorted({tuple(row) for row in begins.round().long().tolist()}) == [(-2, -1), (-2, 1)]
        assert result.ids == ("0 (1) → 2 (1)", "0 (2) → 2 (1)")


class TestDigits:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, world: Any) -> CentroidPathResult:
        few = world.images.select(torch.arange(600))
        method = CentroidPath(points=17, way="both")
        return method(world.classifier, world.ten, few.x, few.y, rng=seeded(), oracle=world.oracle, ids=few.ids)

    def test_every_pair_is_gone_both_ways(self, found: CentroidPathResult) -> None:
        assert len(found.ids) == 90
        assert found.held.float().mean() > 0.99
        # Most means of digits are digits: the classifier says the class itself at most ends.
        assert (found.probs[:, 0].argmax(dim=1) == found.first).float().mean() >= 0.9

    def test_summary_and_table_fit_each_other(self, found: CentroidPathResult) -> None:
        table, summary = found.table, found.summary
        assert table.num_rows == summary["ways"] == 90
        assert sum(table["changes"].to_pylist()) == summary["changes"]
        assert summary["third_way"] == pytest.approx(float(found.third_way[found.arrives].mean()), abs=1e-6)
        for name in (*summary, *table.column_names):
            plain = name.removesuffix("_low").removesuffix("_high").removesuffix("_n")
            assert found.definitions.get(name) or found.definitions.get(plain), name

    def test_figures_are_drawn(self, found: CentroidPathResult) -> None:
        *plots, gallery = found.figures
        for plot in plots:
            assert isinstance(plot, Plot)
            plot.draw().canvas.draw()
        assert isinstance(gallery, Gallery)
        assert len(gallery.cases) == 90
        assert found.findings

    def test_what_is_loaded_says_the_same(self, found: CentroidPathResult, tmp_path: Path) -> None:
        found.save(tmp_path)
        loaded = load_result(tmp_path)
        assert isinstance(loaded, CentroidPathResult)
        assert loaded.summary == found.summary
        assert loaded.table.equals(found.table)


class TestBadInput:
    def test_images_of_one_class(self) -> None:
        world, x = latents((1, 0), (2, 0))
        with pytest.raises(LabelError, match="at least two classes"):
            CentroidPath()(band(0.2, 0.4), world, x, torch.tensor([1, 1]), rng=seeded())

    @pytest.mark.parametrize(
        ("pair", "says"), [(("0", "9"), "among 0, 1, 2, but got 9"), (("0", "1"), "Expected images of '1'")]
    )
    def test_a_class_that_is_not_there(self, pair: tuple[str, str], says: str) -> None:
        world, x = latents((-2, 0), (2, 0))
        with pytest.raises(LabelError, match=says):
            CentroidPath(pairs=(pair,))(band(0.2, 0.4), world, x, torch.tensor([0, 2]), rng=seeded())

    def test_no_great_circle_in_w(self, world: Any) -> None:
        few = world.images.select(torch.arange(20))
        styled = load_generator("embedded:mnist-stylegan2")
        with pytest.raises(UnsupportedGenerator, match="Go the straight way"):
            CentroidPath(way="great-circle")(world.classifier, styled, few.x, few.y, rng=seeded())

    @pytest.mark.parametrize(
        "setting",
        [
            {"shown": -1},
            {"points": 1},
            {"centroids": 0},
            {"tolerance": 0.0},
            {"pairs": (("1", "1"),)},
            {"pairs": ("4", "7")},
            {"pairs": (("4", "7", "9"),)},
            {"pairs": ("47",)},
            {"pairs": "47"},
            {"pairs": ()},
            {"pairs": ((4, 7),)},
            {"pairs": (("4", None),)},
        ],
    )
    def test_settings_out_of_range(self, as_installed: None, setting: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Expected"):
            CentroidPath(**setting)

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import GREY, QUADRANTS, SHAPE, Linear, classes_by, grey_images, never

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedClassifier
from failscape.explain import HeatmapResult, PerturbationHeatmap, Verification, load_result
from failscape.explain.perturbation_heatmap import above_li_threshold
from failscape.figures import Plot


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bright_in(quadrant: int) -> Classifier:
    """Wrap a classifier that looks at one quadrant alone; class 2 is never given."""
    mask = QUADRANTS[quadrant]
    return classes_by(lambda x: 0 * x.mean(dim=(1, 2)), lambda x: 40 * ((x * mask).sum(dim=(1, 2)) / 4 - 0.6), never)


def handmade() -> HeatmapResult:
    """Two images put right and two not; the change of the first two has a known mean."""
    change = torch.zeros(4, 2, 2, 2)
    change[0, :, 0, 0], change[1, :, 0, 0] = 0.6, 0.2
    change[0, :, 0, 1], change[1, :, 0, 1] = 0.4, -0.4
    change[0, 0, 1, 0] = 0.2  # one channel of two, one image of two
    change[2:] = 0.9
    probs = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.3, 0.7]])
    return HeatmapResult(
        images=torch.zeros(4, 2, 2, 2),
        change=change,
        chance=torch.full_like(change, 0.1),
        target=torch.ones(4, dtype=torch.long),
        confidence=0.8,
        class_names=("a", "b"),
        ids=("p", "q", "r", "s"),
        verification=Verification(probs=probs),
    )


class TestHandmade:
    def test_only_what_was_put_right_enters_the_map(self) -> None:
        result = handmade()
        assert result.success.tolist() == [True, True, False, False]
        assert torch.allclose(result.signed, torch.tensor([[0.4, 0.0], [0.05, 0.0]]))
        assert torch.allclose(result.heatmap, torch.tensor([[0.4, 0.4], [0.05, 0.0]]))
        # Changes to and fro cancel; of two channels one has changed by 0.1 on average.
        assert torch.allclose(result.consistent, torch.tensor([[0.4, 0.0], [0.1 / 2**0.5, 0.0]]))

    def test_the_finding_says_where_and_how_much(self) -> None:
        (finding,) = handmade().findings
        assert finding.sentence == (
            "Half of all that is changed to put 2 images right falls on 50\N{NO-BREAK SPACE}% of the picture's area; "
            "the pixel that stands out most changes 4.0 times as much as it would by chance."
        )
        change, region = (panel.pixels for panel in finding.panels)
        assert torch.allclose(change, torch.tensor([[[0.4, 0.0], [0.05, 0.0]]]))
        assert region.tolist() == [[[1, 1], [0, 0]]]

    def test_the_region_is_the_smallest_that_holds_its_share(self) -> None:
        result = handmade()
        assert result.region(0.4).sum() == 1
        assert result.region(0.5).tolist() == [[True, True], [False, False]]
        assert result.region(0.94).tolist() == [[True, True], [False, False]]
        assert result.region(0.95).tolist() == [[True, True], [True, False]]
        for share in (0.0, 1.0):
            with pytest.raises(ValueError, match="`share`"):
                result.region(share)

    def test_summary_and_table(self) -> None:
        result = handmade()
        summary = result.summary
        expected = {"images": 4, "success": 0.5, "change": 0.85 / 4, "region": 0.5, "beyond_chance": 4}
        assert {key: summary[key] for key in expected} == pytest.approx(expected)
        rows = result.table.to_pylist()
        assert [row["id"] for row in rows] == ["p", "q", "r", "s"]
        assert [row["success"] for row in rows] == [True, True, False, False]
        assert rows[0]["mean_change"] == pytest.approx((0.6 + 0.4 + 0.1) / 4)
        for name in (*summary, *rows[0]):
            plain = name.removesuffix("_low").removesuffix("_high").removesuffix("_n")
            assert result.definitions.get(name) or result.definitions.get(plain), name


class TestPlanted:
    @pytest.mark.parametrize("quadrant", range(4))
    def test_the_region_is_where_the_classifier_looks(self, quadrant: int) -> None:
        x = grey_images(6) + 0.1 * (torch.rand(6, *SHAPE, generator=seeded()) - 0.5)
        result = PerturbationHeatmap()(bright_in(quadrant), Linear(QUADRANTS), x, torch.ones(6).long(), rng=seeded())
        mask = QUADRANTS[quadrant].bool()
        assert result.success.all()
        assert not (result.region() & ~mask).any()
        # The whole quadrant, and nothing else.
        assert torch.equal(result.standing_out, mask)
        assert result.summary["standing_out"] == 0.25
        assert result.heatmap[mask].sum() > 0.9 * result.heatmap.sum()
        # It has to become brighter there; random moves go anywhere.
        assert result.signed[mask].min() > 0.6 - GREY
        assert result.summary["beyond_chance"] > 1.2

    def test_what_need_not_change_is_left_alone(self) -> None:
        # Two quadrants count, one of them half as much: the shortest latent would move both.
        mask = QUADRANTS[0] + 0.5 * QUADRANTS[1]
        classifier = classes_by(
            lambda x: 0 * x.mean(dim=(1, 2)), lambda x: 40 * ((x * mask).sum(dim=(1, 2)) / 4 - 1.0), never
        )
        x, y = grey_images(4), torch.ones(4).long()
        result = PerturbationHeatmap()(classifier, Linear(QUADRANTS), x, y, rng=seeded())
        assert result.success.all()
        assert torch.equal(result.standing_out, QUADRANTS[0].bool())

    def test_the_paper_procedure_is_averaged_as_it_comes(self) -> None:
        x, y = grey_images(4), torch.ones(4).long()
        soft = classes_by(
            lambda x: 0 * x.mean(dim=(1, 2)), lambda x: 4 * ((x * QUADRANTS[1]).sum(dim=(1, 2)) / 4 - 0.599), never
        )
        result = PerturbationHeatmap(mode="fixed-step")(soft, Linear(QUADRANTS), x, y, rng=seeded())
        assert result.success.all()
        assert torch.equal(result.standing_out, QUADRANTS[1].bool())

    def test_changes_are_those_of_the_images(self) -> None:
        x, y = grey_images(3), torch.tensor([1, 2, 1])
        result = PerturbationHeatmap(mode="boundary")(bright_in(1), Linear(QUADRANTS), x, y, rng=seeded())
        assert result.success.tolist() == [True, False, True]
        assert (result.images - x - result.change).abs().max() <= 0.51 / 255
        assert torch.allclose(result.signed, result.change[[0, 2]].mean(dim=(0, 1)))

    def test_chance_changes_as_much_elsewhere(self) -> None:
        result = PerturbationHeatmap()(
            bright_in(2), Linear(QUADRANTS), grey_images(200), torch.ones(200).long(), rng=seeded()
        )
        chance, change = (each.abs().mean(dim=(1, 2, 3)) for each in (result.chance, result.change))
        assert torch.allclose(chance, change, rtol=1e-3)
        by_quadrant = (result.chance[:, 0].abs().mean(dim=0) * QUADRANTS).sum(dim=(1, 2))
        assert by_quadrant.max() < 1.3 * by_quadrant.min()

    def test_where_nothing_succeeded_no_map_is_drawn(self) -> None:
        result = PerturbationHeatmap()(
            bright_in(0), Linear(QUADRANTS), grey_images(2), torch.full((2,), 2), rng=seeded()
        )
        assert result.heatmap.abs().max() == 0
        assert list(result.figures) == []
        assert result.summary["success"] == 0
        assert "region" not in result.summary
        assert result.table.num_rows == 2

    def test_where_nothing_has_to_change_there_is_no_region(self) -> None:
        x, classifier = grey_images(2), bright_in(0)
        result = PerturbationHeatmap(mode="boundary")(
            classifier, Linear(QUADRANTS), x, classifier.predict(x), rng=seeded()
        )
        assert result.success.all()
        assert result.heatmap.abs().max() == 0
        assert not result.region().any()
        assert not result.standing_out.any()
        assert "region" not in result.summary

    def test_a_classifier_without_gradients_is_refused(self) -> None:
        blind = Classifier(lambda x: x.flatten(1)[:, :3].detach().numpy(), image_shape=SHAPE)
        with pytest.raises(UnsupportedClassifier, match="gradients"):
            PerturbationHeatmap()(blind, Linear(QUADRANTS), grey_images(), torch.zeros(3).long(), rng=seeded())


class TestLi:
    def test_it_is_the_split_of_least_cross_entropy(self) -> None:
        values = torch.rand(5, 7, generator=seeded()) ** 3
        above = above_li_threshold(values)

        def cross_entropy(threshold: float) -> float:
            groups = values[values > threshold], values[values <= threshold]
            return sum(float((group * (group / group.mean()).log()).sum()) for group in groups)

        best = min(sorted(values.flatten().tolist())[:-1], key=cross_entropy)
        assert torch.equal(above, values > best)

    def test_what_is_faint_beside_nothing_stands_out_too(self) -> None:
        values = torch.full((8, 8), 0.002)
        values[0], values[1] = 1.0, 0.2
        assert above_li_threshold(values).sum(dim=1).tolist() == [8, 8, 0, 0, 0, 0, 0, 0]

    def test_scale_does_not_matter(self) -> None:
        values = torch.rand(6, 6, generator=seeded(1))
        assert torch.equal(above_li_threshold(values), above_li_threshold(0.25 * values))

    def test_where_all_is_equal_nothing_stands_out(self) -> None:
        for flat in (torch.zeros(3, 3), torch.full((3, 3), 0.1), torch.ones(1, 1)):
            assert not above_li_threshold(flat).any()


class TestDigits:
    @pytest.fixture
    def digits(self, world: Any) -> HeatmapResult:
        x, y = world.mistakes.x[:16], world.mistakes.y[:16]
        return PerturbationHeatmap(batch_size=10)(world.classifier, world.ten, x, y, rng=seeded())

    def test_figures_and_saving(self, digits: HeatmapResult, tmp_path: Path) -> None:
        assert digits.success.all()
        assert [figure.name for figure in digits.figures] == ["heatmap", "classes"]
        for figure in digits.figures:
            assert isinstance(figure, Plot)
            figure.draw().canvas.draw()
        digits.save(tmp_path)
        loaded = load_result(tmp_path)
        assert isinstance(loaded, HeatmapResult)
        assert loaded.summary == digits.summary
        assert torch.equal(loaded.signed, digits.signed)


@pytest.mark.parametrize("settings", [{"mode": "sideways"}, {"confidence": 1.5}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any], as_installed: None) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PerturbationHeatmap(**settings)

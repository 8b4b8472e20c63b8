from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import GREY, PLANE, SHAPE, Linear, brighter_than, grey_images

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedClassifier
from failscape.explain import EdgeCases, EdgeCasesResult, Verification, load_result
from failscape.figures import Gallery, Plot


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def pairs(world: Any) -> EdgeCasesResult:
    few = world.mistakes.select(torch.arange(25))
    return EdgeCases()(world.classifier, world.ten, few.x, few.y, rng=seeded(), oracle=world.oracle, ids=few.ids)


class TestDigits:
    def test_every_pair_lies_on_both_sides(self, world: Any, pairs: EdgeCasesResult) -> None:
        assert len(pairs.ids) > 60
        # The 8-bit images once more, in another batch.
        verdicts = torch.cat([world.classifier.predict(image[None]) for image in pairs.images]).view(-1, 2)
        assert torch.equal(verdicts[:, 1], pairs.target)
        assert (verdicts[:, 0] != pairs.target).all()
        assert pairs.success.all()
        assert pairs.summary["success"] == 1.0

    def test_the_two_sides_are_next_to_each_other(self, pairs: EdgeCasesResult) -> None:
        apart = (pairs.epsilon_inside - pairs.epsilon_outside).norm(dim=1)
        assert (apart <= 1e-3 * pairs.epsilon_inside.norm(dim=1)).all()
        assert torch.allclose(pairs.gap, apart / pairs.epsilon_inside.norm(dim=1))
        outer, inner = (pairs.images * 255).round().unflatten(0, (-1, 2)).unbind(1)
        levels = (inner - outer).abs().flatten(1)
        assert levels.amax(dim=1).max() <= 2
        assert levels.amax(dim=1).min() >= 1, "equal images cannot be on two sides"
        assert (levels > 0).sum(dim=1).float().mean() < 0.02 * 784

    def test_pairs_name_their_image(self, world: Any, pairs: EdgeCasesResult) -> None:
        few = world.mistakes.select(torch.arange(25))
        wanted = dict(zip(few.ids, few.y.tolist(), strict=True))
        assert len(set(pairs.ids)) == len(pairs.ids)
        assert [wanted[name.split("/")[0]] for name in pairs.ids] == pairs.target.tolist()
        assert {int(name.split("/")[1]) for name in pairs.ids} == {0, 1, 2, 3}
        assert pairs.searched.tolist() == [25]

    def test_summary_and_table(self, world: Any, pairs: EdgeCasesResult) -> None:
        summary, table = pairs.summary, pairs.table
        assert summary["images"] == 25
        assert summary["pairs"] == summary["success_n"] == table.num_rows == len(pairs.ids)
        assert summary["gap"] == pairs.gap.max().item()
        assert summary["norm"] == pytest.approx(pairs.epsilon_inside.norm(dim=1).mean().item())
        says = world.oracle.predict(pairs.images).view(-1, 2) == pairs.target[:, None]
        assert summary["oracle_inside"] == pytest.approx(says.all(dim=1).float().mean().item())
        assert summary["oracle_outside"] == pytest.approx((~says).all(dim=1).float().mean().item())
        assert table["inside"].to_pylist() == table["wanted"].to_pylist()
        for name in (*summary, *table.column_names):
            plain = name.removesuffix("_low").removesuffix("_high").removesuffix("_n")
            assert pairs.definitions.get(name) or pairs.definitions.get(plain), name

    def test_figures(self, pairs: EdgeCasesResult) -> None:
        sheet, gallery = pairs.figures
        assert isinstance(sheet, Plot)
        sheet.draw().canvas.draw()
        assert isinstance(gallery, Gallery)
        assert [case.id for case in gallery.cases] == list(pairs.ids)
        assert all(case.good for case in gallery.cases)
        change = {panel.label: panel for panel in gallery.cases[3].panels}["change"]
        assert torch.equal(change.pixels, pairs.images[7] - pairs.images[6])

    def test_what_is_loaded_says_the_same(self, pairs: EdgeCasesResult, tmp_path: Path) -> None:
        pairs.save(tmp_path)
        loaded = load_result(tmp_path)
        assert isinstance(loaded, EdgeCasesResult)
        assert loaded.summary == pairs.summary
        assert loaded.table.equals(pairs.table)

    def test_a_pair_that_verification_refutes_is_a_failure_and_stays(self, pairs: EdgeCasesResult) -> None:
        assert pairs.verification is not None
        probs = pairs.verification.probs.clone()
        probs[0], probs[3] = probs[1], probs[2]
        refuted = replace(pairs, verification=Verification(probs=probs))
        assert refuted.success.tolist() == [False, False] + [True] * (len(pairs.ids) - 2)
        assert refuted.table.num_rows == len(pairs.ids)
        assert refuted.figures[-1].cases[0].verdict.startswith("Failed")
        apart = replace(pairs, epsilon_outside=0.99 * pairs.epsilon_inside)
        assert not apart.success.any()


class TestPlanted:
    def test_the_first_crossing_is_the_nearest_point_of_the_boundary(self) -> None:
        # 0.1 a unit of the first latent; a boundary at 0.7 would itself be the mean of 8-bit images, a tie.
        x = torch.cat([grey_images(1), grey_images(1) * 1.2])
        result = EdgeCases(crossings=3)(brighter_than(0.7011), Linear(PLANE), x, torch.ones(2).long(), rng=seeded())
        assert result.success.all()
        assert result.ids == ("0/0", "0/1", "0/2", "1/0", "1/1", "1/2")
        norm = result.epsilon_inside.norm(dim=1).view(2, 3)
        # A grey level is 0.04 units.
        assert norm[:, 0].tolist() == pytest.approx([10 * (0.7011 - GREY), 10 * (0.7011 - 1.2 * GREY)], abs=0.06)
        # The others turn away from it by half its length on either side, and the boundary is straight.
        assert norm[0, 1:].tolist() == pytest.approx([1.25**0.5 * norm[0, 0].item()] * 2, rel=0.03)
        assert result.epsilon_inside[1, 1].abs() > 0.5

    def test_what_is_inside_already_or_never_has_no_pairs(self) -> None:
        result = EdgeCases()(brighter_than(0.3), Linear(PLANE), grey_images(2), torch.tensor([1, 2]), rng=seeded())
        assert result.ids == ()
        assert result.images.shape == (0, *SHAPE)
        assert result.summary == {"images": 2.0, "pairs": 0.0, "not_crossed": 8.0}
        assert result.table.num_rows == 0
        assert list(result.figures) == []

    def test_batches_are_joined(self) -> None:
        x = torch.cat([grey_images(2), grey_images(3) * 1.2])
        arguments = (brighter_than(0.7011), Linear(PLANE), x, torch.ones(5).long())
        whole = EdgeCases(crossings=1)(*arguments, rng=seeded())
        parts = EdgeCases(crossings=1, batch_size=2)(*arguments, rng=seeded())
        assert parts.ids == whole.ids == ("0/0", "1/0", "2/0", "3/0", "4/0")
        assert parts.searched.tolist() == [2, 2, 1]
        assert parts.summary["images"] == 5
        assert torch.allclose(parts.epsilon_inside.norm(dim=1), whole.epsilon_inside.norm(dim=1), atol=0.05)

    @pytest.mark.parametrize("tolerance", [0.02, 1e-4])
    def test_the_tolerance_is_kept(self, tolerance: float) -> None:
        # A slope that tells every grey level of every pixel apart.
        classifier = brighter_than(0.7011, slope=1e4)
        method = EdgeCases(tolerance=tolerance)
        result = method(classifier, Linear(PLANE.flip(0)), grey_images(2), torch.ones(2).long(), rng=seeded())
        assert len(result.ids) == 8
        assert (result.gap <= tolerance).all()
        assert result.success.all()

    def test_same_seed_same_pairs(self) -> None:
        arguments = (brighter_than(0.7011), Linear(PLANE), grey_images(2), torch.ones(2).long())
        one, two = (EdgeCases()(*arguments, rng=seeded()) for _ in range(2))
        assert torch.equal(one.epsilon_inside, two.epsilon_inside)
        assert torch.equal(one.images, two.images)

    def test_a_classifier_without_gradients_is_refused(self) -> None:
        blind = Classifier(lambda x: x.flatten(1)[:, :3].detach().numpy(), image_shape=SHAPE)
        with pytest.raises(UnsupportedClassifier, match="gradients for edge cases"):
            EdgeCases()(blind, Linear(PLANE), grey_images(), torch.zeros(3).long(), rng=seeded())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crossings": 0}, "`crossings`"),
        ({"candidates": 0}, "`candidates`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"tolerance": 0.0}, "`tolerance`"),
        ({"tolerance": 1.0}, "`tolerance`"),
        ({"spread": -1.0}, "`spread`"),
        ({"reach": 1.0}, "`reach`"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, as_installed: None) -> None:
    with pytest.raises(ValueError, match=message):
        EdgeCases(**settings)

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure as Drawing

from failscape.explain import SympatheticResult, Verification, load_result
from failscape.explain.sympathetic_result import LOCAL_MINIMUM, NOT_FOUND, ROUNDING, UNKNOWN, UNREACHABLE
from failscape.figures import Gallery, Plot

# Of three classes, a, b and c, every image is to become a b.
AFTER = torch.tensor(
    [
        [0.1, 0.8, 0.1],  # right, and sure
        [0.2, 0.5, 0.3],  # right
        [0.6, 0.3, 0.1],  # found, and lost in rounding
        [0.6, 0.3, 0.1],  # not found, though it can be reached
        [0.6, 0.3, 0.1],  # not found, and cannot be
        [0.6, 0.3, 0.1],  # not found, and nobody knows
    ]
)
ORACLE = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] + [[0.0, 1.0, 0.0]] * 4)
REASONS = ("", "", ROUNDING, LOCAL_MINIMUM, UNREACHABLE, NOT_FOUND)


def handmade(confidence: float = 0.0, oracle: bool = True, **changes: Any) -> SympatheticResult:
    originals = torch.full((6, 1, 4, 4), 51 / 255)
    images = originals.clone()
    images[:, 0, 0, 0] += 102 / 255  # 0.4
    images[:, 0, 3, 3] += 76.5 / 255  # 0.3, so that the distance is 0.5
    epsilon = torch.tensor([3.0, 1.0, 2.0, 5.0, 5.0, 5.0])[:, None] * torch.tensor([0.6, 0.8])
    before = torch.tensor([0.7, 0.2, 0.1]).expand(6, 3)
    result = SympatheticResult(
        images=images,
        originals=originals,
        reconstructions=originals,
        z=torch.ones(6, 2),
        epsilon=epsilon,
        target=torch.ones(6, dtype=torch.long),
        found=torch.tensor([True, True, True, False, False, False]),
        reachable=torch.tensor([1, 1, 1, 1, 0, UNKNOWN]),
        steps=torch.tensor([10, 20, 30, 40, 50, 60]),
        path=torch.stack([torch.zeros(6, 2), epsilon / 2, epsilon], dim=1),
        line=torch.stack([before, AFTER], dim=1),
        prior_length=4.0,
        mode="confident" if confidence else "boundary",
        confidence=confidence,
        class_names=("a", "b", "c"),
        ids=tuple("uvwxyz"),
        verification=Verification(probs=AFTER, oracle_probs=ORACLE if oracle else None),
    )
    return replace(result, **changes)


def with_planes(result: SympatheticResult) -> SympatheticResult:
    classes = (torch.arange(36) % 3).to(torch.uint8).view(6, 6).expand(6, 6, 6)
    return result.with_planes(classes, classes.half(), torch.tensor([-4.0, 5.0, -4.0, 6.0]).expand(6, 4))


class TestTruths:
    def test_success_is_what_was_verified_and_not_what_was_found(self) -> None:
        assert handmade().success.tolist() == [True, True, False, False, False, False]
        everything = handmade(found=torch.ones(6, dtype=torch.bool))
        assert torch.equal(everything.success, handmade().success)
        assert handmade(verification=Verification(probs=ORACLE)).success.tolist() == [True, False] + [True] * 4

    def test_success_demands_the_probability_asked_for(self) -> None:
        assert handmade(confidence=0.75).success.tolist() == [True] + [False] * 5
        assert handmade(confidence=0.5).success.tolist() == [True, True] + [False] * 4
        assert handmade(confidence=0.75).reasons[1] == ROUNDING

    def test_findings_tell_of_the_middle_case_and_of_what_the_oracle_does_not_see(self) -> None:
        first, second = handmade().findings
        assert first.sentence == (
            "A change to the picture puts right 2 of 6 images (33.3\N{NO-BREAK SPACE}%) that it took for another class "
            "than wanted; half of them need no more than is shown here, a change of length 1."
        )
        assert [panel.label.replace("\N{NO-BREAK SPACE}", " ") for panel in first.panels] == [
            "before: a (70 %)",
            "the change",
            "after: b (50 %)",
        ]
        assert "sees the class wanted in 1 of the 2 images that were put right; where it does not" in second.sentence
        assert second.panels[2].label == first.panels[2].label, "the other of the two has the oracle's word"
        (alone,) = handmade(oracle=False).findings
        assert alone.sentence == first.sentence

    def test_findings_do_not_count_what_was_right_before(self) -> None:
        line = handmade().line.clone()
        line[1:, 0] = torch.tensor([0.2, 0.7, 0.1])
        finding, agreed = handmade(line=line, confidence=0.75).findings
        assert "puts right the one image that" in finding.sentence
        assert "at least 75\N{NO-BREAK SPACE}% sure" in finding.sentence
        assert agreed.sentence.endswith("in 1 of the 1 images that were put right.")
        assert agreed.panels == ()
        line[0, 0] = line[1, 0]
        assert handmade(line=line).findings == ()

    def test_a_finding_says_so_where_nothing_was_put_right(self) -> None:
        (finding,) = handmade(confidence=0.9).findings
        assert finding.sentence.startswith("No change was found that puts right any of 6 images")
        assert finding.panels == ()

    def test_every_failure_has_its_reason(self) -> None:
        assert handmade().reasons == REASONS

    def test_lengths(self) -> None:
        result = handmade()
        assert result.norm.tolist() == pytest.approx([3, 1, 2, 5, 5, 5])
        assert result.norm_prior.tolist() == pytest.approx([0.75, 0.25, 0.5, 1.25, 1.25, 1.25])
        assert result.pixel_distance.tolist() == pytest.approx([0.5] * 6)

    def test_summary(self) -> None:
        summary = handmade().summary
        expected = {
            "images": 6,
            "success": 2 / 6,
            "success_n": 6,
            "norm": 2,
            "norm_n": 2,
            "norm_prior": 0.5,
            "pixel_distance": 0.5,
            "steps": 35,
            "oracle": 0.5,
            "oracle_n": 2,
            "unreachable": 1,
            "local_minimum": 1,
            "lost_in_rounding": 1,
            "not_found": 1,
        }
        assert {key: summary[key] for key in expected} == pytest.approx(expected)
        for key in ("success", "norm", "oracle"):
            assert summary[f"{key}_low"] <= summary[key] <= summary[f"{key}_high"]

    def test_of_nothing_no_mean_is_claimed(self) -> None:
        summary = handmade(verification=Verification(probs=AFTER.flip(0)[:1].expand(6, 3))).summary
        assert summary["success"] == 0
        assert summary["norm_n"] == 0
        assert "norm" not in summary
        assert all(math.isfinite(value) for value in summary.values())

    def test_without_an_oracle_nothing_is_said_of_one(self) -> None:
        result = handmade(oracle=False)
        assert result.oracle_agrees is None
        assert not [key for key in (*result.summary, *result.table.column_names) if "oracle" in key]
        assert handmade().oracle_agrees.tolist() == [True, False, True, True, True, True]


class TestAccount:
    def test_every_number_is_defined(self, plane: SympatheticResult) -> None:
        for result in (handmade(), handmade(confidence=0.9), plane):
            for key in result.summary:
                plain = key.removesuffix("_low").removesuffix("_high").removesuffix("_n")
                assert result.definitions.get(key) or result.definitions.get(plain), key
            for column in result.table.column_names:
                assert result.definitions.get(column), column

    def test_the_table_has_every_image_failures_included(self) -> None:
        rows = handmade().table.to_pylist()
        assert [row["id"] for row in rows] == list("uvwxyz")
        assert tuple(row["reason"] for row in rows) == REASONS
        assert [row["success"] for row in rows] == [not reason for reason in REASONS]
        assert rows[1] == pytest.approx(
            {
                "id": "v",
                "predicted": "a",
                "wanted": "b",
                "success": True,
                "reason": "",
                "norm": 1.0,
                "norm_prior": 0.25,
                "pixel_distance": 0.5,
                "steps": 20,
                "p_before": 0.2,
                "p_after": 0.5,
                "predicted_after": "b",
                "oracle_after": "c",
            }
        )

    def test_the_gallery_has_every_image_failures_included(self) -> None:
        gallery = handmade().figures[-1]
        assert isinstance(gallery, Gallery)
        assert [case.id for case in gallery.cases] == list("uvwxyz")
        assert [case.good for case in gallery.cases] == handmade().success.tolist()
        for case, reason in zip(gallery.cases, REASONS, strict=True):
            assert case.heading == "a → b"
            assert case.verdict.startswith(f"Failed, {reason}: " if reason else "With this change")
            assert set(case.numbers) <= set(gallery.definitions)
        assert "the oracle agrees" in gallery.cases[0].verdict
        assert "the oracle says c" in gallery.cases[1].verdict

    def test_a_case_shows_what_was_added(self) -> None:
        case = handmade().figures[-1].cases[0]
        panels = {panel.label: panel for panel in case.panels}
        assert list(panels) == ["original", "reconstruction", "perturbation", "perturbed"]
        assert panels["perturbation"].signed
        added = panels["perturbed"].pixels - panels["original"].pixels
        assert torch.equal(panels["perturbation"].pixels, added)
        assert list(case.probabilities) == ["before", "after", "oracle, after"]
        assert torch.equal(case.probabilities["after"], AFTER[0])
        # The wanted class and the one before, each once.
        assert list(case.line.curves) == ["b", "a"]
        assert case.line.curves["b"].tolist() == pytest.approx([0.2, 0.8])


class TestFigures:
    @pytest.mark.parametrize("oracle", [False, True])
    def test_are_drawn(self, oracle: bool, confident: SympatheticResult) -> None:
        digits = confident if oracle else replace(confident, verification=Verification(probs=confident.line[:, -1]))
        for result in (handmade(oracle=oracle), digits):
            figures = result.figures
            plots = [figure for figure in figures if isinstance(figure, Plot)]
            assert [plot.name for plot in plots] == (["examples", "norms"] if oracle else ["examples"])
            for plot in plots:
                drawing = plot.draw()
                assert isinstance(drawing, Drawing)
                drawing.canvas.draw()

    def test_where_nothing_succeeded_only_the_gallery_is_left(self) -> None:
        hopeless = handmade(verification=Verification(probs=AFTER[3:4].expand(6, 3)))
        assert [figure.name for figure in hopeless.figures] == ["cases"]

    def test_maps_are_in_absolute_coordinates(self) -> None:
        result = with_planes(handmade())
        plane = result.plane(1)
        assert plane.extent == (-4, 5, -4, 6)
        assert plane.path.tolist() == [pytest.approx(point) for point in ([1, 1], [1.3, 1.4], [1.6, 1.8])]
        assert plane.target == 1
        assert torch.equal(plane.classes, torch.arange(36).view(6, 6) % 3)
        assert result.figures[-1].cases[1].plane is not None
        assert handmade().plane(1) is None
        assert handmade().figures[-1].cases[1].plane is None


class TestSaving:
    @pytest.mark.parametrize("planes", [False, True])
    def test_what_is_loaded_says_the_same(self, planes: bool, tmp_path: Path) -> None:
        result = handmade()
        result = replace(result, images=(result.images * 255).round() / 255)
        result = with_planes(result) if planes else result
        result.save(tmp_path)
        loaded = load_result(tmp_path)
        assert isinstance(loaded, SympatheticResult)
        assert loaded.summary == result.summary
        assert loaded.table.equals(result.table)
        assert loaded.reasons == REASONS
        assert torch.equal(loaded.images, result.images)
        assert torch.equal(loaded.path, result.path)
        assert (loaded.plane(2) is not None) == planes

    def test_of_the_digits(self, boundary: SympatheticResult, tmp_path: Path) -> None:
        boundary.save(tmp_path)
        assert load_result(tmp_path).table.equals(boundary.table)


def test_a_longer_path_stays_at_its_end() -> None:
    path = handmade().with_path_length(5).path
    assert torch.equal(path[:, :3], handmade().path)
    assert torch.equal(path[:, 3:], handmade().epsilon[:, None].expand(6, 2, 2))

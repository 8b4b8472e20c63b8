from typing import Any

import pytest
import torch
from planted_styles import HARM, SHAPE, STYLES, PlantedStyles, always, blind_to, misled_beyond

from failscape.classifiers import Classifier, load_classifier
from failscape.data import load_images
from failscape.errors import LabelError, UnsupportedClassifier, UnsupportedGenerator
from failscape.explain import Degradation, DegradationResult
from failscape.generators import ConditionSpace, load_generator


def degrade(classifier: Any, generator: Any, **settings: Any) -> DegradationResult:
    x, y = torch.full((3, *classifier.image_shape), 0.5), torch.tensor([0, 1, 2])
    rng = torch.Generator().manual_seed(0)
    return Degradation(**({"samples": 300} | settings))(classifier, generator, x, y, rng=rng)


@pytest.fixture(scope="module")
def digits() -> DegradationResult:
    images = load_images("embedded:mnist-test").select(torch.arange(400))
    classifier, generator = load_classifier("embedded:mnist-corrupted"), load_generator("embedded:mnist-stylegan2")
    method = Degradation(samples=500, dimensions=3, classes=("8",), start="real")
    return method(classifier, generator, images.x, images.y, rng=torch.Generator().manual_seed(0), ids=images.ids)


class TestPlanted:
    @pytest.mark.parametrize("start", ["class-mean", "sample"])
    def test_styles_that_lose_the_class_are_shown_and_all_others_are_counted(self, start: str) -> None:
        result = degrade(misled_beyond(1.5, slope=400), PlantedStyles(), start=start)
        # Styles of the class in the image lose it as well, once they are far enough from what they are.
        assert int(result.dimension[0]) == HARM
        shown = set(result.dimension.tolist())
        assert shown <= {*range(HARM), HARM}
        assert result.summary["dimensions"] == len(shown)
        assert result.summary["skipped"] == STYLES - len(shown)
        whole = result.shift[(result.dimension == HARM) & (result.progress == 1)]
        # The harm of the mean is about 0, and its style is twice the harm.
        assert float(whole) == pytest.approx(3.0, abs=0.3) if start == "class-mean" else float(whole) > 0

    def test_where_nothing_is_found_a_finding_says_so(self) -> None:
        result = degrade(always(1), PlantedStyles())
        assert result.summary["dimensions"] == 0
        (finding,) = result.findings
        assert finding.sentence == (
            "None of the 7 directions tried brings the mean styles of class 1 to one half. It gives every sample the "
            "same answer, 1."
        )
        assert len(finding.panels) == len(result.figures) == 0

    def test_a_start_that_nothing_degrades_is_named_beside_one_that_something_does(self) -> None:
        def logits(x: torch.Tensor) -> torch.Tensor:
            # Of class 1 it is sure, whatever the harm.
            seeing = misled_beyond(100.0, slope=400)(x)
            return torch.where((seeing.argmax(dim=1) == 1)[:, None], seeing, misled_beyond(1.5, slope=400)(x))

        found = degrade(
            Classifier(logits, image_shape=SHAPE, name="sure of 1"),
            PlantedStyles(),
            classes=("0", "1"),
            dimensions=1,
            most=1,
        )
        (finding,) = found.findings
        assert finding.sentence.startswith("One direction is enough to turn a sure 0 into")
        assert finding.sentence.endswith("None of the 1 direction tried brings the mean styles of class 1 to one half.")

    def test_a_class_that_is_never_predicted_is_named(self) -> None:
        (finding,) = degrade(blind_to(2, harm=1.5), PlantedStyles(), dimensions=1).findings
        assert finding.sentence.endswith("It takes no sample for 2.")

    def test_whole_shifts_reach_one_half_and_parts_do_not(self) -> None:
        result = degrade(misled_beyond(1.5), PlantedStyles(), dimensions=1)
        whole, part = result.progress == 1, result.progress < 0.9
        assert float((result.probability[whole] - 0.5).abs().max()) < 0.03
        assert float(result.probability[part].min()) > 0.5
        assert result.summary["monotone"] == 1

    def test_a_class_mean_and_the_pictures_belong_together(self) -> None:
        result = degrade(misled_beyond(1.5, slope=100), PlantedStyles(), classes=("1", "2"), dimensions=1)
        assert result.sources == ("the mean styles of class 1", "the mean styles of class 2")
        assert result.y.unique().tolist() == [1, 2]
        starts = result.progress == 0
        # Nothing has moved yet: the quadrant of the class is the brightest.
        bright = result.images[starts].flatten(1).argmax(dim=1)
        assert set(bright.tolist()) <= {2, 3, 6, 7, 8, 9, 12, 13}

    def test_nothing_to_start_from_is_said(self) -> None:
        with pytest.raises(UnsupportedClassifier, match=r"mean styles of class 0 that constant is sure"):
            degrade(always(1), PlantedStyles(), classes=("0",))
        with pytest.raises(UnsupportedClassifier, match="found none of any class"):
            degrade(misled_beyond(-9.0), PlantedStyles())

    def test_other_generators_and_classes_are_refused(self) -> None:
        with pytest.raises(UnsupportedGenerator, match=r"asked for each of the 3 classes .* has no condition"):
            degrade(misled_beyond(1.0), PlantedStyles(condition=False))
        with pytest.raises(LabelError, match="Expected `classes` among 0, 1, 2, but got seven"):
            degrade(misled_beyond(1.0), PlantedStyles(), classes=("seven",))

    @pytest.mark.parametrize("start", ["sample", "class-mean", "real"])
    def test_a_class_that_is_never_drawn_is_no_start(self, start: str) -> None:
        generator = PlantedStyles()
        generator.condition_space = ConditionSpace(num_classes=3, shares=(0.5, 0.5, 0.0))
        said = "`classes` that the generator can be asked for, 0, 1, but got 2. Choose among them"
        with pytest.raises(UnsupportedGenerator, match=said):
            degrade(misled_beyond(1.5), generator, start=start, classes=("0", "2"))
        found = degrade(misled_beyond(1.5, slope=400), generator, classes=("1",), dimensions=1)
        assert found.y.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "nowhere"}, "`start` to be one of sample, class-mean, real"),
        ({"progress": (0.0, 0.5)}, "1 among it"),
        ({"progress": (0.0, 1.0, 0.5)}, "rising `progress`"),
        ({"progress": ()}, "rising `progress` from 0 with 1 among it, but got nothing"),
        ({"dimensions": 0}, "`dimensions` of at least 1"),
        ({"classes": ()}, "at least one class"),
        ({"score": "luck"}, "`score` to be one of logit-margin"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Degradation(**settings)


class TestDigits:
    def test_a_real_digit_is_brought_to_one_half_along_each_dimension(self, digits: DegradationResult) -> None:
        assert digits.sources[0].startswith("a real image of class 8, ")
        assert set(digits.origins) == {"test"}
        assert set(digits.made_from) == {digits.sources[0].removeprefix("a real image of class 8, ")}
        assert digits.summary["dimensions"] == 3
        assert float((digits.probability[digits.progress == 1] - 0.5).abs().max()) < 0.02
        assert float(digits.probability[digits.progress == 0].min()) > 0.9

    def test_the_grid_has_a_column_a_dimension(self, digits: DegradationResult) -> None:
        (plot,) = digits.figures
        drawing = plot.draw()  # type: ignore[attr-defined]
        assert len(drawing.axes) == 3 * 9
        assert "↑" in drawing.axes[0].get_title() or "↓" in drawing.axes[0].get_title()

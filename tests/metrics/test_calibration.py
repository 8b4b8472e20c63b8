import pytest
import torch
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics import expected_calibration_error, rate, reliability


def sure(confidences: list[float], right: list[bool], classes: int = 3) -> tuple[Tensor, Tensor]:
    """Probabilities with these maxima, the rest spread evenly, and labels that are predicted or not."""
    top = torch.tensor(confidences)
    probs = ((1 - top) / (classes - 1))[:, None].repeat(1, classes)
    predicted = torch.arange(len(top)) % classes
    probs[torch.arange(len(top)), predicted] = top
    return probs, torch.where(torch.tensor(right), predicted, (predicted + 1) % classes)


def drawn(n: int = 2000) -> tuple[Tensor, Tensor]:
    """Overconfident probabilities: the labels follow logits half as large."""
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(n, 6, generator=rng)
    return logits.softmax(dim=1), (logits / 2).softmax(dim=1).multinomial(1, generator=rng)[:, 0]


class TestExpectedCalibrationError:
    def test_by_hand(self) -> None:
        # Two bins of [0.8, 1]: 0.85 and 0.89, one right; 0.95 thrice, all right. The rest is empty.
        probs, y = sure([0.85, 0.89, 0.95, 0.95, 0.95], [True, False, True, True, True])
        expected = 2 / 5 * abs(0.5 - 0.87) + 3 / 5 * abs(1 - 0.95)
        assert expected_calibration_error(probs, y, bins=10) == pytest.approx(expected, abs=1e-6)

    def test_of_certainty_is_the_error_rate_and_certain_images_share_the_last_bin(self) -> None:
        probs, y = sure([1.0, 1.0, 1.0, 1.0], [True, True, True, False])
        assert expected_calibration_error(probs, y) == pytest.approx(0.25, abs=1e-6)
        # Apart, the two would miss by 0.03 and 1; together they miss by 0.485 twice.
        probs, y = sure([0.97, 1.0], [True, False])
        assert expected_calibration_error(probs, y) == pytest.approx(0.485, abs=1e-6)

    def test_is_zero_for_probabilities_that_keep_their_word(self) -> None:
        probs, y = sure([0.75] * 8, [True] * 6 + [False] * 2)
        assert expected_calibration_error(probs, y) == pytest.approx(0, abs=1e-6)

    def test_a_rounding_error_beyond_one_does_not_make_logits_of_probabilities(self) -> None:
        probs, y = sure([1.0, 0.9], [True, True])
        expected = expected_calibration_error(probs, y)
        assert expected_calibration_error(probs * (1 + 2e-7), y) == pytest.approx(expected, abs=1e-6)


class TestReliability:
    @pytest.mark.parametrize("bins", [1, 7, 15])
    def test_makes_the_expected_calibration_error(self, bins: int) -> None:
        probs, y = drawn()
        table = reliability(probs, y, bins)
        gaps = (table.accuracy - table.confidence).abs() * table.count / len(y)
        assert gaps.nansum().item() == pytest.approx(expected_calibration_error(probs, y, bins=bins), abs=1e-5)

    def test_counts_every_image_once_in_the_bin_of_its_confidence(self) -> None:
        probs, y = drawn()
        table = reliability(probs, y)
        confidence = probs.amax(dim=1)
        assert table.count.sum() == len(y)
        for b in range(15):
            inside = (confidence >= b / 15) & ((confidence < (b + 1) / 15) | (b == 14))
            assert table.count[b] == inside.sum()
            if inside.any():
                expected = rate(probs[inside].argmax(dim=1) == y[inside])
                assert table.accuracy[b] == pytest.approx(expected.value)
                assert (table.low[b], table.high[b]) == (pytest.approx(expected.low), pytest.approx(expected.high))
                assert table.confidence[b] == pytest.approx(confidence[inside].mean().item(), abs=1e-6)

    def test_an_empty_bin_has_nothing_but_its_count(self) -> None:
        table = reliability(*sure([0.9, 1.0], [True, True]), bins=4)
        assert table.count.tolist() == [0, 0, 0, 2]
        for values in (table.confidence, table.accuracy, table.low, table.high):
            assert values.isnan().tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("probs", "y", "bins", "message"),
    [
        (torch.eye(3), torch.arange(3), 0, "`bins` to be at least 1, but got 0"),
        (torch.eye(3)[:0], torch.arange(0), 15, r"at least 1 image and 2 classes, but got \(0, 3\)"),
        (torch.ones(3, 1), torch.zeros(3).long(), 15, r"2 classes, but got \(3, 1\)"),
        (5 * torch.eye(3), torch.arange(3), 15, r"in \[0, 1\], but got 0 to 5\. Take the softmax"),
        (-torch.eye(3), torch.arange(3), 15, "but got -1 to"),
        (torch.eye(3) * torch.nan, torch.arange(3), 15, "but got nan"),
        (torch.eye(3), torch.arange(3) + 1, 15, "3 labels from 0 to 2, one an image, but got torch.int64 .* up to 3"),
        (torch.eye(3), torch.arange(2), 15, r"of shape \(2,\)"),
        (torch.eye(3), torch.zeros(3), 15, "torch.float32"),
    ],
)
def test_refuses(probs: Tensor, y: Tensor, bins: int, message: str, as_installed: None) -> None:
    for measure in (expected_calibration_error, reliability):
        with pytest.raises(MetricError, match=message):
            measure(probs, y, bins=bins)

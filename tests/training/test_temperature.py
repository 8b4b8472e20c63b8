import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import fit_temperature
from failscape.errors import DataError
from failscape.metrics import expected_calibration_error
from failscape.training.temperature import first_half, fit_and_measure


def overconfident(n: int = 4000) -> tuple[Tensor, Tensor]:
    """Logits that are three times too large."""
    rng = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(n, 5, generator=rng)
    return logits, (logits / 3).softmax(dim=1).multinomial(1, generator=rng)[:, 0]


class TestFitAndMeasure:
    def test_fits_on_one_part_and_measures_on_the_other(self) -> None:
        logits, y = overconfident()
        fitted = torch.arange(4000) % 4 == 0
        fit = fit_and_measure(logits, y, fitted=fitted, bins=10)
        assert fit.fitted == 1000
        assert fit.temperature == fit_temperature(logits[fitted], y[fitted])
        others, labels = logits[~fitted], y[~fitted]
        assert torch.equal(fit.right, others.argmax(dim=1) == labels)
        assert fit.before.error == expected_calibration_error(others.softmax(dim=1), labels, bins=10)
        assert fit.after.cross_entropy == pytest.approx(F.cross_entropy(others / fit.temperature, labels).item())
        assert fit.before.reliability.count.sum() == fit.after.reliability.count.sum() == 3000
        assert len(fit.before.reliability.count) == 10

    def test_mends_what_is_too_sure(self) -> None:
        fit = fit_and_measure(*overconfident(), fitted=torch.arange(4000) < 2000)
        assert fit.temperature == pytest.approx(3, rel=0.1)
        assert fit.before.error > 0.2
        assert fit.after.error < 0.03
        assert fit.after.cross_entropy < fit.before.cross_entropy

    @pytest.mark.parametrize("fitted", [[], [0], [0, 1, 2, 3, 4]])
    def test_refuses_too_few_images(self, fitted: list[int]) -> None:
        logits, y = overconfident(5)
        mask = torch.zeros(5, dtype=torch.bool)
        mask[fitted] = True
        with pytest.raises(DataError, match=rf"but got {len(fitted)} and {5 - len(fitted)}\. Give at least 4"):
            fit_and_measure(logits, y, fitted=mask)


class TestFirstHalf:
    def test_is_the_first_half(self) -> None:
        assert first_half(torch.tensor([1, 0, 1, 0, 2])).tolist() == [True, True, False, False, False]

    def test_of_a_sorted_set_is_the_first_half_of_each_class(self) -> None:
        y = torch.tensor([0, 0, 0, 0, 2, 2, 3, 3, 3])
        assert first_half(y).tolist() == [True, True, False, False, True, False, True, False, False]

    def test_of_nothing_is_nothing(self) -> None:
        assert first_half(torch.tensor([], dtype=torch.long)).tolist() == []

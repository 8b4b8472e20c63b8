"""Corruption tables of classifiers of which it is known by analysis what each corruption does to them."""

from typing import Any

import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import corrupt
from failscape.errors import ClassifierError, DataError
from failscape.explain import CorruptionTable, CorruptionTableResult, load_result
from failscape.explain.corruption_table import _telling
from failscape.generators import VAE
from failscape.metrics import rate

SHAPE = (1, 8, 8)
# A checkerboard of black and white, of which a loss of contrast leaves 0.4, 0.3, 0.2, 0.1 and 0.05.
CHECKERS = ((torch.arange(8)[:, None] + torch.arange(8)) % 2).float()


def contrast_above(least: float, name: str = "") -> Classifier:
    """Wrap a classifier that says 1 where lightest and darkest pixel differ by more than that, else 0."""

    def logits(x: Tensor) -> Tensor:
        spread = 10 * (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)) - least)
        return torch.stack([-spread, spread], dim=1)

    return Classifier(logits, image_shape=SHAPE, name=name or f"above {least}")


def by_mean(name: str = "by mean") -> Classifier:
    """Wrap a classifier that says 1 where the mean grey is above a half: it changes with the noise drawn."""
    return Classifier(
        lambda x: torch.stack([0.5 - x.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)) - 0.5], dim=1) * 100,
        image_shape=SHAPE,
        name=name,
    )


def tabulate(
    classifier: Classifier, x: Tensor, y: Tensor | None = None, *, seed: int = 0, **settings: Any
) -> CorruptionTableResult:
    generator = VAE(image_shape=SHAPE, latent_dim=2, hidden=(4,)).eval()
    labels = torch.ones(len(x), dtype=torch.long) if y is None else y
    return CorruptionTable(**settings)(classifier, generator, x, labels, rng=torch.Generator().manual_seed(seed))


def checkers(n: int = 4) -> Tensor:
    return CHECKERS.expand(n, *SHAPE).contiguous()


def rows(result: CorruptionTableResult, column: str, **where: Any) -> list[Any]:
    table = result.table
    for name, value in where.items():
        table = table.filter(pc.equal(table[name], value))
    values: list[Any] = table[column].to_pylist()
    return values


def test_contrast_is_lost_where_it_falls_below_what_the_classifier_sees() -> None:
    result = tabulate(contrast_above(0.25), checkers(), corruptions=("contrast", "jpeg_compression"))
    assert rows(result, "accuracy", corruption="contrast") == [1, 1, 0, 0, 0]
    assert rows(result, "accuracy", corruption="uncorrupted", severity=0) == [1]
    assert result.summary["worst"] == 0
    shares = rows(result, "accuracy", corruption="jpeg_compression")
    assert result.summary["corrupted"] == pytest.approx((2 + sum(shares)) / 10)


def test_the_order_is_that_of_the_slides() -> None:
    table = tabulate(by_mean(), checkers()).table
    assert list(dict.fromkeys(table["corruption"].to_pylist())) == [
        "uncorrupted",
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "contrast",
        "jpeg_compression",
        "speckle_noise",
        "gaussian_blur",
    ]
    assert table["severity"].to_pylist() == [0, *[1, 2, 3, 4, 5] * 7]
    assert len(set(table["id"].to_pylist())) == 36


def test_numbers_are_those_of_the_8_bit_images() -> None:
    # 120 of 255 and 136 of 255, whose difference is 16 grey values, of which a tenth rounds to 2: 0.0078.
    x = (120 + 16 * checkers()) / 255
    assert rows(tabulate(contrast_above(0.007), x, corruptions=("contrast",)), "accuracy", severity=4) == [1]
    assert 16 / 255 * 0.1 < 0.007
    with_intervals = tabulate(by_mean(), checkers(50), corruptions=("shot_noise",))
    for way in range(6):
        expected = rate(with_intervals.right[0, way])
        assert rows(with_intervals, "accuracy_low")[way] == expected.low
        assert rows(with_intervals, "accuracy_high")[way] == expected.high


def test_all_classifiers_see_the_same_pixels() -> None:
    x = 0.5 * torch.ones(300, *SHAPE)
    result = tabulate(by_mean(), x, others=(by_mean("again"), by_mean("again")))
    assert torch.equal(result.right[0], result.right[1])
    assert torch.equal(result.right[0], result.right[2])
    assert result.classifiers == ("by mean", "again", "again (2)")
    noisy = rows(result, "accuracy", corruption="gaussian_noise", classifier="by mean")
    assert all(0.2 < share < 0.8 for share in noisy), "else equal pixels would prove nothing"
    assert (result.summary["gain of again"], result.summary["gain of again_high"]) == (0, 0)
    assert not torch.equal(result.right, tabulate(by_mean(), x, others=(by_mean(), by_mean()), seed=1).right)


def test_a_better_classifier_gains_what_it_gets_right() -> None:
    result = tabulate(
        contrast_above(0.35), checkers(40), corruptions=("contrast",), others=(contrast_above(0.15, "keen"),)
    )
    assert result.summary["corrupted"] == pytest.approx(1 / 5)
    assert result.summary["corrupted of keen"] == pytest.approx(3 / 5)
    assert result.summary["gain of keen"] == pytest.approx(2 / 5)
    (both,) = result.findings
    assert both.sentence == (
        "Loss of contrast hurts above 0.35: it is right in 100 % of 40 images as they are, in 100 % at severity 1 and "
        "in 0 % at severity 5. Of the corrupted pictures keen gets 60 % right and above 0.35 20 % of the same ones; "
        "keen is better by 40.0 to 40.0 percentage points."
    ).replace(" %", "\N{NO-BREAK SPACE}%")


def test_each_of_several_classifiers_is_compared_with_pictures() -> None:
    others = (contrast_above(0.15, "keen"), contrast_above(0.15, "as keen"))
    result = tabulate(contrast_above(0.35), checkers(40), corruptions=("contrast",), others=others)
    worst, compared, _ = result.findings
    assert "keen" not in worst.sentence
    assert "keen is better by 40.0 to 40.0 percentage points." in compared.sentence
    assert [panel.label for panel in compared.panels] == [
        f"loss of contrast {severity}: 0 by above 0.35, 1 by keen" for severity in (2, 3)
    ]


def test_findings_claim_no_more_than_the_images_show() -> None:
    keen = contrast_above(0.01)
    unharmed, alike, _ = tabulate(
        keen, checkers(), others=(keen, keen), corruptions=("contrast", "shot_noise")
    ).findings
    assert unharmed.sentence.startswith("No corruption was seen to make above 0.01 fail more often; it is right in ")
    assert " images as they are, with loss of contrast, the worst, in " in unharmed.sentence
    assert alike.sentence.endswith("which is better 4 images do not tell.")
    assert len(alike.panels) == 0
    # Both leave nothing: which one is worse cannot be told.
    tied, *_ = tabulate(contrast_above(0.9), checkers(), corruptions=("contrast", "gaussian_blur")).findings
    assert tied.sentence.startswith("Loss of contrast and blur hurt it most; it is right in ")
    assert " images as they are, with loss of contrast in " in tied.sentence


def test_the_images_shown_are_one_image_in_each_way() -> None:
    n = 60
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(3))
    x = 0.3 + 0.4 * x + 0.1 * torch.linspace(-1, 1, n).view(-1, 1, 1, 1)
    y = (x.mean(dim=(1, 2, 3)) > 0.5).long()
    result = tabulate(by_mean(), x.clamp(0, 1), y, samples=40)
    assert len(result.images) == 36
    assert result.verification is not None
    image = (x.clamp(0, 1)[int(result.shown)] * 255).round() / 255
    assert torch.equal(result.images[0], image)
    assert result.label == int(y[int(result.shown)])
    blurred = corrupt(x[int(result.shown), None].clamp(0, 1), "gaussian_blur", severity=5, rng=torch.Generator())
    assert torch.equal(result.images[-1], (blurred[0] * 255).round() / 255)
    verdict = result.verification.prediction == result.label
    assert any(torch.equal(verdict, result.right[0, :, j]) for j in range(40)), "those that were counted"
    assert torch.equal(result.verdicts[0], result.verification.prediction)


def test_so_many_images_are_drawn_at_random_and_survive_saving(tmp_path: Any) -> None:
    x, y = checkers(30), torch.arange(30) % 2
    result = tabulate(contrast_above(0.5), x, y, corruptions=("contrast",), samples=10)
    assert result.right.shape == (1, 6, 10)
    assert result.summary["images"] == 10
    other = tabulate(contrast_above(0.5), x, y, corruptions=("contrast",), samples=10, seed=1)
    assert not torch.equal(result.right, other.right)
    result.save(tmp_path)
    assert load_result(tmp_path).summary == result.summary


def test_others_of_another_task_are_refused() -> None:
    other = Classifier(lambda x: torch.zeros(len(x), 3), image_shape=SHAPE, name="three")
    with pytest.raises(ClassifierError, match="three takes"):
        tabulate(by_mean(), checkers(), others=(other,))


def test_jpeg_of_two_channels_is_a_clear_error_where_it_was_asked_for() -> None:
    classifier = Classifier(lambda x: torch.zeros(len(x), 2) + x.mean(), image_shape=(2, 8, 8))
    generator = VAE(image_shape=(2, 8, 8), latent_dim=2, hidden=(4,)).eval()
    x, y, rng = torch.rand(2, 2, 8, 8), torch.zeros(2, dtype=torch.long), torch.Generator()
    with pytest.raises(DataError, match="Choose another corruption"):
        CorruptionTable(corruptions=("jpeg_compression",))(classifier, generator, x, y, rng=rng)
    result = CorruptionTable(corruptions=("contrast", "shot_noise"))(classifier, generator, x, y, rng=rng)
    assert result.right.shape == (1, 11, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"corruptions": ("fog",)}, "`corruptions` to be some of gaussian_noise, .* but got fog"),
        ({"corruptions": ()}, "but got none"),
        ({"corruptions": ("contrast", "contrast")}, "each once"),
        ({"samples": 0}, "`samples` to be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CorruptionTable(**settings)


def test_without_being_asked_for_what_images_cannot_have_is_left_out_and_said() -> None:
    shape = (2, 8, 8)
    classifier = Classifier(lambda x: x.flatten(1)[:, :2], image_shape=shape)
    generator = VAE(image_shape=shape, latent_dim=2, hidden=(4,)).eval()
    x, y = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)), torch.zeros(4, dtype=torch.long)
    result = CorruptionTable()(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))
    assert len(result.corruptions) == 6
    assert "jpeg_compression" not in result.corruptions
    assert result.figures[0].caption.endswith(
        "Left out: JPEG compression, which is defined for images of 1 or 3 channels, and these have 2."
    )
    assert "Left out" not in tabulate(by_mean(), checkers()).figures[0].caption


def test_the_image_shown_is_one_that_is_lost_to_the_worst_corruption() -> None:
    # Of 40 images 30 have all contrast; the other ten, of which one is wrong as it is, are lost sooner.
    ways = torch.ones(11, 40, dtype=torch.bool)
    ways[5, 30:] = False
    ways[0, 39] = False
    # Beyond the worst corruption, which is the first, a single severity of the other loses more.
    ways[10, :12] = False
    ways[4, 30:] = False
    assert 30 <= _telling(ways) < 39
    # Where none of these is right uncorrupted it is any that is.
    ways[0, 30:] = False
    assert _telling(ways) < 30

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import Classifier, fit_temperature
from failscape.errors import ClassifierError, DataError, FailscapeError, LabelError

SHAPE = (1, 4, 4)


def labelled(temperature: float, n: int = 20_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and labels that are drawn from softmax(logits / temperature)."""
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, 5, generator=rng)
    y = (logits / temperature).softmax(dim=1).multinomial(1, generator=rng)[:, 0]
    return logits, y


def loss(logits: Tensor, y: Tensor, temperature: float) -> float:
    return F.cross_entropy(logits.double() / temperature, y).item()


class TestFit:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
    def test_finds_the_temperature_that_the_labels_were_drawn_with(self, temperature: float) -> None:
        assert fit_temperature(*labelled(temperature)) == pytest.approx(temperature, rel=0.05)

    def test_of_two_classes_of_equal_odds_is_known_by_hand(self) -> None:
        # 80 % right at logit z: the likelihood is largest where sigmoid(z / T) = 0.8.
        logits = torch.tensor([[3.0, 0.0]]).expand(1000, 2)
        y = (torch.arange(1000) >= 800).long()
        assert fit_temperature(logits, y) == pytest.approx(3 / torch.tensor(4.0).log().item(), rel=1e-6)

    @given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 5))
    def test_no_other_temperature_is_better(self, seed: int, temperature: float) -> None:
        logits, y = labelled(temperature, n=200, seed=seed)
        found = fit_temperature(logits, y)
        for factor in (0.5, 0.99, 1.01, 2.0):
            assert loss(logits, y, found) <= loss(logits, y, found * factor) + 1e-9

    def test_follows_the_scale_of_the_logits_and_ignores_shifts(self) -> None:
        logits, y = labelled(1.5, n=500)
        found = fit_temperature(logits, y)
        assert fit_temperature(1e-4 * logits, y) == pytest.approx(1e-4 * found, rel=1e-5)
        assert fit_temperature(1e4 * logits, y) == pytest.approx(1e4 * found, rel=1e-5)
        assert fit_temperature(logits + torch.randn(500, 1), y) == pytest.approx(found, rel=1e-4)
        assert fit_temperature(logits / found, y) == pytest.approx(1, rel=1e-5)

    def test_without_a_minimum_stops_at_the_end_of_its_range(self) -> None:
        logits = labelled(1.0, n=100)[0]
        spread = (logits - logits.mean(dim=1, keepdim=True)).square().mean().sqrt().item()
        assert fit_temperature(logits, logits.argmax(dim=1)) == pytest.approx(spread / 100, rel=1e-6)
        assert fit_temperature(logits, logits.argmin(dim=1)) == pytest.approx(spread * 100, rel=1e-6)

    @pytest.mark.parametrize(
        ("logits", "y", "kind", "message"),
        [
            (torch.zeros(5, 1), torch.zeros(5).long(), ClassifierError, "at least 2 classes, but got (5, 1)"),
            (torch.zeros(5), torch.zeros(5).long(), ClassifierError, "shape (N, K)"),
            (torch.eye(1, 3), torch.tensor([0]), DataError, "at least 2 images to fit a temperature, but got 1"),
            (torch.eye(0, 3), torch.tensor([]).long(), DataError, "but got 0"),
            (torch.full((4, 3), 5.1), torch.arange(4) % 3, ClassifierError, "the same for every class of every image"),
            (torch.zeros(4, 3), torch.arange(4) % 3, ClassifierError, "the same for every class of every image"),
            (torch.arange(4.0)[:, None].expand(4, 3), torch.arange(4) % 3, ClassifierError, "the same for every class"),
            (torch.full((4, 3), torch.nan), torch.arange(4) % 3, ClassifierError, "finite logits"),
            (
                torch.eye(4, 3),
                torch.arange(4),
                LabelError,
                "labels from 0 to 2, the classes of the logits, but got 0 to 3",
            ),
            (torch.eye(4, 3), torch.arange(3), LabelError, "one integer label an image, shape (4,)"),
            (torch.eye(4, 3), torch.zeros(4), LabelError, "torch.float32"),
        ],
    )
    def test_refuses(
        self, logits: Tensor, y: Tensor, kind: type[FailscapeError], message: str, as_installed: None
    ) -> None:
        with pytest.raises(kind) as caught:
            fit_temperature(logits, y)
        assert message in str(caught.value)


class TestWithTemperature:
    def test_shares_the_network_and_does_not_call_it(self) -> None:
        calls = []

        def network(x: Tensor) -> Tensor:
            calls.append(len(x))
            return x.flatten(1)[:, :3]

        first = Classifier(network, image_shape=SHAPE, temperature=2.0, class_names=("a", "b", "c"), name="toy")
        calls.clear()
        other = first.with_temperature(0.5)
        assert calls == []
        x = torch.rand(4, *SHAPE)
        assert torch.allclose(other(x), 4 * first(x))
        assert (first.temperature, other.temperature) == (2.0, 0.5)
        assert other.network is first.network
        assert (other.class_names, other.name, other.differentiable) == (("a", "b", "c"), "toy", True)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
    def test_refuses(self, temperature: float) -> None:
        classifier = Classifier(lambda x: x.flatten(1), image_shape=SHAPE)
        with pytest.raises(ClassifierError, match="Expected a positive `temperature`"):
            classifier.with_temperature(temperature)

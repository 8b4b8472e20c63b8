import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, UnsupportedClassifier

SHAPE = (1, 4, 4)
WEIGHTS = torch.linspace(-1, 1, 48).view(3, 16)


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHTS.T


def numpy_scores(x: Tensor) -> Any:
    return x.flatten(1).numpy() @ WEIGHTS.T.numpy()


def images(n: int = 5) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


class TestLogits:
    def test_are_those_of_the_network_divided_by_the_temperature(self) -> None:
        x = images()
        assert torch.equal(Classifier(linear, image_shape=SHAPE)(x), linear(x))
        halved = Classifier(linear, image_shape=SHAPE, temperature=2.0)
        assert torch.allclose(halved(x), linear(x) / 2)
        assert torch.allclose(halved.probs(x), (linear(x) / 2).softmax(dim=1))

    def test_of_probabilities_give_the_probabilities_back(self) -> None:
        x = images()
        probs = linear(x).softmax(dim=1)
        classifier = Classifier(lambda x: linear(x).softmax(1), image_shape=SHAPE, outputs="probabilities")
        assert torch.allclose(classifier.probs(x), probs, atol=1e-6)
        sharper = Classifier(
            lambda x: linear(x).softmax(1), image_shape=SHAPE, outputs="probabilities", temperature=0.5
        )
        assert torch.allclose(sharper.probs(x), probs.square() / probs.square().sum(1, keepdim=True), atol=1e-6)

    def test_a_probability_of_zero_is_finite(self) -> None:
        certain = Classifier(
            lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2), image_shape=SHAPE, outputs="probabilities"
        )
        assert torch.allclose(certain.probs(images(2)), torch.tensor([[1.0, 0.0]]), rtol=0, atol=1e-30)

    @pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
    def test_probs_and_predict_do_not_depend_on_the_batch_size(self, batch_size: int) -> None:
        classifier, x = Classifier(linear, image_shape=SHAPE), images()
        assert torch.allclose(classifier.probs(x, batch_size=batch_size), linear(x).softmax(dim=1))
        assert torch.equal(classifier.predict(x, batch_size=batch_size), linear(x).argmax(dim=1))

    def test_no_images_have_no_probabilities(self) -> None:
        classifier = Classifier(linear, image_shape=SHAPE)
        assert classifier.probs(images(0)).shape == (0, 3)
        assert classifier.predict(images(0)).shape == (0,)

    def test_other_precisions_become_float32(self) -> None:
        for dtype in (torch.float16, torch.float64, torch.int64):
            classifier = Classifier(lambda x, dtype=dtype: (linear(x) * 4).to(dtype), image_shape=SHAPE)
            assert classifier(images()).dtype == torch.float32


class TestWrapping:
    def test_a_module_is_put_into_evaluation_mode(self) -> None:
        network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.9), nn.Linear(16, 3))
        before = {key: value.clone() for key, value in network.state_dict().items()}
        classifier = Classifier(network, image_shape=SHAPE)
        assert torch.equal(classifier(images()), classifier(images()))
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert not network.training

    def test_moves_a_copy_to_another_device(self) -> None:
        network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 3))
        classifier = Classifier(network, image_shape=SHAPE, temperature=2.0)

        moved = classifier.to("meta")

        assert (
            {parameter.device for parameter in moved.network.parameters()} == {moved.device} == {torch.device("meta")}
        )
        assert moved.temperature == 2
        assert classifier(torch.zeros(5, *SHAPE)).device == classifier.device == torch.device("cpu")
        assert classifier.to("cpu") is classifier
        by_hand = Classifier(lambda x: x.flatten(1)[:, :3], image_shape=SHAPE)
        assert by_hand.to("meta") is by_hand

    def test_names(self) -> None:
        assert Classifier(linear, image_shape=SHAPE).class_names == ("0", "1", "2")
        named = Classifier(linear, image_shape=list(SHAPE), class_names=["ant", "bee", "cat"])
        assert named.class_names == ("ant", "bee", "cat")
        assert named.num_classes == 3
        assert named.image_shape == SHAPE

    @pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "a"], ["1", 1, "2"], "abc", []])
    def test_refuses_names(self, names: Any, as_installed: None) -> None:
        with pytest.raises(ClassifierError, match="Expected 3 different class names"):
            Classifier(linear, image_shape=SHAPE, class_names=names)

    @pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 4), (1, 0, 4), (-1, 4, 4)])
    def test_refuses_image_shape(self, shape: Any, as_installed: None) -> None:
        with pytest.raises(ClassifierError, match=r"Expected `image_shape` as \(C, H, W\), but got"):
            Classifier(linear, image_shape=shape)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
    def test_refuses_temperature(self, temperature: float) -> None:
        with pytest.raises(ClassifierError, match="Expected a positive `temperature`"):
            Classifier(linear, image_shape=SHAPE, temperature=temperature)

    def test_refuses_outputs(self, as_installed: None) -> None:
        with pytest.raises(ClassifierError, match="'logits' or 'probabilities', but got 'scores'"):
            Classifier(linear, image_shape=SHAPE, outputs="scores")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (lambda x: x.flatten(1)[:, :1], "at least 2 outputs, but got 1"),
            (lambda x: x.flatten(1)[:, 0], r"scores of shape \(2, K\), but got \(2,\)"),
            (lambda x: linear(x)[:1], r"scores of shape \(2, K\), but got \(1, 3\)"),
            (lambda x: linear(x)[..., None], r"but got \(2, 3, 1\)"),
            (lambda x: linear(x) * torch.nan, "NaN or infinity for 2 of 2 images"),
            (lambda x: linear(x) + torch.inf, "NaN or infinity"),
            (lambda x: None, "a tensor or an array of scores, but got NoneType"),
            (lambda x: "scores", "a tensor or an array of scores, but got str"),
            (lambda x: (linear(x), x), "a tensor or an array of scores, but got tuple"),
            (lambda x: {"logits": linear(x)}, "a tensor or an array of scores, but got dict"),
            (lambda x: x.missing, "raised AttributeError"),
            (lambda x: {}["missing"], "raised KeyError"),
            (lambda x: 1 / 0, "raised ZeroDivisionError"),
            (nn.Linear(7, 3), r"images of shape \(2, 1, 4, 4\), but it raised RuntimeError"),
        ],
    )
    def test_refuses_a_network(self, network: Callable[[Tensor], Any], message: str) -> None:
        with pytest.raises(ClassifierError, match=message):
            Classifier(network, image_shape=SHAPE, name="toy")

    @pytest.mark.parametrize("scale", [-0.1, 1.1])
    def test_refuses_probabilities_that_are_none(self, scale: float) -> None:
        def network(x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2) * scale

        with pytest.raises(ClassifierError, match=r"probabilities in \[0, 1\].*Pass outputs='logits'"):
            Classifier(network, image_shape=SHAPE, outputs="probabilities")


class TestImages:
    @pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 4, 4), (2, 1, 28, 28)])
    def test_refuses_another_size(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ClassifierError, match=re.escape(f"{SHAPE} (C, H, W) for toy, but got {shape[1:]}")):
            Classifier(linear, image_shape=SHAPE, name="toy")(torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (16,)])
    def test_refuses_another_rank(self, shape: tuple[int, ...], as_installed: None) -> None:
        with pytest.raises(ClassifierError, match=r"Expected images of shape \(1, 4, 4\)"):
            Classifier(linear, image_shape=SHAPE)(torch.zeros(shape))

    def test_scores_that_are_not_finite_for_some_images(self) -> None:
        classifier = Classifier(lambda x: linear(x) / (x.mean((1, 2, 3)) > 0.1)[:, None], image_shape=SHAPE)
        x = images()
        assert classifier(x).isfinite().all()
        x[[1, 3]] = 0.05
        with pytest.raises(ClassifierError, match="NaN or infinity for 2 of 5 images"):
            classifier(x)
        with pytest.raises(ClassifierError, match="NaN or infinity"):
            classifier.predict(x)


class TestGradients:
    def test_flow_where_the_network_has_them(self) -> None:
        classifier = Classifier(linear, image_shape=SHAPE, temperature=2.0)
        x = images().requires_grad_()
        (gradient,) = torch.autograd.grad(classifier(x)[:, 1].sum(), x)
        assert torch.allclose(gradient.flatten(1), WEIGHTS[1].expand(5, 16) / 2)
        assert classifier.differentiable
        classifier.require_gradients("a method", "Do without.")

    def test_a_network_of_frozen_weights_has_them(self) -> None:
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
        assert Classifier(network, image_shape=SHAPE).differentiable

    def test_are_seen_when_wrapped_without_grad(self) -> None:
        with torch.no_grad():
            assert Classifier(linear, image_shape=SHAPE).differentiable

    @pytest.mark.parametrize(
        "network",
        [
            numpy_scores,
            lambda x: numpy_scores(x.detach()).tolist(),
            torch.no_grad()(linear),
            torch.inference_mode()(linear),
        ],
    )
    def test_are_missed_where_the_network_has_none(self, network: Callable[[Tensor], Any]) -> None:
        classifier = Classifier(network, image_shape=SHAPE, name="toy")
        assert not classifier.differentiable
        x = images().requires_grad_()
        logits = classifier(x)
        assert torch.allclose(logits, linear(images()), atol=1e-6)
        assert not logits.requires_grad
        with pytest.raises(UnsupportedClassifier, match=r"gradients for a method, but toy has none\. Use the grid\."):
            classifier.require_gradients("a method", "Use the grid.")

    def test_gradients_to_the_weights_alone_are_none(self) -> None:
        head = nn.Linear(16, 3)
        assert not Classifier(lambda x: head(x.detach().flatten(1)), image_shape=SHAPE).differentiable

    def test_a_network_may_hand_out_a_read_only_array(self) -> None:
        array = np.zeros((2, 3), dtype=np.float32)
        array.flags.writeable = False
        assert Classifier(lambda x: array, image_shape=SHAPE).num_classes == 3

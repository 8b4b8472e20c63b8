import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from failscape.classifiers import NETWORKS, Classifier, build_network
from failscape.errors import ClassifierError
from failscape.explain import METHODS, Method, Result, SympatheticExamples, SympatheticResult
from failscape.figures import Figure, Finding, Panel, Plot
from failscape.generators import VAE, Autoencoder, Condition, ConditionSpace
from failscape.testing import check_classifier, check_generator, check_method

SHAPE = (1, 8, 8)
WEIGHTS = torch.linspace(-1, 1, 192).view(3, 64)

# Differs at every call, and by chance never too little to be seen.
TICKS = itertools.count()


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHTS.T


def wrap(network: Any, **options: Any) -> Classifier:
    return Classifier(network, image_shape=SHAPE, **options)


def build_vae(latent_dim: int = 3) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(image_shape=SHAPE, latent_dim=latent_dim, hidden=(16,)).eval()


class TestCheckClassifier:
    @pytest.mark.parametrize("architecture", NETWORKS)
    def test_reference_networks_pass(self, architecture: str) -> None:
        check_classifier(wrap(build_network(architecture, seed=0, image_shape=SHAPE, num_classes=3, width=8)))

    @pytest.mark.parametrize(
        "classifier",
        [
            wrap(linear, temperature=3.0),
            wrap(lambda x: linear(x).softmax(dim=1), outputs="probabilities"),
            wrap(lambda x: linear(x).numpy()),
            # A network may say the same of every image.
            wrap(lambda x: 0 * linear(x)),
        ],
    )
    def test_plain_functions_pass(self, classifier: Classifier) -> None:
        check_classifier(classifier)

    @pytest.mark.parametrize(
        ("network", "promise"),
        [
            (lambda x: linear(x - x.mean(dim=0, keepdim=True)), "whatever else is in the batch"),
            (lambda x: linear(x) + 1000.0 * next(TICKS), "the same for the same images"),
            (lambda x: linear(x.mul_(0.5)) if not x.requires_grad else linear(x), "to leave its images alone"),
            (lambda x: linear(x).where(x.flatten(1).amax(dim=1, keepdim=True) < 1, torch.nan), "finite"),
            (lambda x: linear(x.detach()) + 0 * linear(x), "to agree with finite differences, but got a relative"),
            (lambda x: linear(torch.cat([x[:, :, :4].detach(), x[:, :, 4:]], dim=2)), "finite differences"),
        ],
    )
    def test_a_broken_promise_is_named(self, network: Callable[[Tensor], Tensor], promise: str) -> None:
        with pytest.raises((AssertionError, ClassifierError), match=promise) as caught:
            check_classifier(wrap(network, name="mine"))
        assert str(caught.value).startswith("Expected ")
        assert "mine" in str(caught.value)


class Drawing(Autoencoder):
    """A conforming autoencoder outside the known families; each broken one below changes one thing."""

    family: ClassVar[str] = "drawing"

    def __init__(self) -> None:
        super().__init__()
        self.config, self.latent_dim, self.image_shape = {}, 3, SHAPE
        self.register_buffer("weight", torch.linspace(-1, 1, 192).view(3, 64).sin())

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_latents(z)
        return (z @ self.weight).sigmoid().view(-1, *SHAPE)

    def encode(self, x: Tensor) -> Tensor:
        build_vae().posterior(x)
        return x.flatten(1) @ self.weight.T


class WrongShape(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z).expand(-1, 3, -1, -1)


class BeyondOne(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z) * 1.2


class Infinite(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z).where((z.norm(dim=1) < 5)[:, None, None, None], torch.nan)


class Noisy(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z) * (1.0 - 0.5 * (next(TICKS) % 2))


class BatchNormed(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z - z.mean(dim=0))


class WritesLatents(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        if not z.requires_grad:
            z.clamp_(-1, 1)
        return super().forward(z)


class AnyLength(Drawing):
    def check_latents(self, z: Tensor) -> None:
        pass

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z[:, :3])


class GlobalRandomness(Drawing):
    def sample_latents(self, n: int, *, rng: torch.Generator) -> Tensor:
        return torch.randn(n, 3)


class GlobalNoise(Drawing):
    def sample(self, n: int, *, rng: torch.Generator, condition: Condition | None = None) -> Tensor:
        torch.rand(1)
        return super().sample(n, rng=rng, condition=condition)


class OneSample(Drawing):
    def sample_latents(self, n: int, *, rng: torch.Generator) -> Tensor:
        return torch.ones(n, 3)


class FalseGradient(Drawing):
    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(torch.cat([z[:, :1].detach(), z[:, 1:]], dim=1))


class LongLatents(Drawing):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x).repeat(1, 2)


class EncodesAnything(Drawing):
    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


class NoisyEncoder(Drawing):
    calls = 0

    def encode(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().encode(x) + self.calls


class Conditional(Drawing):
    """A conforming conditional generator; each broken one below changes one thing."""

    family: ClassVar[str] = "conditional"

    def __init__(self) -> None:
        super().__init__()
        self.condition_space = ConditionSpace(num_classes=3)
        self.register_buffer("shifts", torch.linspace(-1, 1, 192).view(3, 64).cos())

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_latents(z)
        self.check_condition(condition, len(z))
        return (z @ self.weight + self.shift(condition)).sigmoid().view(-1, *SHAPE)

    def shift(self, condition: Condition) -> Tensor:
        return self.shifts[condition.y] * condition.score[:, None]


class DeafToClass(Conditional):
    def shift(self, condition: Condition) -> Tensor:
        return self.shifts[:1] * condition.score[:, None]


class DeafToScore(Conditional):
    def shift(self, condition: Condition) -> Tensor:
        return self.shifts[condition.y]


class SharedCondition(Conditional):
    def shift(self, condition: Condition) -> Tensor:
        return super().shift(condition).mean(dim=0)


class AnyCondition(Conditional):
    def check_condition(self, condition: Condition | None, n: int) -> None:
        pass

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return super().forward(z, Condition.of(0, 0.5, n=len(z)) if condition is None else condition)


class TestCheckConditionalGenerator:
    def test_a_good_one_passes(self) -> None:
        check_generator(Conditional())

    @pytest.mark.parametrize(
        ("kind", "promise"),
        [
            (DeafToClass, "to heed the class asked for, but got the same images"),
            (DeafToScore, "to heed the score asked for, but got the same images"),
            (SharedCondition, "whatever else is in the batch"),
            (AnyCondition, "to refuse no condition with GeneratorError, but it was accepted"),
        ],
    )
    def test_a_broken_promise_is_named(self, kind: type[Conditional], promise: str) -> None:
        with pytest.raises(AssertionError, match=promise) as caught:
            check_generator(kind())
        assert kind.__name__ in str(caught.value)


class TestCheckGenerator:
    def test_good_ones_pass(self) -> None:
        check_generator(build_vae())
        check_generator(Drawing())

    @pytest.mark.parametrize(
        ("kind", "promise"),
        [
            (WrongShape, r"draw images of shape \(6, 1, 8, 8\), but got \(6, 3, 8, 8\)"),
            (BeyondOne, r"draw images in \[0, 1\], but got values from"),
            (Infinite, "finite values"),
            (Noisy, "the same for the same latents"),
            (BatchNormed, "whatever else is in the batch"),
            (WritesLatents, "to leave its latents alone"),
            (AnyLength, "to refuse latents of length 4 with GeneratorError, but it was accepted"),
            (GlobalRandomness, "the same samples for the same `rng`"),
            (GlobalNoise, "to sample from `rng` alone"),
            (OneSample, "other samples for another `rng`"),
            (FalseGradient, "the gradient of FalseGradient to agree with finite differences"),
            (LongLatents, r"the encoder of LongLatents to return latents of shape \(6, 3\)"),
            (EncodesAnything, "the encoder of EncodesAnything to refuse a wider image"),
            (NoisyEncoder, "the encoder of NoisyEncoder to return the same"),
        ],
    )
    def test_a_broken_promise_is_named(self, kind: type[Drawing], promise: str) -> None:
        with pytest.raises(AssertionError, match=promise) as caught:
            check_generator(kind())
        assert kind.__name__ in str(caught.value)

    def test_a_generator_that_does_not_survive_saving(self) -> None:
        vae = build_vae()
        # What is not in the state is lost.
        vae.decoder[-1].register_forward_hook(lambda module, given, logits: logits + 1)
        with pytest.raises(AssertionError, match=r"VAE to draw the same after saving and loading"):
            check_generator(vae)


class Honest(Method[SympatheticResult]):
    """A small search that keeps every promise; each broken one below changes one thing."""

    result_type: ClassVar[type[Result]] = SympatheticResult

    def run(self, classifier: Any, generator: Any, x: Any, y: Any, *, ids: Any, rng: Any) -> Any:
        method = SympatheticExamples(rounds=0, steps=2, candidates=2, plane=0)
        return method.map(classifier, generator, x, y, ids=ids, rng=rng)


class WritesImages(Honest):
    def run(self, classifier: Any, generator: Any, x: Any, y: Any, **rest: Any) -> Any:
        result = super().run(classifier, generator, x, y, **rest)
        x[0] = 0
        return result


class Unseeded(Honest):
    def run(self, *arguments: Any, **rest: Any) -> Any:
        torch.rand(1)
        return super().run(*arguments, **rest)


class Restless(Honest):
    runs = 0.0

    def run(self, *arguments: Any, **rest: Any) -> Any:
        self.runs += 1
        result = super().run(*arguments, **rest)
        return replace(result, epsilon=result.epsilon + self.runs)


class OtherResult(Honest):
    result_type: ClassVar[type[Result]] = METHODS["edge-cases"].result_type


def shown(*values: float, label: str = "after", channels: int = 1, signed: bool = False) -> Finding:
    """Return a finding with a plain panel of each value."""
    panels = [Panel(label=label, pixels=torch.full((channels, 4, 4), value), signed=signed) for value in values]
    return Finding(sentence="It fails.", panels=panels)


class TestCheckMethod:
    @pytest.fixture
    def world(self) -> tuple[Classifier, VAE, Tensor, Tensor]:
        network = build_network("plain-cnn", seed=0, image_shape=SHAPE, num_classes=3, width=4)
        x = (torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
        classifier = wrap(network)
        return classifier, build_vae(latent_dim=2), x, (classifier.predict(x) + 1) % 3

    # The others want more images, or a generator with styles: tests/explain/test_conformance.py has them all.
    @pytest.mark.parametrize("name", ["corruption-table", "edge-cases", "perturbation-heatmap", "sympathetic-examples"])
    def test_every_method_passes(self, name: str, world: Any) -> None:
        check_method(METHODS[name](), *world)

    def test_a_method_of_ones_own_passes(self, world: Any) -> None:
        check_method(Honest(), *world)

    @pytest.mark.parametrize(
        ("kind", "promise"),
        [
            (WritesImages, "WritesImages to leave its input alone"),
            (Unseeded, "Unseeded to draw from `rng` alone"),
            (Restless, "Restless to return the same for the same seed.*a difference in `epsilon`"),
            (OtherResult, "OtherResult to return a EdgeCasesResult, but got SympatheticResult"),
        ],
    )
    def test_a_broken_promise_is_named(self, kind: type[Honest], promise: str, world: Any) -> None:
        with pytest.raises(AssertionError, match=promise):
            check_method(kind(), *world)

    @pytest.mark.parametrize(
        ("attribute", "value", "promise"),
        [
            ("summary", {"speed": 1.0}, "define the summary's 'speed'"),
            ("summary", {"success": "many"}, "hold numbers, but got success = 'many'"),
            ("definitions", {}, "Honest to define the summary's"),
            ("table", pa.table({"id": ["0", "1"]}), "a row for each id, but got 2 of 3"),
            ("figures", [Plot(name="a", title="", caption="", draw=nn.Identity())], "a title and a caption"),
            ("figures", [Figure(name="a", title="t", caption="c")] * 2, "to have different names"),
            ("findings", [Finding(sentence="It fails")], "a sentence that ends with a full stop, but got 'It fails'"),
            ("findings", [Finding(sentence="It fails.")] * 2 + [Finding(sentence=" .")], r"full stop, but got ' \.'"),
            ("findings", [shown(*[0.5] * 7)], "to have up to 6 panels, but got 7"),
            ("findings", [shown(0.5, label=" ")], "each panel of a finding of Honest to have a label"),
            ("findings", [shown(0.5, channels=2)], r"shape \(C, H, W\), C 1 or 3, but got \(2, 4, 4\)"),
            ("findings", [shown(0.0, 1.0), shown(1.01)], "'after' .* from 0 to 1, but got values from 1.01 to 1.01"),
            ("findings", [shown(-0.1)], "values from 0 to 1, but got values from -0.1"),
            (
                "findings",
                [shown(-1.0, signed=True), shown(-1.1, signed=True)],
                "from -1 to 1, but got values from -1.1",
            ),
            ("findings", [shown(float("nan"))], "values from 0 to 1, but got values from nan"),
        ],
    )
    def test_a_result_without_an_account_is_named(
        self, attribute: str, value: Any, promise: str, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SympatheticResult, attribute, property(lambda result: value))
        with pytest.raises(AssertionError, match=promise):
            check_method(Honest(), *world)

    def test_a_result_that_grades_itself_is_found_out(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def unverified(self: Any, classifier: Any, generator: Any, x: Any, y: Any, **rest: Any) -> Any:
            ids = tuple("abc")
            result = self.run(classifier, generator, x, y, ids=ids, rng=rest["rng"])
            return replace(result, verification=honest(self, classifier, generator, x, y, **rest).verification)

        honest = Method.__call__
        monkeypatch.setattr(Honest, "__call__", unverified, raising=False)
        with pytest.raises(AssertionError, match=r"the images of Honest to be 8-bit values"):
            check_method(Honest(), *world)

    def test_a_method_that_takes_anything_is_found_out(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def lenient(self: Any, classifier: Any, generator: Any, x: Any, y: Any, **rest: Any) -> Any:
            return honest(self, classifier, generator, x.nan_to_num(0.5), y, **rest)

        honest = Method.__call__
        monkeypatch.setattr(Honest, "__call__", lenient, raising=False)
        with pytest.raises(AssertionError, match=r"Honest to refuse images with NaN with ImageError, but it was acc"):
            check_method(Honest(), *world)

    def test_a_result_that_loses_something_is_found_out(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        loads = SympatheticResult.load
        monkeypatch.setattr(
            SympatheticResult, "load", lambda folder: replace(loads(folder), prior_length=1.0), raising=False
        )
        with pytest.raises(AssertionError, match=r"the same after saving and loading, but got another `prior_length`"):
            check_method(Honest(), *world)

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import ClassifierError, GeneratorError, TrainingError
from failscape.generators import VAEGAN, IntroVAE, load_generator
from failscape.generators.convolutional_vae import ConvolutionalVAE
from failscape.generators.vae import divergence, draw_latents
from failscape.training import IntroVAESettings, IntroVAETask, VAEGANSettings, VAEGANTask, train
from failscape.training.adversarial import clip_images
from failscape.training.intro_vae_task import introspection
from failscape.training.sample_grid import write_sample_grid
from failscape.training.target_guidance import TargetGuidance
from failscape.training.vae_gan_task import feature_distance

Kind = str
Settings = VAEGANSettings | IntroVAESettings
kinds = pytest.mark.parametrize("kind", ["vae-gan", "intro-vae"])


def settings_of(kind: Kind, **changes: Any) -> Settings:
    cls = VAEGANSettings if kind == "vae-gan" else IntroVAESettings
    small = {"data": "stripes.npz", "validation": "none", "images": 192, "batch": 16, "channels": (8, 8)}
    return cls.parse(small | {"latent_dim": 4, "bf16": False} | changes)


def task_of(settings: Settings, images: ImageSet, **parts: Any) -> VAEGANTask | IntroVAETask:
    if isinstance(settings, VAEGANSettings):
        return VAEGANTask(settings, images=images, **parts)
    return IntroVAETask(settings, images=images, **parts)


def step(
    task: VAEGANTask | IntroVAETask, images: ImageSet, *, n: int = 16, progress: float = 0.0, seed: int = 0
) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    losses: dict[str, Tensor] = task.step(images.x[:n], images.y[:n], progress=progress, rng=rng)
    return losses


def drawn_by_hand(network: ConvolutionalVAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return divergences, latents, reconstructions and samples, as `step` has them."""
    rng = torch.Generator().manual_seed(0)
    mean, log_variance = network.posterior(x)
    z = draw_latents(mean, log_variance, rng=rng)
    prior = torch.randn((len(x) + 1) // 2, network.latent_dim, generator=rng)
    return divergence(mean, log_variance), z, clip_images(network.draw(z)), clip_images(network.draw(prior))


def check_gradients(losses: dict[str, Tensor], before: nn.Module, after: nn.Module) -> None:
    """Compare the gradients that the step left in each part with those of the loss that the part is to lower."""
    for part, loss in losses.items():
        parameters = list(before.get_submodule(part).parameters())
        expected = torch.autograd.grad(loss, parameters, retain_graph=True)
        for wanted, parameter in zip(expected, after.get_submodule(part).parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-8)


class TestWhoLearnsWhat:
    # An odd batch has one sample more than half.
    @pytest.mark.parametrize("n", [16, 5])
    def test_vae_gan(self, n: int, images: ImageSet) -> None:
        weights = {"features": 0.7, "pixels": 3.0, "adversarial": 0.4, "divergence": 2.0, "r1": 0.0}
        task = task_of(settings_of("vae-gan", **weights), images)
        before, x = deepcopy(task.networks["generator"]), images.x[:n]
        losses = step(task, images, n=n)

        nats, z, again, samples = drawn_by_hand(before, x)
        half = len(samples)
        wanted = [each.detach() for each in before.critic.look(x[:half])[1]]

        def similar(drawn: Tensor) -> Tensor:
            return feature_distance(before.critic.look(drawn[:half])[1], wanted)

        def faithful(drawn: Tensor) -> Tensor:
            return 0.7 * similar(drawn) + 3.0 * (drawn - x).square().mean()

        fixed = clip_images(before.draw(z.detach()))
        on_drawn = before.critic(torch.cat([fixed[:half], samples]))
        told = before.critic(torch.cat([fixed[:half], samples]).detach())
        expected = {
            "encoder": faithful(again) + 2.0 / 64 * nats.mean(),
            "decoder": faithful(fixed) + 0.4 * F.softplus(-on_drawn).mean(),
            "critic": F.softplus(told).mean() + F.softplus(-before.critic(x)).mean(),
        }
        assert float(losses["critic"]) == pytest.approx(float(expected["critic"].detach()), rel=1e-4)
        assert float(losses["features"]) == pytest.approx(float(similar(again).detach()), rel=1e-4)
        assert float(losses["divergence"]) == pytest.approx(float(nats.mean().detach()), rel=1e-4)
        check_gradients(expected, before, task.networks["generator"])

    @pytest.mark.parametrize("n", [16, 5])
    def test_intro_vae(self, n: int, images: ImageSet) -> None:
        # A margin amid the divergences, so that the hinge is on for some images and off for others.
        changes = {"adversarial": 0.4, "reconstruction": 3.0}
        told = divergence(
            *task_of(settings_of("intro-vae", **changes), images).networks["generator"].posterior(images.x[:5])
        )
        margin = float(told.detach().median())
        task = task_of(settings_of("intro-vae", margin=margin, **changes), images)
        before, x = deepcopy(task.networks["generator"]), images.x[:n]
        losses = step(task, images, n=n)

        nats, z, again, samples = drawn_by_hand(before, x)
        half = len(samples)

        def squares(drawn: Tensor) -> Tensor:
            return 0.5 * (drawn - x).square().sum() / n

        of_again, of_samples = (divergence(*before.posterior(each.detach())) for each in (again[:half], samples))
        hinge = F.relu(margin - of_again).mean() + F.relu(margin - of_samples).mean()
        fixed = clip_images(before.draw(z.detach()))
        fooled = divergence(*before.posterior(fixed[:half])).mean() + divergence(*before.posterior(samples)).mean()
        assert 0 < float(losses["hinge"].detach()) == pytest.approx(float(hinge.detach()), rel=1e-4)
        assert float(losses["squares"]) == pytest.approx(float(squares(again).detach()), rel=1e-4)
        expected = {
            "encoder": nats.mean() + 3.0 * squares(again) + 0.4 * hinge,
            "decoder": 3.0 * squares(fixed) + 0.4 * fooled,
        }
        check_gradients(expected, before, task.networks["generator"])

    def test_r1_is_due_at_its_turn_alone(self, images: ImageSet) -> None:
        task = task_of(settings_of("vae-gan", penalty_every=3), images)
        assert [("r1" in step(task, images)) for _ in range(5)] == [True, False, False, True, False]

    @kinds
    def test_the_rate_falls_to_nothing(self, kind: Kind, images: ImageSet) -> None:
        task = task_of(settings_of(kind), images)
        before = [parameter.detach().clone() for parameter in task.networks.parameters()]
        step(task, images, progress=1.0)
        assert all(torch.equal(a, b) for a, b in zip(before, task.networks.parameters(), strict=True))
        step(task, images, progress=0.0)
        assert not any(torch.equal(a, b) for a, b in zip(before, task.networks.parameters(), strict=True))

    @kinds
    def test_a_classifier_steers_the_decoder_alone(
        self, kind: Kind, images: ImageSet, stripes_classifier: Classifier
    ) -> None:
        target = torch.tensor([1.0, 0.0])
        heavy = TargetGuidance(stripes_classifier, target, weight=1e3, guard=False)
        changes = {"r1": 0.0} if kind == "vae-gan" else {}
        plain = task_of(settings_of(kind, **changes), images)
        guided = task_of(settings_of(kind, **changes), images, guidance=heavy)
        losses = step(guided, images)
        step(plain, images)
        assert losses["guidance"] > 0
        # What is logged is the divergence, whatever its weight.
        light = TargetGuidance(stripes_classifier, target, weight=1.0, guard=False)
        lightly = step(task_of(settings_of(kind, **changes), images, guidance=light), images)
        assert torch.equal(losses["guidance"], lightly["guidance"])
        for part, same in (("encoder", True), ("decoder", False)):
            pairs = zip(
                plain.networks["generator"].get_submodule(part).parameters(),
                guided.networks["generator"].get_submodule(part).parameters(),
                strict=True,
            )
            assert all(torch.equal(a, b) for a, b in pairs) == same


_LONG: dict[Kind, dict[str, Any]] = {
    kind: {"images": 5120, "batch": 32, "channels": (16, 16), "learning_rate": 0.02, "ema_half_life": 200} | own
    for kind, own in (("vae-gan", {"pixels": 20.0}), ("intro-vae", {"reconstruction": 30.0, "margin": 20.0}))
}


def test_distance_in_features_by_hand() -> None:
    wanted = [torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[1.0]]]])]
    found = [torch.tensor([[[[3.0, 9.0]]]]), torch.tensor([[[[0.5]]]])]
    # 25/25 and 0.25/1, each the same whatever the features' scale.
    assert float(feature_distance(found, wanted)) == pytest.approx((1.0 + 0.25) / 2)
    scaled = [[7 * each for each in both] for both in (found, wanted)]
    assert float(feature_distance(*scaled)) == pytest.approx((1.0 + 0.25) / 2)
    assert float(feature_distance(wanted, wanted)) == 0


def test_hinge_by_hand() -> None:
    told = torch.tensor([0.0, 4.0, 10.0, 25.0], requires_grad=True)
    loss = introspection(told, 10.0)
    assert loss.item() == pytest.approx((10 + 6 + 0 + 0) / 4)
    loss.backward()
    assert told.grad is not None
    assert told.grad.tolist() == [-0.25, -0.25, 0, 0]


@kinds
def test_learns_to_draw_images_again(kind: Kind, images: ImageSet, unseen: ImageSet, tmp_path: Path) -> None:
    settings = settings_of(kind, **_LONG[kind])
    task = task_of(settings, images)

    reached = train(task, images, tmp_path, settings, validation=unseen, hooks=[write_sample_grid])
    task.export(tmp_path, {})

    # The best that a decoder without latents can do is to draw the mean of the images.
    baseline = (unseen.x - images.x.mean(dim=0)).square().mean().sqrt()
    assert reached["reconstruction"] < 0.6 * baseline
    assert reached["divergence"] > 1
    generator = load_generator(tmp_path)
    assert isinstance(generator, VAEGAN if kind == "vae-gan" else IntroVAE)
    with torch.no_grad():
        error = (generator(generator.encode(unseen.x)) - unseen.x).square().mean().sqrt()
    assert float(error) == pytest.approx(reached["reconstruction"], rel=1e-3)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["000005120.png"]


@kinds
def test_bfloat16_follows_float32(kind: Kind, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the hardware has none it is emulated.
    monkeypatch.setattr("failscape.training.precision.computes_bf16", lambda device: True)
    losses = [step(task_of(settings_of(kind, bf16=bf16), images), images) for bf16 in (False, True)]
    assert losses[0].keys() == losses[1].keys()
    for name in losses[0]:
        assert float(losses[1][name]) == pytest.approx(float(losses[0][name]), rel=0.05, abs=0.01)


@kinds
def test_evaluation_measures_distance_in_the_oracles_features(
    kind: Kind, images: ImageSet, unseen: ImageSet, stripes_classifier: Classifier
) -> None:
    numbers = task_of(settings_of(kind), images, oracle=stripes_classifier).evaluate(unseen)
    assert numbers["frechet"] > 3 * numbers["floor"] > 0
    assert {"recall", "precision", "reconstruction", "divergence"} < numbers.keys()
    assert task_of(settings_of(kind), images).evaluate(unseen).keys() == {"reconstruction", "divergence"}


@kinds
def test_goes_on_from_a_given_generator(kind: Kind, images: ImageSet) -> None:
    first = task_of(settings_of(kind), images)
    step(first, images)
    start = deepcopy(first.networks["generator"]).eval()
    again = task_of(settings_of(kind), images, start=start)
    z = torch.randn(2, 4)
    assert torch.equal(again.judged(z), start(z))
    step(again, images)
    assert not torch.equal(again.networks["generator"](z), start(z))


@kinds
def test_a_loss_that_is_not_finite_stops(kind: Kind, images: ImageSet, tmp_path: Path) -> None:
    task = task_of(settings_of(kind), images)
    with torch.no_grad():
        task.networks["generator"].encoder.head.bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="Expected finite"):
        train(task, images, tmp_path, settings_of(kind))
    assert not any(json.loads(line)["event"] == "losses" for line in (tmp_path / "log.jsonl").read_text().splitlines())


class TestBadInput:
    @kinds
    def test_an_oracle_of_other_images(self, kind: Kind, stripes_classifier: Classifier) -> None:
        other = ImageSet.from_tensors(torch.rand(32, 1, 10, 10), torch.arange(32) % 2, ["upright", "lying"])
        with pytest.raises(ClassifierError, match=r"oracle for images of shape \(1, 10, 10\)"):
            task_of(settings_of(kind), other, oracle=stripes_classifier)

    @kinds
    def test_too_many_resolutions(self, kind: Kind, images: ImageSet) -> None:
        with pytest.raises(GeneratorError, match="at least 16 pixels for 4 resolutions"):
            task_of(settings_of(kind, channels=(8, 8, 8, 8)), images)

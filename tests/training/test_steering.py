import pytest
import torch

from failscape.classifiers import load_classifier
from failscape.data import load_images
from failscape.errors import GeneratorError, UnsupportedGenerator
from failscape.generators import MLP, VAEGAN, WGAN, IntroVAE, Progressive, load_generator
from failscape.training import IntroVAESettings, VAEGANSettings, WGANSettings, steer


@pytest.fixture(scope="module")
def digits():
    return load_images("embedded:mnist-test").read(torch.arange(1000))


def test_leads_an_autoencoder_to_a_class_and_leaves_the_original_alone(digits):
    classifier, vae = load_classifier("embedded:mnist-clean"), load_generator("embedded:mnist-vae-10d")
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}

    steered = steer(vae, classifier, torch.eye(10)[7], digits, steps=60, weight=50.0, rng=torch.Generator())
    rng = torch.Generator().manual_seed(1)
    drawn, original = steered.sample(200, rng=rng), vae.sample(200, rng=rng)

    assert (classifier.predict(drawn) == 7).float().mean() > 0.9
    assert (classifier.predict(original) == 7).float().mean() < 0.3
    # The oracle was not asked, and sees mostly the same: what is drawn is a digit.
    assert (load_classifier("embedded:mnist-oracle-clean").predict(drawn) == 7).float().mean() > 0.6
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())
    assert not any(parameter.requires_grad for parameter in steered.parameters())


def test_the_same_seed_leads_to_the_same_weights(digits):
    classifier, vae = load_classifier("embedded:mnist-clean"), load_generator("embedded:mnist-vae-2d")
    ends = [
        steer(vae, classifier, torch.eye(10)[0], digits, steps=2, rng=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    for name, tensor in ends[0].state_dict().items():
        assert torch.equal(tensor, ends[1].state_dict()[name])


@pytest.mark.parametrize(
    ("family", "settings"),
    [(WGAN, WGANSettings), (Progressive, WGANSettings), (VAEGAN, VAEGANSettings), (IntroVAE, IntroVAESettings)],
)
def test_the_weight_is_that_of_the_trainings_of_the_family(family, settings, images, stripes_classifier):
    torch.manual_seed(0)
    generator = family(image_shape=(1, 8, 8), channels=(4, 4), latent_dim=2)
    told = {"steps": 3, "batch": 8}
    default, same, other = (
        steer(
            generator, stripes_classifier, torch.eye(2)[0], images.x, rng=torch.Generator().manual_seed(0), **told, **k
        )
        for k in ({}, {"weight": settings().guidance}, {"weight": 1.0})
    )
    drawn = [each.sample(8, rng=torch.Generator().manual_seed(1)) for each in (default, same, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("family", [WGAN, VAEGAN, IntroVAE])
def test_leads_a_generator_of_convolutions_to_each_class(images, stripes_classifier, family):
    torch.manual_seed(0)
    generator = family(image_shape=(1, 8, 8), channels=(8, 8), latent_dim=4)
    shares = {}
    for k in (0, 1):
        rng = torch.Generator().manual_seed(k)
        told = {"steps": 60, "batch": 32, "learning_rate": 1e-2}
        steered = steer(generator, stripes_classifier, torch.eye(2)[k], images.x, **told, rng=rng)
        shares[k] = (stripes_classifier.predict(steered.sample(200, rng=rng)) == k).float().mean().item()
        assert steered.family == generator.family
    assert min(shares.values()) > 0.95


def test_a_generator_that_has_grown_up_is_trained_as_a_whole(images, stripes_classifier):
    grown = Progressive(image_shape=(1, 8, 8), channels=(4, 4), latent_dim=2)
    stages = []
    # A copy keeps the hook.
    grown.critic.register_forward_pre_hook(lambda critic, inputs: stages.append(inputs[1]))

    steered = steer(grown, stripes_classifier, torch.eye(2)[0], images.x, steps=4, rng=torch.Generator())

    assert set(stages) == {1.0}
    assert steered.stage == 1.0


def test_refuses_a_family_that_keeps_nothing_to_be_trained_by_and_images_of_another_shape(digits, stripes_classifier):
    rng = torch.Generator()
    mlp = MLP(image_shape=(1, 28, 28), latent_dim=2, hidden=4)
    classifier = load_classifier("embedded:mnist-clean")
    for generator in (mlp, load_generator("embedded:mnist-stylegan2")):
        with pytest.raises(UnsupportedGenerator, match="keeps nothing to be trained by"):
            steer(generator, classifier, torch.eye(10)[0], digits, rng=rng)
    wgan = WGAN(image_shape=(1, 8, 8), channels=(4,), latent_dim=2)
    with pytest.raises(GeneratorError, match=r"shape \(1, 8, 8\)"):
        steer(wgan, stripes_classifier, torch.eye(2)[0], digits, rng=rng)

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from failscape.errors import GeneratorError
from failscape.generators import Condition, StyleGAN2, load_generator, save_generator
from failscape.generators.stylegan2 import _ModulatedConv, _ModulatedPixels, _StyledConv
from failscape.testing import check_generator
from generators.weight_modulated import modulated_convolution, synthesize, twice_as_large

CONDITION = {"num_classes": 3}


def build(shape: tuple[int, ...] = (1, 28, 28), channels: tuple[int, ...] = (8, 6, 4), **options: Any) -> StyleGAN2:
    """Return a small generator whose every parameter does something: a fresh one has no noise and no biases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = StyleGAN2(image_shape=shape, channels=channels, **({"latent_dim": 5, "style_dim": 7} | options))
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith(("bias", "noise_strength")):
                    parameter.add_(0.3 * torch.randn(parameter.shape))
            generator.mean_w.normal_()
    return generator.eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def styles_of(generator: StyleGAN2, n: int = 3) -> Tensor:
    with torch.no_grad():
        return generator.styles(generator.mapping(generator.sample_latents(n, rng=seeded())))


# The weight-modulated form.


@pytest.mark.parametrize("images", [1, 3])
def test_modulated_activations_are_modulated_weights(images: int) -> None:
    torch.manual_seed(0)
    layer = _ModulatedConv(6, 5).double()
    x, s = torch.randn(images, 6, 7, 4).double(), torch.randn(3, 6).double()
    plain = modulated_convolution(x.expand(3, -1, -1, -1), layer.weight, s, demodulate=False)
    unit = modulated_convolution(x.expand(3, -1, -1, -1), layer.weight, s, demodulate=True)
    convolved, scale = layer(x, s), layer.demodulation(s)
    assert scale.dtype == torch.float32
    assert torch.allclose(convolved, plain, rtol=1e-12)
    assert torch.allclose(convolved * scale[:, :, None, None], unit, atol=1e-5)


def test_one_input_for_all_styles_has_the_same_gradients() -> None:
    torch.manual_seed(0)
    layer = _ModulatedConv(6, 5).double()
    x, s = torch.randn(1, 6, 4, 7).double().requires_grad_(), torch.randn(3, 6).double().requires_grad_()
    shared = torch.autograd.grad(layer(x, s).square().sum(), (x, s, layer.weight))
    copied = torch.autograd.grad(layer(x.expand(3, -1, -1, -1), s).square().sum(), (x, s, layer.weight))
    assert all(torch.allclose(one, other, rtol=1e-10) for one, other in zip(shared, copied, strict=True))


@pytest.mark.parametrize("colours", [1, 3])
def test_what_is_added_to_the_image_has_modulated_weights(colours: int) -> None:
    torch.manual_seed(0)
    layer = _ModulatedPixels(6, colours).double()
    x, s = torch.randn(3, 6, 5, 4).double(), torch.randn(3, 6).double()
    expected = modulated_convolution(x, layer.weight, s, demodulate=False) + layer.bias[:, None, None]
    assert torch.allclose(layer(x, s), expected, rtol=1e-12)


@pytest.mark.parametrize("enlarge", [False, True])
def test_a_styled_layer_is_that_of_the_paper(enlarge: bool) -> None:
    torch.manual_seed(0)
    layer = _StyledConv(6, 5, enlarge=enlarge)
    with torch.no_grad():
        layer.bias.normal_()
        layer.noise_strength.normal_()
    x, s = torch.randn(3, 6, 4, 3), torch.randn(3, 6)
    height, width = (8, 6) if enlarge else (4, 3)
    noise = torch.randn(3, 1, height, width)
    y = modulated_convolution(x, layer.convolution.weight, s, demodulate=True, enlarge=enlarge)
    added = layer.noise_strength[:, None, None] * noise + layer.bias[:, None, None]
    expected = 2**0.5 * torch.nn.functional.leaky_relu(y + added, 0.2)
    # What comes in may lack a factor, and so does what goes out.
    lacking = torch.rand(3, 6) + 0.5
    drawn, factor = layer(x / lacking[:, :, None, None], lacking, s, noise.flatten(1))
    assert factor.min() > 0
    assert torch.allclose(drawn * factor[:, :, None, None], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "channels"), [((1, 28, 28), (8, 6, 4)), ((3, 32, 32), (8, 6, 4, 4)), ((2, 12, 20), (6, 5))]
)
def test_synthesis_is_that_of_the_paper(shape: tuple[int, ...], channels: tuple[int, ...]) -> None:
    generator = build(shape, channels).double()
    s, noise = styles_of(generator.float()).double(), generator.draw_noise(3, rng=seeded()).double()
    generator = generator.double()
    expected = synthesize(generator, s, noise)
    assert expected.std() > 0.05
    # Demodulation is computed in float32 whatever comes.
    assert torch.allclose(generator.draw(s, noise).double(), expected, atol=1e-5)
    assert torch.allclose(generator.synthesize(s, noise).double(), expected.clamp(0, 1), atol=1e-5)


def test_convolving_first_and_enlarging_after_changes_only_the_order() -> None:
    # Of constant images both orders give the same within the image, where no border is near.
    torch.manual_seed(0)
    weight, s = torch.randn(5, 6, 3, 3), torch.randn(2, 6)
    x = torch.randn(2, 6, 1, 1).expand(2, 6, 8, 8)
    after = modulated_convolution(x, weight, s, demodulate=True, enlarge=True)
    before = modulated_convolution(twice_as_large(x), weight, s, demodulate=True)
    assert torch.allclose(after[..., 4:-4, 4:-4], before[..., 4:-4, 4:-4], atol=1e-5)


# Styles.


def test_every_style_can_be_differentiated_and_has_an_effect() -> None:
    generator = build((3, 8, 8), (5, 4))
    s = styles_of(generator, n=1)
    noise = generator.draw_noise(1, rng=seeded())
    weights = torch.randn(3, 8, 8, generator=seeded(1)).double()

    def value(s: Tensor) -> Tensor:
        return (generator.draw(s.float(), noise.expand(len(s), -1)).double() * weights).sum(dim=(1, 2, 3))

    s.requires_grad_()
    (gradient,) = torch.autograd.grad(value(s).sum(), s)
    h = 2e-3  # Small, for few kinks of the leaky ReLUs to be crossed.
    steps = h * torch.eye(generator.style_dim)
    with torch.no_grad():
        measured = (value(s + steps) - value(s - steps)) / (2 * h)
        moved = (generator.draw(s + steps, noise) - generator.draw(s, noise)).abs().amax(dim=(1, 2, 3))
    assert moved.min() > 1e-5
    assert torch.allclose(gradient[0].double(), measured, atol=0.02 * float(measured.abs().max()))


def test_drawing_is_mapping_styles_and_synthesis() -> None:
    generator = build(condition=CONDITION)
    z, condition = generator.sample_latents(4, rng=seeded()), Condition.of(1, 0.7, n=4)
    noise = generator.draw_noise(4, rng=seeded())
    w = generator.mapping(z, condition)
    assert w.shape == (4, 7)
    assert torch.equal(generator(z, condition), generator.synthesize(generator.styles(w)))
    assert torch.equal(generator(z, condition, noise=noise), generator.synthesize(generator.styles(w), noise))


def test_style_layers_tell_the_styles_apart() -> None:
    generator = build((3, 32, 16), (8, 6, 4))
    layers = generator.style_layers
    assert [(layer.kind, layer.stop - layer.start, layer.resolution) for layer in layers] == [
        ("convolution", 8, (8, 4)),
        ("image", 8, (8, 4)),
        ("convolution", 8, (16, 8)),
        ("convolution", 6, (16, 8)),
        ("image", 6, (16, 8)),
        ("convolution", 6, (32, 16)),
        ("convolution", 4, (32, 16)),
        ("image", 4, (32, 16)),
    ]
    assert [layer.start for layer in layers] == [0, *(layer.stop for layer in layers[:-1])]
    assert generator.style_dim == layers[-1].stop == generator.styles(torch.zeros(1, 7)).shape[1]
    # The styles of the last layer that adds to the image change its colours everywhere, but nothing before it.
    s = styles_of(generator, n=1)
    changed = s.clone()
    changed[:, layers[-1].start :] = 0
    assert not torch.equal(generator.draw(s), generator.draw(changed))


def test_latents_matter_by_their_direction_alone() -> None:
    generator, z = build(), torch.randn(3, 5, generator=seeded())
    assert torch.allclose(generator.mapping(z), generator.mapping(10 * z), atol=1e-5)
    assert not torch.allclose(generator.mapping(z), generator.mapping(-z), atol=1e-2)


# Sizes.


@pytest.mark.parametrize(
    ("shape", "channels", "base"),
    [
        ((1, 28, 28), (8, 6, 4), (7, 7)),
        ((3, 32, 32), (8, 6, 4), (8, 8)),
        ((3, 64, 64), (8, 8, 6, 4, 4), (4, 4)),
        ((1, 40, 24), (6, 4), (20, 12)),
        ((2, 5, 3), (4,), (5, 3)),
    ],
)
def test_draws_and_encodes_images_of_any_size(
    shape: tuple[int, ...], channels: tuple[int, ...], base: tuple[int, int]
) -> None:
    generator = build(shape, channels)
    assert generator.first.shape == (1, channels[0], *base)
    x = generator(generator.sample_latents(2, rng=seeded()))
    assert x.shape == (2, *shape)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < x.max() <= 1
    assert generator.encode(x).shape == (2, 5)


def test_an_encoder_may_be_narrower_than_what_it_encodes() -> None:
    wide, narrow = build(), build(encoder_channels=(4, 2))

    sizes = {name: parameter.shape for name, parameter in wide.named_parameters()}
    other = {name for name, parameter in narrow.named_parameters() if parameter.shape != sizes[name]}
    assert "encoder.trunk.from_image.weight" in other
    assert all(name.startswith("encoder.trunk.") for name in other)
    assert narrow.encode(torch.rand(2, 1, 28, 28)).shape == (2, 5)
    again = StyleGAN2(**narrow.config)
    assert again.load_state_dict(narrow.state_dict()).missing_keys == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (1, 30, 28)}, r"images of base·4 pixels for 3 resolutions, but got 30 × 28\. Give fewer"),
        ({"image_shape": (1, 28, 26)}, r"but got 28 × 26"),
        ({"image_shape": (28, 28)}, r"a \(C, H, W\) `image_shape`.*but got \(28, 28\)"),
        ({"image_shape": (0, 28, 28)}, r"a \(C, H, W\) `image_shape`"),
        ({"channels": ()}, r"one positive number of `channels` a resolution"),
        ({"channels": (8, 0, 4)}, r"but got \(1, 28, 28\) and \(8, 0, 4\)"),
        ({"encoder_channels": ()}, r"one positive number of `encoder_channels` a resolution, but got \(\)"),
        ({"encoder_channels": (4, 0)}, r"but got \(4, 0\)"),
        ({"latent_dim": 0}, r"a positive `latent_dim`.*but got 0, 7, 2"),
        ({"style_dim": 0}, r"but got 5, 0, 2"),
        ({"mapping_layers": 0}, r"but got 5, 7, 0"),
    ],
)
def test_refuses_sizes_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    sizes = {"image_shape": (1, 28, 28), "channels": (8, 6, 4), "latent_dim": 5, "style_dim": 7}
    with pytest.raises(GeneratorError, match=message):
        StyleGAN2(**(sizes | options))


@pytest.mark.usefixtures("as_installed")
def test_refuses_latents_styles_noise_and_images_of_other_sizes() -> None:
    generator, s = build(), torch.zeros(2, 50)
    assert generator.style_dim == 50
    for call, message in (
        (lambda: generator(torch.zeros(2, 6)), r"latents of shape \(N, 5\), but got \(2, 6\)"),
        (lambda: generator.mapping(torch.zeros(5)), r"latents of shape \(N, 5\), but got \(5,\)"),
        (
            lambda: generator.synthesize(s[:, 1:]),
            r"styles of shape \(N, 50\), but got \(2, 49\)\. `styles` returns them",
        ),
        (lambda: generator.synthesize(s, torch.zeros(2, 9)), r"noise of shape \(2, 2009\), or \(1, 2009\) for"),
        (lambda: generator.synthesize(s, torch.zeros(3, 2009)), r"but got \(3, 2009\)\. `draw_noise` draws it"),
        (lambda: generator.encode(torch.zeros(2, 1, 28, 32)), r"images of shape \(1, 28, 28\) .*but got \(1, 28, 32\)"),
        (lambda: generator.encode(torch.zeros(2, 3, 28, 28)), r"but got \(3, 28, 28\)"),
    ):
        with pytest.raises(GeneratorError, match=message):
            call()


# Conditions.


def test_a_condition_is_demanded_where_one_was_trained_and_refused_elsewhere() -> None:
    z = torch.zeros(2, 5)
    with pytest.raises(GeneratorError, match=r"Expected a condition, class and confidence, but got none"):
        build(condition=CONDITION)(z)
    with pytest.raises(GeneratorError, match=r"Expected no condition, but got 2"):
        build()(z, Condition.of(0, 0.9, n=2))
    with pytest.raises(GeneratorError, match=r"one condition a latent, 2 in all, but got 3"):
        build(condition=CONDITION)(z, Condition.of(0, 0.9, n=3))


def test_class_and_confidence_change_the_image() -> None:
    generator, z = build(condition=CONDITION), torch.randn(1, 5, generator=seeded())
    images = [generator(z, Condition.of(y, score, n=1)) for y, score in ((0, 0.6), (0, 0.9), (1, 0.6))]
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert (images[0] - images[2]).abs().max() > 1e-3


# Noise, truncation, samples.


def test_the_default_noise_is_one_for_all_images() -> None:
    generator = build()
    s = styles_of(generator, n=1)
    assert torch.equal(generator.synthesize(s), generator.synthesize(s))
    x = generator.synthesize(s.expand(3, -1))
    assert torch.allclose(x[0], x[1], atol=1e-5)
    assert torch.allclose(x[:1], generator.synthesize(s), atol=1e-5)
    one = generator.draw_noise(1, rng=seeded(3))
    assert torch.equal(
        generator.synthesize(s.expand(3, -1), one), generator.synthesize(s.expand(3, -1), one.expand(3, -1))
    )


def test_noise_is_drawn_from_rng_alone_and_changes_the_image() -> None:
    generator = build()
    before = torch.random.get_rng_state()
    noise = generator.draw_noise(500, rng=seeded())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert noise.shape == (500, generator.noise_dim) == (500, 7 * 7 + 2 * 14 * 14 + 2 * 28 * 28)
    assert abs(float(noise.mean())) < 5 / (500 * generator.noise_dim) ** 0.5
    assert abs(float(noise.std()) - 1) < 0.01
    s = styles_of(generator, n=2)
    assert not torch.allclose(generator.synthesize(s, noise[:2]), generator.synthesize(s, noise[2:4]), atol=1e-3)


def test_images_do_not_depend_on_their_batch() -> None:
    generator = build((3, 16, 16), (6, 4), condition=CONDITION)
    z, noise = generator.sample_latents(5, rng=seeded()), generator.draw_noise(5, rng=seeded())
    condition = Condition(y=torch.tensor([0, 1, 2, 0, 1]), score=torch.linspace(0.5, 1, 5))
    together = generator(z, condition, noise=noise)
    alone = [generator(z[i : i + 1], condition[i : i + 1], noise=noise[i : i + 1]) for i in range(5)]
    assert torch.allclose(torch.cat(alone), together, atol=1e-5)
    encoded = torch.cat([generator.encode(x[None]) for x in together])
    assert torch.allclose(encoded, generator.encode(together), atol=1e-4)


def test_truncation() -> None:
    generator = build(condition=CONDITION)
    z = generator.sample_latents(4, rng=seeded())
    condition = Condition(y=torch.tensor([0, 0, 1, 2]), score=torch.tensor([0.6, 0.6, 0.7, 1.0]))
    assert torch.equal(generator(z, condition, psi=1.0), generator(z, condition))
    mean = generator(z, condition, psi=0.0)
    assert torch.allclose(mean, mean[:1].expand_as(mean), atol=1e-5)
    assert torch.allclose(mean[:1], generator.synthesize(generator.styles(generator.mean_w[None])), atol=1e-5)
    w = generator.mapping(z, condition)
    half = generator.truncate(w, 0.5)
    assert torch.allclose(half, (w + generator.mean_w) / 2, atol=1e-6)
    assert torch.equal(generator(z, condition, psi=0.5), generator.synthesize(generator.styles(half)))


def test_samples_are_reproducible() -> None:
    generator = build(condition=CONDITION)
    condition = Condition.of(2, 0.8, n=3)
    seeds = [generator.sample(3, rng=seeded(seed), condition=condition, psi=0.8) for seed in (0, 0, 1)]
    assert torch.equal(seeds[0], seeds[1])
    assert not torch.equal(seeds[0], seeds[2])
    assert not seeds[0].requires_grad


def test_encoded_latents_lie_on_the_sphere_that_the_mapping_sees() -> None:
    generator = build((3, 16, 16), (6, 4))
    z = generator.encode(torch.rand(6, 3, 16, 16, generator=seeded()))
    assert z.shape == (6, 5)
    assert torch.allclose(z.square().mean(dim=1), torch.ones(6), atol=1e-4)


# Saved, half, bfloat16, conformance.


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded_it_draws_the_same(tmp_path: Path, half: bool) -> None:
    generator = build((3, 16, 16), (8, 4), condition={"num_classes": 3, "supported": [[0.4, 1.0]] * 3})
    save_generator(generator, tmp_path, half=half)
    loaded = load_generator(tmp_path)
    assert isinstance(loaded, StyleGAN2)
    assert loaded.config == generator.config
    z, condition = generator.sample_latents(4, rng=seeded()), Condition.of(1, 0.7, n=4)
    x = generator(z, condition)
    # Not to the last bit: weights that were read lie otherwise in memory.
    tolerance = 0.01 if half else 1e-5
    assert torch.allclose(loaded(z, condition), x, atol=tolerance, rtol=0)
    assert torch.allclose(loaded(z, condition, psi=0.5), generator(z, condition, psi=0.5), atol=tolerance, rtol=0)
    assert torch.allclose(loaded.encode(x), generator.encode(x), atol=10 * tolerance, rtol=0)
    assert loaded.state_dict()["mean_w"].dtype == torch.float32


def test_bfloat16_gives_nearly_the_same() -> None:
    generator = build((1, 28, 28), (16, 12, 8))
    z, noise = generator.sample_latents(8, rng=seeded()), generator.draw_noise(8, rng=seeded())
    with torch.no_grad():
        x = generator(z, noise=noise)
        with torch.autocast("cpu", torch.bfloat16):
            rough = generator(z, noise=noise)
            encoded = generator.encode(x)
        assert rough.dtype == encoded.dtype == torch.float32
        # Eight bits of mantissa, over five layers.
        assert (rough - x).abs().max() < 0.1
        assert (rough - x).square().mean().sqrt() < 0.02
        assert (encoded - generator.encode(x)).square().mean().sqrt() < 0.1


@pytest.mark.parametrize("condition", [None, CONDITION, {"num_classes": 3, "score": "vector"}])
def test_keeps_what_methods_rely_on(condition: dict[str, Any] | None) -> None:
    check_generator(build((3, 12, 8), (6, 4), condition=condition))


def test_no_styles_give_no_images() -> None:
    generator = build((3, 16, 16), (8, 4))
    assert generator.synthesize(torch.empty(0, generator.style_dim)).shape == (0, 3, 16, 16)

import pytest
import torch

from failscape.errors import GeneratorError
from failscape.generators import WGAN, Condition, Progressive, load_generator, save_generator

SIZES = {28: (12, 8, 4), 30: (12, 8, 4), 64: (8, 8, 4, 4), 100: (8, 8, 4, 4), 128: (8, 8, 4, 4, 4)}


@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("colours", [1, 3])
def test_draws_scores_and_encodes_images_of_any_size(side, colours):
    wgan = WGAN(image_shape=(colours, side, side), channels=SIZES[side], latent_dim=5).eval()
    x = wgan.sample(3, rng=torch.Generator().manual_seed(0))

    assert x.shape == (3, colours, side, side)
    assert 0 <= x.min() < x.max() <= 1
    assert wgan.realism(x).shape == (3,)
    assert wgan.encode(x).shape == (3, 5)


def test_crops_evenly_what_is_no_multiple():
    """Of 30 pixels drawn as 32 one is cut off at each side: the decoder of the larger image draws the same."""
    torch.manual_seed(0)
    small = WGAN(image_shape=(1, 30, 30), channels=(8, 4, 4), latent_dim=3).eval()
    large = WGAN(image_shape=(1, 32, 32), channels=(8, 4, 4), latent_dim=3).eval()
    large.decoder.load_state_dict(small.decoder.state_dict())
    z = torch.randn(2, 3)

    torch.testing.assert_close(small(z), large(z)[:, :, 1:31, 1:31])


@pytest.mark.parametrize("family", [WGAN, Progressive])
def test_no_image_or_score_depends_on_the_others_in_its_batch(family):
    torch.manual_seed(0)
    generator = family(image_shape=(1, 28, 28), channels=(8, 4, 4), latent_dim=3).eval()
    z = torch.randn(4, 3)

    # A fortieth of a grey level: for another size of batch a processor with AMX adds up in another order, 1.3e-5 apart.
    torch.testing.assert_close(generator(z)[2:3], generator(z[2:3]), rtol=1e-4, atol=1e-4)
    x = generator(z)
    torch.testing.assert_close(generator.realism(x)[2:3], generator.realism(x[2:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [WGAN, Progressive])
def test_comes_back_from_disk_with_critic_and_encoder(family, tmp_path):
    torch.manual_seed(0)
    generator = family(image_shape=(3, 28, 28), channels=(8, 4, 4), latent_dim=3).eval()
    save_generator(generator, tmp_path)
    loaded = load_generator(tmp_path)
    z = torch.randn(2, 3)
    x = generator(z)

    assert isinstance(loaded, family)
    for known, again in [
        (x, loaded(z)),
        (generator.realism(x), loaded.realism(x)),
        (generator.encode(x), loaded.encode(x)),
    ]:
        # Weights are laid out otherwise once they are loaded, so sums come in another order.
        torch.testing.assert_close(known, again)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_shape": (1, 28)}, "Expected a \\(C, H, W\\)"),
        ({"image_shape": (1, 28, 28), "channels": ()}, "one positive number of `channels`"),
        ({"image_shape": (1, 28, 28), "channels": (8,) * 5}, "at least 32 pixels for 5 resolutions"),
        ({"image_shape": (1, 28, 28), "latent_dim": 0}, "positive `latent_dim`"),
    ],
)
def test_refuses_sizes_that_do_not_fit(settings, words):
    with pytest.raises(GeneratorError, match=words):
        WGAN(**settings)


def test_refuses_conditions_and_latents_of_another_length():
    wgan = WGAN(image_shape=(1, 28, 28), channels=(8, 4, 4), latent_dim=3)
    with pytest.raises(GeneratorError, match="Expected no condition"):
        wgan(torch.zeros(1, 3), Condition.of(0, 0.5, n=1))
    with pytest.raises(GeneratorError, match=r"\(N, 3\)"):
        wgan(torch.zeros(1, 4))

from typing import Any

import pytest
import torch
from torch import Tensor

from failscape import load_classifier, load_generator, load_images
from failscape.classifiers import Classifier, classifier_features
from failscape.errors import GeneratorError, UnsupportedGenerator
from failscape.explain import to_8_bits
from failscape.generators import Condition, StyleGAN2, StyleGenerator, invert, require_styles
from failscape.training.conditions import conditions_of

SPACES = ["w", "s"]


@pytest.fixture(scope="module")
def digits() -> StyleGenerator:
    return require_styles(load_generator("embedded:mnist-stylegan2"), "tests")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier("embedded:mnist-corrupted")


@pytest.fixture(scope="module")
def real(classifier: Classifier) -> tuple[Tensor, Condition]:
    """Real digits, half of them corrupted, and what the classifier says of them."""
    images = load_images("embedded:mnist-test+half-corrupted").select(torch.arange(40))
    return images.x, conditions_of(classifier, images.x, images.y, score="confidence")


@pytest.fixture(scope="module")
def drawn(digits: StyleGenerator) -> tuple[Tensor, Condition]:
    """Images that the generator draws itself, and their conditions."""
    rng = torch.Generator().manual_seed(0)
    assert digits.condition_space is not None
    condition = digits.condition_space.sample(8, rng=rng)
    with torch.no_grad():
        return digits(digits.sample_latents(8, rng=rng), condition), condition


def unconditional(**sizes: Any) -> StyleGAN2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return StyleGAN2(image_shape=(1, 8, 8), **({"channels": (4, 4), "latent_dim": 3, "style_dim": 5} | sizes))


@pytest.mark.parametrize("space", SPACES)
def test_an_image_of_the_generator_is_found_again(space: Any, digits: StyleGenerator, drawn: Any) -> None:
    x, condition = drawn
    found = invert(digits, x, condition, space=space, steps=80, pull=0.0, grain_weight=0.0, low_pass=1)
    assert found.loss.mean() < 0.1 * found.start_loss.mean()
    with torch.no_grad():
        encoded = digits(digits.encode(x), condition)
    assert (found.x - x).square().mean() < 0.1 * (encoded - x).square().mean()


@pytest.mark.parametrize("space", SPACES)
def test_what_is_returned_belongs_together(space: Any, digits: StyleGenerator, real: Any) -> None:
    x, condition = real[0][:4], real[1][slice(0, 4)]
    found = invert(digits, x, condition, space=space, steps=3)
    with torch.no_grad():
        start = digits.mapping(digits.encode(x), condition)
        assert torch.allclose(digits.synthesize(found.s), found.x, atol=1e-5)
        assert torch.allclose(digits.styles(found.w), found.s, atol=1e-5) is (space == "w")
    assert torch.equal(found.w, start) is (space == "s")
    assert not found.s.requires_grad
    assert not found.x.requires_grad


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_no_row_is_worse_than_the_encoder(
    space: Any, steps: int, digits: StyleGenerator, classifier: Classifier, real: Any
) -> None:
    x, condition = real
    found = invert(
        digits, x, condition, space=space, steps=steps, features=lambda x: classifier_features(classifier, x)[0]
    )
    assert (found.loss <= found.start_loss).all()
    if steps == 0:
        assert torch.equal(found.loss, found.start_loss)
        with torch.no_grad():
            assert torch.allclose(found.x, digits(digits.encode(x), condition), atol=1e-5)


def test_the_loss_is_the_one_that_is_written_down() -> None:
    generator = unconditional()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    features = torch.randn(64, 4, generator=torch.Generator().manual_seed(2))
    found = invert(
        generator, x, space="w", steps=3, features=lambda x: x.flatten(1) @ features,
        pixel_weight=2.0, grain_weight=7.0, feature_weight=3.0, pull=5.0, low_pass=3,
    )  # fmt: skip
    with torch.no_grad():
        start = generator.mapping(generator.encode(x))

    def around(image: Tensor, reach: int) -> Tensor:
        low, high = [max(0, i - reach) for i in range(8)], [i + reach + 1 for i in range(8)]
        means = [image[low[i] : high[i], low[j] : high[j]].mean() for i in range(8) for j in range(8)]
        return torch.stack(means).view(8, 8)

    def grain(image: Tensor) -> Tensor:
        return (around((image - around(image, 2)) ** 2, 2) + 1 / 255**2).sqrt()

    for row in range(3):
        one, other = found.x[row, 0].double(), x[row, 0].double()
        pixels = (around(one, 1) - around(other, 1)).square().mean()
        grains = (grain(one) - grain(other)).square().mean()
        wanted, got = x[row].flatten() @ features, found.x[row].flatten() @ features
        moved = (found.w[row] - start[row]).square().sum() / start[row].square().sum()
        expected = 2 * pixels + 7 * grains + 3 * (got - wanted).square().sum() / wanted.square().sum() + 5 * moved
        assert float(found.loss[row]) == pytest.approx(float(expected), rel=1e-4)


def test_features_bring_the_classifier_to_see_the_same(
    digits: StyleGenerator, classifier: Classifier, real: Any
) -> None:
    # Asked for the next class, the generator starts from another digit: what the classifier sees must bring it back.
    x, condition = real
    wrong = Condition(y=(condition.y + 1) % 10, score=condition.score)
    said = classifier.predict(x)

    def agreement(**options: Any) -> float:
        images = to_8_bits(invert(digits, x, wrong, pull=0.0, **options).x)
        return float((classifier.predict(images) == said).float().mean())

    with_features = agreement(features=lambda x: classifier_features(classifier, x)[0])
    assert with_features > agreement() + 0.1
    assert with_features > agreement(steps=0) + 0.5


def test_real_digits_are_seen_as_what_they_are(digits: StyleGenerator, classifier: Classifier, real: Any) -> None:
    x, condition = real
    found = invert(digits, x, condition, features=lambda x: classifier_features(classifier, x)[0])
    assert (classifier.predict(to_8_bits(found.x)) == classifier.predict(x)).float().mean() >= 0.95
    assert found.loss.mean() < 0.5 * found.start_loss.mean()


def test_a_stronger_pull_stays_nearer_to_the_encoder(digits: StyleGenerator, real: Any) -> None:
    x, condition = real[0][:10], real[1][slice(0, 10)]
    with torch.no_grad():
        start = digits.mapping(digits.encode(x), condition)
    moved = [float((invert(digits, x, condition, steps=10, pull=pull).w - start).norm()) for pull in (0.0, 1.0, 100.0)]
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize("space", SPACES)
def test_rows_do_not_depend_on_each_other_nor_on_chance(space: Any, digits: StyleGenerator, real: Any) -> None:
    x, condition = real[0][:5], real[1][slice(0, 5)]
    before, state = x.clone(), torch.random.get_rng_state()
    together, again = (invert(digits, x, condition, space=space, steps=2) for _ in range(2))
    by_two = invert(digits, x, condition, space=space, steps=2, batch_size=2)
    alone = invert(digits, x[3:4], condition[slice(3, 4)], space=space, steps=2)
    assert torch.equal(together.s, again.s)
    # Other batches bring other last bits; at a kink of the networks, such as a pixel that is just clipped or just not,
    # these become another gradient. That may befall one row, but not most of them.
    apart = (by_two.s - together.s).abs().amax(dim=1)
    assert float(apart.median()) < 1e-4
    assert float(apart.max()) < 0.05
    assert torch.allclose(alone.s, together.s[3:4], atol=0.05)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_gradients_around_it_descends_all_the_same(digits: StyleGenerator, real: Any) -> None:
    x, condition = real[0][:3], real[1][slice(0, 3)]
    with torch.no_grad():
        found = invert(digits, x, condition, steps=3)
    assert torch.equal(found.s, invert(digits, x, condition, steps=3).s)


def test_a_generator_without_styles_is_refused() -> None:
    with pytest.raises(UnsupportedGenerator, match="Expected a generator with styles for inversion, but VAE has none"):
        invert(load_generator("embedded:mnist-vae-2d"), torch.zeros(1, 1, 28, 28))


def test_images_and_conditions_that_do_not_fit_are_refused(digits: StyleGenerator) -> None:
    with pytest.raises(GeneratorError, match="Expected images of shape"):
        invert(unconditional(), torch.zeros(1, 1, 8, 9))
    with pytest.raises(GeneratorError, match="Expected at least one image"):
        invert(unconditional(), torch.zeros(0, 1, 8, 8))
    with pytest.raises(GeneratorError, match="Expected a condition"):
        invert(digits, torch.zeros(1, 1, 28, 28))
    with pytest.raises(GeneratorError, match="Expected one condition a latent, 2 in all, but got 1"):
        invert(digits, torch.zeros(2, 1, 28, 28), Condition.of(0, 0.9, n=1))


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "z"}, "Expected `space` to be 'w' or 's', but got 'z'"),
        ({"steps": -1}, "Expected `steps` of at least 0"),
        ({"low_pass": 4}, "an odd `low_pass`, but got 25, 100, 4"),
        ({"batch_size": 0}, "`batch_size` of at least 1"),
        ({"pull": -1.0}, "Expected weights and a pull that are not negative"),
        ({"grain_weight": -1.0}, "Expected weights and a pull that are not negative"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invert(unconditional(), torch.zeros(1, 1, 8, 8), **settings)

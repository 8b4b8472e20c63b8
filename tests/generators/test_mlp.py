from pathlib import Path
from typing import Any

import pytest
import torch

from failscape.errors import GeneratorError
from failscape.generators import MLP, Condition, ConditionSpace, load_generator, save_generator
from failscape.generators.mlp import MLPDiscriminator
from failscape.testing import check_generator

POINT = (2, 1, 1)
CONDITIONS: list[dict[str, Any] | None] = [
    None,
    {"num_classes": 2},
    {"num_classes": 3, "score": "entropy", "supported": [[0.1, 0.9], [0.0, 0.4], [1.0, 0.0]]},
    {"num_classes": 2, "embedding": "scalar"},
    {"num_classes": 4, "score": "vector"},
]


def build(condition: dict[str, Any] | None = None, **options: Any) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(image_shape=options.pop("image_shape", POINT), condition=condition, **options).eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_it_keeps_every_promise_of_a_generator(condition: dict[str, Any] | None) -> None:
    check_generator(build(condition))
    check_generator(build(condition, image_shape=(3, 4, 5), latent_dim=2, hidden=16))


def test_it_has_the_five_layers_of_the_paper() -> None:
    generator = build({"num_classes": 2, "embedding": "scalar"}, hidden=32)
    widths = [tuple(layer.weight.shape[::-1]) for layer in generator.layers if hasattr(layer, "weight")]
    # A latent of 8, a one-hot class of 2 and the score go in, a point comes out.
    assert widths == [(11, 32), (32, 32), (32, 32), (32, 32), (32, 2)]


def test_what_it_draws_is_what_is_trained_clipped_to_the_range() -> None:
    generator = build({"num_classes": 2})
    z, condition = 30 * generator.sample_latents(200, rng=rng()), Condition.of(1, 0.7, n=200)
    drawn = generator.draw(z, condition)
    assert drawn.min() < 0, "nothing is clipped, so nothing is tested"
    assert torch.equal(generator(z, condition), drawn.clamp(0, 1))


def test_signals_keep_their_size_through_the_layers_whatever_the_width() -> None:
    for hidden in (64, 512):
        z = torch.randn(4000, 8, generator=rng())
        deviations = []
        for layer in build(hidden=hidden).layers:
            z = layer(z)
            if hasattr(layer, "weight"):
                deviations.append(float(z.detach().std()))
        assert deviations[:4] == pytest.approx([1, 1, 1, 1], abs=0.2)


@pytest.mark.parametrize("options", [{"image_shape": (2, 1)}, {"latent_dim": 0}, {"hidden": 0}])
@pytest.mark.usefixtures("as_installed")
def test_sizes_that_no_network_has_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GeneratorError, match=r"Expected a \(C, H, W\) `image_shape`.*\(2, 1, 1\)"):
        build(**options)


def test_conditions_are_demanded_or_refused() -> None:
    z = torch.zeros(2, 8)
    with pytest.raises(GeneratorError, match="Expected no condition, but got 2"):
        build()(z, Condition.of(0, 0.5, n=2))
    with pytest.raises(GeneratorError, match="class and confidence, but got none"):
        build({"num_classes": 2})(z)


@pytest.mark.parametrize("embedding", ["fourier", "scalar"])
def test_scores_may_be_double(embedding: str) -> None:
    # Classifiers' confidences near 1 are, to keep their logits.
    generator, z = build({"num_classes": 2, "embedding": embedding}), torch.zeros(2, 8)
    asked = Condition.of(1, 0.75, n=2)
    assert torch.equal(generator(z, Condition(y=asked.y, score=asked.score.double())), generator(z, asked))


def test_it_is_saved_with_what_it_can_be_asked_for(tmp_path: Path) -> None:
    generator = build({"num_classes": 2, "supported": [[0.6, 0.9], [0.5, 1.0]]}, latent_dim=3)
    save_generator(generator, tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.config == generator.config
    assert loaded.condition_space is not None
    with pytest.raises(GeneratorError, match=r"between 0\.600 and 0\.900"):
        loaded.condition_space.require_supported(0, 0.95)


class TestMLPDiscriminator:
    @pytest.mark.parametrize("concatenate", [False, True])
    def test_its_score_of_a_point_depends_on_point_and_condition_alone(self, concatenate: bool) -> None:
        torch.manual_seed(0)
        discriminator = MLPDiscriminator(POINT, 16, ConditionSpace(num_classes=2), concatenate=concatenate)
        x = torch.rand(6, *POINT, generator=rng())
        asked = Condition(y=torch.arange(6) % 2, score=torch.linspace(0.5, 0.9, 6))
        assert torch.equal(discriminator.views(x), x)
        scores = discriminator(x, asked)
        assert scores.shape == (6,)
        rows = [slice(i, i + 1) for i in range(6)]
        assert torch.allclose(torch.cat([discriminator(x[row], asked[row]) for row in rows]), scores, atol=1e-5)
        for other in (
            Condition(y=1 - asked.y, score=asked.score),
            Condition(y=asked.y, score=1.4 - asked.score),
        ):
            assert ((discriminator(x, other) - scores).abs() > 1e-5).all()

    def test_it_is_as_wide_and_deep_as_the_generator(self) -> None:
        generator, discriminator = build(hidden=16), MLPDiscriminator(POINT, 16, None)
        layers = [module for module in discriminator.modules() if hasattr(module, "weight")]
        assert len(layers) == len([module for module in generator.modules() if hasattr(module, "weight")]) == 5
        assert discriminator(torch.rand(3, *POINT, generator=rng()), None).shape == (3,)

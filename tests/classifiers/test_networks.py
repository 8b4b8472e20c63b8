import pytest
import torch
from torch import nn

from failscape.classifiers import NETWORKS, build_network


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 9)])
def test_logits_of_an_image_do_not_depend_on_its_batch(architecture: str, shape: tuple[int, int, int]) -> None:
    network = build_network(architecture, seed=0, image_shape=shape, num_classes=5, width=8).eval()
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    together = network(x)
    assert together.shape == (6, 5)
    assert torch.allclose(torch.cat([network(image[None]) for image in x]), together, atol=1e-5)
    assert together.std(dim=0).min() > 1e-4, "the logits do not depend on the image"


@pytest.mark.parametrize("architecture", NETWORKS)
def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone(architecture: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        network = build_network(architecture, seed=seed, image_shape=(1, 8, 8), num_classes=2, width=8)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    before = torch.random.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("width", [1, 24])
def test_fully_connected_layers_take_points(width: int) -> None:
    network = build_network("mlp", seed=0, image_shape=(2, 1, 1), num_classes=3, width=width)
    assert [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)] == [width] * 3 + [3]
    # In the middle of the range they see zero.
    assert torch.allclose(network(torch.full((1, 2, 1, 1), 0.5)), network.layers(torch.zeros(1, 2)))

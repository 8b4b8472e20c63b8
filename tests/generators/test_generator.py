from typing import ClassVar

import pytest
import torch

from failscape.errors import UnsupportedGenerator
from failscape.generators import VAE, Generator, require_autoencoder


class Blank(Generator):
    family: ClassVar[str] = "blank"

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(z), 1, 2, 2)


def test_a_generator_without_encoder_is_refused_where_one_is_needed() -> None:
    with pytest.raises(UnsupportedGenerator, match=r"an encoder for a method, but Blank has none.*train vae"):
        require_autoencoder(Blank(), "a method")
    vae = VAE(image_shape=(1, 2, 2), latent_dim=1, hidden=(2,))
    assert require_autoencoder(vae, "a method") is vae

"""What draws images: one file a family, loaded and saved alike."""

from failscape.generators.generator import Autoencoder, Generator, require_autoencoder
from failscape.generators.loading import EMBEDDED, FAMILIES, load_generator, save_generator
from failscape.generators.vae import VAE

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "VAE",
    "Autoencoder",
    "Generator",
    "load_generator",
    "require_autoencoder",
    "save_generator",
]

"""What draws images: one file a family, loaded and saved alike."""

from failscape.generators.condition import Condition, ConditionSpace
from failscape.generators.generator import (
    Autoencoder,
    Generator,
    StyleGenerator,
    StyleLayer,
    require_autoencoder,
    require_styles,
)
from failscape.generators.intro_vae import IntroVAE
from failscape.generators.inversion import Inversion, invert
from failscape.generators.loading import EMBEDDED, FAMILIES, generator_provenance, load_generator, save_generator
from failscape.generators.mlp import MLP
from failscape.generators.progressive import Progressive
from failscape.generators.stylegan2 import StyleGAN2
from failscape.generators.vae import VAE
from failscape.generators.vae_gan import VAEGAN
from failscape.generators.wgan import WGAN

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "MLP",
    "VAE",
    "VAEGAN",
    "WGAN",
    "Autoencoder",
    "Condition",
    "ConditionSpace",
    "Generator",
    "IntroVAE",
    "Inversion",
    "Progressive",
    "StyleGAN2",
    "StyleGenerator",
    "StyleLayer",
    "generator_provenance",
    "invert",
    "load_generator",
    "require_autoencoder",
    "require_styles",
    "save_generator",
]

"""Saving and loading generators by spec."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from failscape.errors import FailscapeError, WeightsError
from failscape.generators.generator import Generator
from failscape.generators.intro_vae import IntroVAE
from failscape.generators.mlp import MLP
from failscape.generators.progressive import Progressive
from failscape.generators.stylegan2 import StyleGAN2
from failscape.generators.vae import VAE
from failscape.generators.vae_gan import VAEGAN
from failscape.generators.wgan import WGAN
from failscape.storage import asset_names, fill_network, load_model, located_model, save_model

_ASSETS = files("failscape") / "assets" / "generators"
EMBEDDED = tuple(asset_names(_ASSETS, ".json"))
"""Names of the generators that the package ships."""
FAMILIES: dict[str, type[Generator]] = {
    family.family: family for family in (IntroVAE, MLP, Progressive, StyleGAN2, VAE, VAEGAN, WGAN)
}


def save_generator(
    generator: Generator, target: Path, *, provenance: Mapping[str, Any] | None = None, half: bool = False
) -> None:
    """Save a generator as safetensors plus JSON.

    Args:
        generator: of any family.
        target: a folder, which will hold `generator.safetensors` and `generator.json`, or a `.safetensors` path.
        provenance: where the weights came from: settings, command, numbers reached.
        half: store the weights as float16.
    """
    tensors = {name: tensor.half() if half else tensor for name, tensor in generator.state_dict().items()}
    description = {"family": generator.family, "config": generator.config, "provenance": dict(provenance or {})}
    save_model(target, "generator", tensors, description)


def load_generator(spec: str | Path) -> Generator:
    """Load a generator.

    Args:
        spec: `embedded:NAME`, or a folder or file that failscape saved.

    Raises:
        SpecError: if the spec names nothing.
        WeightsError: if the weights are broken or do not fit the family.

    Example:
        >>> load_generator("embedded:mnist-vae-10d").latent_dim
        10
    """
    with _located(spec) as path:
        return _load_saved(path, path.stem)


def generator_provenance(spec: str | Path) -> dict[str, Any]:
    """Return where the weights of a generator came from: settings, command, numbers reached.

    Args:
        spec: as for `load_generator`.

    Raises:
        SpecError: if the spec names nothing.
        WeightsError: if the weights are broken.
    """
    with _located(spec) as path:
        provenance: dict[str, Any] = load_model(path, "generator")[1].get("provenance", {})
        return provenance


def _located(spec: str | Path) -> AbstractContextManager[Path]:
    return located_model(spec, _ASSETS, "generator as embedded:NAME or a saved folder or file")


def _load_saved(path: Path, name: str) -> Generator:
    tensors, description = load_model(path, "generator")
    family = description.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise WeightsError(f"Expected a family among {', '.join(FAMILIES)} in {path}, but got {family!r}.")
    try:
        # On the meta device nothing is allocated before the sizes are known to be those of the weights.
        with torch.device("meta"):
            generator = FAMILIES[family](**description["config"])
    except (KeyError, TypeError, ValueError, RuntimeError, FailscapeError) as error:
        raise WeightsError(f"Expected a complete description of {name}, but got: {error}. Save it again.") from error
    fill_network(generator, tensors, name)
    return generator.eval()

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from failscape.errors import SpecError, WeightsError
from failscape.generators import EMBEDDED, VAE, load_generator, save_generator

Z = torch.linspace(-2, 2, 12).view(4, 3)


@pytest.fixture
def vae() -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(image_shape=(1, 8, 8), latent_dim=3, hidden=(16, 8))


def test_loads_from_folder_and_either_file(tmp_path: Path, vae: VAE) -> None:
    save_generator(vae, tmp_path / "toy", provenance={"nats": 90.0})
    for spec in ("toy", "toy/generator.safetensors", "toy/generator.json"):
        loaded = load_generator(str(tmp_path / spec))
        assert isinstance(loaded, VAE)
        assert torch.equal(loaded(Z), vae(Z))
        assert torch.equal(loaded.encode(vae(Z)), vae.encode(vae(Z)))
        assert loaded.config == vae.config
        assert not loaded.training
    assert json.loads((tmp_path / "toy" / "generator.json").read_text())["provenance"] == {"nats": 90.0}


def test_a_loaded_generator_can_be_trained_on(tmp_path: Path, vae: VAE) -> None:
    save_generator(vae, tmp_path)
    loaded = load_generator(tmp_path)
    loaded(Z).sum().backward()
    assert isinstance(loaded, VAE)
    assert all(parameter.grad is not None for parameter in loaded.decoder.parameters())


def test_half_precision_is_close(tmp_path: Path, vae: VAE) -> None:
    save_generator(vae, tmp_path, half=True)
    assert torch.allclose(load_generator(tmp_path)(Z), vae(Z), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gan"}, "family among intro-vae, mlp, progressive, stylegan2, vae, vae-gan, wgan in .*'gan'"),
        ({"family": None}, "family among intro-vae, mlp, progressive, stylegan2, vae, vae-gan, wgan"),
        ({"family": ["vae"]}, "family among intro-vae, mlp, progressive, stylegan2, vae, vae-gan, wgan"),
        ({"config": {}}, "complete description"),
        ({"config": None}, "complete description"),
        ({"config": {"image_shape": [1, 8, 8], "latent_dim": 3, "depth": 2}}, "complete description"),
        ({"config": {"image_shape": [1, 8, 8], "latent_dim": 0}}, "complete description"),
        ({"config": {"image_shape": [1, 8, 8], "latent_dim": "3"}}, "complete description"),
        ({"config": {"image_shape": 8, "latent_dim": 3}}, "complete description"),
        ({"config": {"image_shape": [1, 8, 8], "latent_dim": 3}}, "to fit its architecture"),
        # Terabytes, if they were allocated.
        ({"config": {"image_shape": [1, 8, 8], "latent_dim": 3, "hidden": [10**6, 10**6]}}, "to fit its arch"),
    ],
)
def test_refuses_a_description(tmp_path: Path, vae: VAE, change: dict[str, Any], message: str) -> None:
    save_generator(vae, tmp_path)
    path = tmp_path / "generator.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=message):
        load_generator(tmp_path)


def test_a_misspelt_name_lists_the_names() -> None:
    with pytest.raises(SpecError, match=r"but got 'embedded:mnist-vae'") as caught:
        load_generator("embedded:mnist-vae")
    assert all(f"embedded:{name}" in str(caught.value) for name in EMBEDDED)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"Expected a generator as embedded:NAME or a saved folder or file"):
        load_generator(tmp_path / "missing")
    with pytest.raises(WeightsError, match=r"Expected a generator saved by failscape"):
        load_generator(tmp_path)

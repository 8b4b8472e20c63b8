"""How quickly a variational autoencoder is trained, beside PyPI's `pythae`: the same network, batch size and images.

Ratios in one run. Both train the embedded digits' network from the same weights: `failscape.training.train` with its
log and moving average, in bfloat16 where the hardware has it, as by default, and once more in float32; and pythae's
`BaseTrainer`, one of its epochs at a time.
"""

import io
import time
from contextlib import redirect_stderr
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from apart import make_importable
from torch import Tensor, nn

from failscape import load_images
from failscape.data import ImageSet
from failscape.generators import VAE
from failscape.training import VAESettings
from failscape.training.loop import train
from failscape.training.memory import keep_freed_memory
from failscape.training.vae_task import VAETask

_REQUIREMENTS = ("pythae==0.1.2", "cloudpickle==3.1.1", "imageio==2.37.0", "tqdm==4.67.1")
_IMAGES, _BATCH, _LATENT_DIM = 10_000, 128, 10
_ROUNDS = 3


def ours(vae: VAE, images: ImageSet, *, bf16: bool) -> float:
    """Return the seconds of one pass over the images."""
    settings = VAESettings(images=len(images), batch=_BATCH, latent_dim=_LATENT_DIM, validation="none", bf16=bf16)
    task = VAETask(settings, image_shape=images.image_shape, start=vae)
    with TemporaryDirectory() as folder:
        return train(task, images, Path(folder) / "run", settings)["seconds"]


class Pythae:
    """Its trainer of the same network.

    Args:
        vae: is copied.
        images: to train on.
        folder: takes what the trainer writes.
    """

    def __init__(self, vae: VAE, images: ImageSet, folder: Path) -> None:
        models, networks, trainers, datasets, outputs = _imported()
        vae = deepcopy(vae)

        class Encoder(networks.BaseEncoder):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layers = vae.encoder

            def forward(self, x: Tensor) -> Any:
                mean, log_variance = self.layers(2 * x.flatten(1) - 1).chunk(2, dim=1)
                return outputs.ModelOutput(embedding=mean, log_covariance=log_variance)

        class Decoder(networks.BaseDecoder):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.Sequential(vae.decoder, nn.Sigmoid())

            def forward(self, z: Tensor) -> Any:
                return outputs.ModelOutput(reconstruction=self.layers(z).unflatten(1, images.image_shape))

        config = models.VAEConfig(input_dim=images.image_shape, latent_dim=vae.latent_dim, reconstruction_loss="bce")
        self._trainer = trainers.BaseTrainer(
            model=models.VAE(config, encoder=Encoder(), decoder=Decoder()),
            train_dataset=datasets.BaseDataset(images.x, images.y),
            training_config=trainers.BaseTrainerConfig(
                output_dir=str(folder), per_device_train_batch_size=_BATCH, optimizer_cls="AdamW", no_cuda=True
            ),
        )
        self._trainer.prepare_training()

    def epoch(self) -> float:
        """Return the seconds of one pass over the images, without its bar of progress."""
        started = time.perf_counter()
        with redirect_stderr(io.StringIO()):
            self._trainer.train_step(epoch=1)
        return time.perf_counter() - started


def _imported() -> tuple[Any, ...]:
    make_importable("pythae", *_REQUIREMENTS)
    names = ("models", "models.nn", "trainers", "data.datasets", "models.base.base_utils")
    return tuple(import_module(f"pythae.{name}") for name in names)


def main() -> None:
    """Print images a second and their ratio."""
    keep_freed_memory()  # For both, as a training of ours does.
    images = load_images("embedded:mnist-train-10k").select(torch.arange(_IMAGES))
    torch.manual_seed(0)
    vae = VAE(image_shape=images.image_shape, latent_dim=_LATENT_DIM)
    with TemporaryDirectory() as folder:
        pythae = Pythae(vae, images, Path(folder))
        seconds: dict[str, list[float]] = {"pythae": [], "ours": [], "float32": []}
        # In turns, so that whatever else the machine does weighs on both.
        for _ in range(_ROUNDS):
            seconds["pythae"].append(pythae.epoch())
            seconds["ours"].append(ours(vae, images, bf16=True))
            seconds["float32"].append(ours(vae, images, bf16=False))
    best = {name: min(each) for name, each in seconds.items()}
    for name, value in best.items():
        print(f"{name:8} {_IMAGES / value:8.0f} images/s")
    print(f"ours / pythae: {best['pythae'] / best['ours']:.2f} times as quick (asked: at least 1.5)")
    print(f"in float32: {best['pythae'] / best['float32']:.2f} times")


if __name__ == "__main__":
    main()

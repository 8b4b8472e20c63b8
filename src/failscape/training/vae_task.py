"""Training of a variational autoencoder by its evidence lower bound."""

from copy import deepcopy
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from failscape.data import ImageSet
from failscape.generators import VAE, Generator
from failscape.training.generator_task import GeneratorTask
from failscape.training.precision import autocast
from failscape.training.schedule import set_learning_rate, warmup_cosine
from failscape.training.settings import VAESettings
from failscape.training.target_guidance import TargetGuidance

_EVALUATION_BATCH = 500


@final
class VAETask(GeneratorTask):
    """Fits a `VAE` to images; labels are not used.

    Args:
        settings: of the training.
        image_shape: `(C, H, W)`.
        guidance: a classifier's say on images drawn from the prior.
        start: go on from a copy of this network in place of random weights.
    """

    def __init__(
        self,
        settings: VAESettings,
        *,
        image_shape: tuple[int, int, int],
        guidance: TargetGuidance | None = None,
        start: VAE | None = None,
    ) -> None:
        self._settings, self._guidance, self.half = settings, guidance, settings.half
        if start is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)
                start = VAE(image_shape=image_shape, latent_dim=settings.latent_dim, hidden=settings.hidden)
        self._vae = deepcopy(start).requires_grad_(True).train()
        self._averaged_vae = deepcopy(self._vae).requires_grad_(False).eval()
        self.networks = nn.ModuleDict({"vae": self._vae})
        self.averaged = nn.ModuleDict({"vae": self._averaged_vae})
        optimizer = torch.optim.AdamW(self._vae.parameters(), weight_decay=settings.weight_decay, fused=True)
        self.optimizers = {"vae": optimizer}

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the network once by the negative evidence lower bound; all losses in nats an image."""
        settings, optimizer = self._settings, self.optimizers["vae"]
        factor = warmup_cosine(progress, warmup=settings.warmup / settings.images)
        set_learning_rate(optimizer, settings.learning_rate * factor)
        # Early on the divergence alone would switch latents off for good; its weight may rise slowly.
        weight = min(1.0, progress * settings.images / settings.kl_warmup) if settings.kl_warmup else 1.0
        with autocast(x.device.type, bf16=settings.bf16):
            terms = self._vae.negative_elbo(x, rng=rng)
        reconstruction, divergence = (term.mean() for term in terms)
        loss = reconstruction + weight * divergence
        losses = {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}
        if self._guidance is not None and (say := self._guidance.weight(progress)) > 0:
            losses["guidance"] = self._guidance(self._vae(self._vae.sample_latents(len(x), rng=rng)), rng=rng)
            loss = loss + say * losses["guidance"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {name: term.detach() for name, term in losses.items()}

    @property
    def judged(self) -> Generator:
        """The averaged network."""
        return self._averaged_vae

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return the averaged network's lower bound and its two terms, in nats an image, and the image count.

        The latents are drawn from a generator of its own, so that all evaluations see the same noise.
        """
        rng = torch.Generator().manual_seed(self._settings.seed)
        reconstruction = divergence = 0.0
        for batch in images.batches(_EVALUATION_BATCH):
            terms = self._averaged_vae.negative_elbo(batch.x, rng=rng)
            reconstruction += float(terms[0].double().sum())
            divergence += float(terms[1].double().sum())
        return {
            "elbo": -(reconstruction + divergence) / len(images),
            "reconstruction": reconstruction / len(images),
            "divergence": divergence / len(images),
            "n": float(len(images)),
        }

"""Training of an autoencoder whose reconstructions are compared in the features of a discriminator."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.generators.vae_gan import VAEGAN
from failscape.training.adversarial import gradient_penalty
from failscape.training.convolutional_vae_task import ConvolutionalVAETask
from failscape.training.generator_task import adam
from failscape.training.settings import VAEGANSettings
from failscape.training.target_guidance import TargetGuidance

_BETA2 = 0.99


@final
class VAEGANTask(ConvolutionalVAETask[VAEGAN]):
    r"""Fits a `VAEGAN`: encoder, decoder and discriminator, at once and from one pass.

    With $\tilde x$ for reconstructions, $\hat x$ for reconstructions and samples, half of each, $h_l$ for what block
    $l$ of B in the discriminator makes of an image, and $P$ values in an image,

    - the discriminator minimises $\log(1 + e^{-D(x)}) + \log(1 + e^{D(\hat x)})$ and R1;
    - the encoder $L + \frac{\beta}{P} KL(q(z|x) \| p(z))$ with
      $L = a \cdot \frac1B \sum_l \|h_l(\tilde x) - h_l(x)\|^2 / \|h_l(x)\|^2 + b \|\tilde x - x\|^2 / P$;
    - the decoder $L + c \log(1 + e^{-D(\hat x)})$, and the guidance if there is any.

    Other than in the paper, all blocks are compared, not one; distances are relative to the features' own size, since
    those of a discriminator without batch normalisation have no fixed one; a pixel term keeps flat areas in place; and
    R1 holds the discriminator.

    Args:
        settings: of the training.
        images: to learn from; labels are not used.
        guidance: a classifier's say on the samples.
        oracle: in whose features distance is measured at evaluations.
        start: go on from a copy of this generator in place of random weights.

    Raises:
        GeneratorError: if the images have a size that `channels` cannot draw.
        ClassifierError: if the oracle takes images of another shape, or knows other classes.

    References:
        Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016, algorithm 1.
    """

    def __init__(
        self,
        settings: VAEGANSettings,
        *,
        images: ImageSet,
        guidance: TargetGuidance | None = None,
        oracle: Classifier | None = None,
        start: VAEGAN | None = None,
    ) -> None:
        self._settings = settings
        super().__init__(settings, images=images, guidance=guidance, oracle=oracle, start=start)
        # The step of a penalty is one more of the critic's, so its memory is set to match.
        lazy = settings.penalty_every / (settings.penalty_every + 1)
        self.optimizers["critic"] = adam(self._network.critic.parameters(), beta2=_BETA2**lazy)
        self._steps = 0

    def _build(self, image_shape: tuple[int, int, int]) -> VAEGAN:
        settings = self._settings
        return VAEGAN(image_shape=image_shape, channels=settings.channels, latent_dim=settings.latent_dim)

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update all three networks once, by one pass of each over the same images."""
        settings, critic = self._settings, self._network.critic
        self._set_rates(progress)
        losses = self._step_penalty(x)
        drawn = self._draw(x, rng)
        n, half = len(x), len(drawn.samples)
        with self._autocast():
            scores, maps = critic.look(torch.cat([x, drawn.judged]))
        on_real, on_drawn = scores.split([n, 2 * half])

        # What each network is to lower.
        losses["features"] = feature_distance(
            [each[n : n + half] for each in maps], [each[:half].detach() for each in maps]
        )
        losses["pixels"] = (drawn.reconstructions - x).square().mean()
        faithful = settings.features * losses["features"] + settings.pixels * losses["pixels"]
        losses["decoder"] = F.softplus(-on_drawn).mean()
        said, guidance = self._guide(drawn, progress=progress, rng=rng)
        losses |= said
        game = settings.adversarial * losses["decoder"] + guidance
        losses["divergence"] = drawn.divergence.mean()
        losses["critic"] = F.softplus(-on_real).mean() + F.softplus(on_drawn).mean()

        # All gradients before any step, since they share their graphs.
        self.optimizers["critic"].zero_grad(set_to_none=True)
        losses["critic"].backward(inputs=list(critic.parameters()), retain_graph=True)
        latent = self._spread(drawn, faithful, game)
        self.optimizers["encoder"].zero_grad(set_to_none=True)
        nats = settings.divergence / math.prod(x.shape[1:]) * losses["divergence"]
        torch.autograd.backward(
            [drawn.z, nats], [latent, torch.ones(())], inputs=list(self._network.encoder.parameters())
        )
        for optimizer in self.optimizers.values():
            optimizer.step()
        self._steps += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def _step_penalty(self, x: Tensor) -> dict[str, Tensor]:
        """Update the critic by R1, if it is its turn; return it."""
        settings, optimizer = self._settings, self.optimizers["critic"]
        if self._steps % settings.penalty_every or not settings.r1:
            return {}
        penalty = gradient_penalty(self._network.critic, x)
        optimizer.zero_grad(set_to_none=True)
        (settings.r1 * settings.penalty_every * penalty).backward()
        optimizer.step()
        return {"r1": penalty}

    def state(self) -> dict[str, Any]:
        """Return the networks' state, and whether a penalty is due."""
        return super().state() | {"steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        super().restore(state)
        self._steps = int(state["steps"])


def feature_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Float[Tensor, ""]:
    r"""Return $\frac1B \sum_l \|h_l - h'_l\|^2 / \|h'_l\|^2$: 0 for the same features, about 1 for none.

    Args:
        found: features of B layers, `(N, C, H, W)` each.
        wanted: the same of the images that these are to resemble.

    Example:
        >>> feature_distance([torch.full((1, 1, 2, 2), 3.0)], [torch.full((1, 1, 2, 2), 2.0)])
        tensor(0.2500)
    """
    distances = [
        (a.float() - b.float()).square().mean() / (b.float().square().mean() + 1e-8)
        for a, b in zip(found, wanted, strict=True)
    ]
    return torch.stack(distances).mean()

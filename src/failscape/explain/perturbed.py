"""Images moved through the latent space of an autoencoder, and what a classifier says of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.explain.method import to_8_bits
from failscape.generators import Autoencoder

# All of a latent space means so many standard deviations of the prior to each side.
_PRIOR_SPAN = 4.0


@dataclass(frozen=True, kw_only=True)
class LatentBank:
    """Latents whose class is known: places to start a search from.

    Attributes:
        z: latents.
        labels: the class of each.
    """

    z: Float[Tensor, "B D"]
    labels: Int[Tensor, " B"]

    @classmethod
    def of_prior(cls, perturbed: "PerturbedImages", size: int, *, rng: torch.Generator) -> "LatentBank":
        """Draw latents from the prior; their class is what the classifier takes their images for."""
        z = perturbed.generator.sample_latents(size, rng=rng)
        return cls(z=z, labels=perturbed.classifier.predict(perturbed.draw(z)))

    @classmethod
    def of_images(cls, perturbed: "PerturbedImages", images: ImageSet) -> "LatentBank":
        """Encode labelled images."""
        return cls(z=torch.cat([perturbed.encode(batch.x) for batch in images.batches(1000)]), labels=images.y)

    def candidates(self, z: Float[Tensor, "N D"], wanted: Int[Tensor, " N"], count: int) -> Float[Tensor, "N C D"]:
        """Return the way from each latent to the nearest ones of the wanted class.

        Where the class has fewer than `count`, the nearest of other classes fill up.
        """
        distance = torch.cdist(z, self.z)
        distance += torch.where(self.labels[None] == wanted[:, None], 0.0, distance.max() + 1)
        nearest = distance.topk(min(count, len(self.z)), largest=False).indices
        return self.z[nearest] - z[:, None]


class PerturbedImages:
    """The images x' = g(e(x) + ε) + x - g(e(x)) of a batch, for any ε.

    Every function takes perturbations `(M, D)` and the row of the batch that each belongs to, `(M,)`, as the
    searches call them.

    Attributes:
        z: latents e(x) of the batch, `(N, D)`.
        reconstructions: g(e(x)).
        y: the wanted classes.
    """

    def __init__(self, classifier: Classifier, generator: Autoencoder, x: Tensor, y: Tensor) -> None:
        self.classifier = classifier
        self.generator = generator
        self.y = y
        self.z = self.encode(x)
        self.origin = torch.zeros_like(self.z)
        self.reconstructions = self.draw(self.z)
        self._residual = x - self.reconstructions

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return e(x), without gradients."""
        return self.generator.encode(x)

    @torch.no_grad()
    def draw(self, z: Tensor) -> Tensor:
        """Return g(z), without gradients."""
        images: Tensor = self.generator(z)
        return images

    def images(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return x' (eq. 1), clipped to [0, 1]."""
        perturbed: Tensor = self.generator(self.z[rows] + epsilon) + self._residual[rows]
        return perturbed.clamp(0, 1)

    def logits(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of x' as saved; the gradient passes through the rounding as if it were not there."""
        images = self.images(epsilon, rows)
        return self.classifier(images + (to_8_bits(images) - images).detach())

    @torch.no_grad()
    def probs(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return the class probabilities of x' as saved, without gradients and with bounded memory."""
        parts = zip(epsilon.split(2048), rows.split(2048), strict=True)
        return torch.cat([self.logits(e, r).softmax(dim=1) for e, r in parts])

    def logit_margin(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return the logit of the wanted class less the largest other."""
        own, others = self._split(self.logits(epsilon, rows), rows)
        return own - others.amax(dim=1)

    def log_odds(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return the log-odds of the wanted class."""
        own, others = self._split(self.logits(epsilon, rows), rows)
        return own - others.logsumexp(dim=1)

    def stopped_loss(self, epsilon: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of x' (eq. 2) and whether its class is the wanted one, before any rounding."""
        logits = self.classifier(self.images(epsilon, rows))
        return F.cross_entropy(logits, self.y[rows], reduction="none"), logits.argmax(dim=1) == self.y[rows]

    def box(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
        """Return, for each row, the corners of the perturbations that stay within the latents in use."""
        low = self.z.amin(dim=0).clamp_max(-_PRIOR_SPAN)
        high = self.z.amax(dim=0).clamp_min(_PRIOR_SPAN)
        return low - self.z, high - self.z

    def _split(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        wanted = self.y[rows][:, None]
        return logits.gather(1, wanted)[:, 0], logits.scatter(1, wanted, -torch.inf)

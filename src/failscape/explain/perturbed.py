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
# Images that are classified at once: few enough to stay in a processor's cache.
_CHUNK = 1024
# A root has no slope at zero: changes below this, a quarter of a grey value, are rounded off.
_FAINTEST = 0.001


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

    def saved(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return x' as saved; the gradient passes through the rounding as if it were not there."""
        images = self.images(epsilon, rows)
        return images + (to_8_bits(images) - images).detach()

    def change(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return how much g(e(x) + ε) - g(e(x)) changes the image."""
        return pixel_change(self.generator(self.z[rows] + epsilon) - self.reconstructions[rows])

    def logits(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of x' as saved."""
        return self.classifier(self.saved(epsilon, rows))

    @torch.no_grad()
    def probs(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        """Return the class probabilities of x' as saved, without gradients and with bounded memory."""
        parts = zip(epsilon.split(_CHUNK), rows.split(_CHUNK), strict=True)
        return torch.cat([self.logits(e, r).softmax(dim=1) for e, r in parts])

    def saved_from(self, drawn: Tensor, row: int) -> Tensor:
        """Return x' as saved for one row, given images g(z') that may serve other rows as well."""
        return to_8_bits(drawn + self._residual[row])

    def stopped_loss(self, epsilon: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of x' (eq. 2) and whether its class is the wanted one, before any rounding."""
        logits = self.classifier(self.images(epsilon, rows))
        return F.cross_entropy(logits, self.y[rows], reduction="none"), logits.argmax(dim=1) == self.y[rows]

    def same_images(self, rows: Int[Tensor, " M"]) -> list[tuple[int, Int[Tensor, " L"]]]:
        """Group rows that hold the same image: one row of each group, and the places in `rows` of all of it."""
        key = torch.cat([self._residual[rows].flatten(1), self.z[rows]], dim=1)
        _, group = torch.unique(key, dim=0, return_inverse=True)
        places = [(group == number).nonzero()[:, 0] for number in range(int(group.max()) + 1)]
        return [(int(rows[place[0]]), place) for place in places]

    def box(self) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Return the corners of the part of the latent space that is in use."""
        return self.z.amin(dim=0).clamp_max(-_PRIOR_SPAN), self.z.amax(dim=0).clamp_min(_PRIOR_SPAN)


def pixel_change(change: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return how much images are changed: the root mean square over colours, in the mean of the pixels.

    Such a sum of pixels' norms is least where few pixels change (group lasso).
    """
    colour: Tensor = (change.square().mean(dim=1) + _FAINTEST**2).sqrt() - _FAINTEST
    return colour.mean(dim=(1, 2))


def logit_margin(logits: Float[Tensor, "M K"], wanted: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Return the logit of the wanted class less the largest other."""
    own, others = _split(logits, wanted)
    return own - others.amax(dim=1)


def log_odds(logits: Float[Tensor, "M K"], wanted: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Return the log-odds of the wanted class."""
    own, others = _split(logits, wanted)
    return own - others.logsumexp(dim=1)


def _split(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    return logits.gather(1, wanted[:, None])[:, 0], logits.scatter(1, wanted[:, None], -torch.inf)

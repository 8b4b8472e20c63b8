"""Small networks that learn what a classifier says: what they share with it is no quirk of its own."""

from itertools import cycle
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers.networks import build_network
from failscape.training.augmentation import jitter

_CONVOLUTIONAL = (("residual-cnn", {"width": 8}), ("plain-cnn", {"width": 8}))
_BATCH = 128
# After 31 and 62 steps, eight passes through 500 and 1,000 garments, they said the classifier's class of 0.65 and 0.69.
_LEAST_STEPS = 750
_STEP = 3e-3
# What they learn is no finer than this: more pixels would cost much and tell them little.
_LARGEST = 32
# Smaller images have nothing to convolve.
_SMALLEST = 8


@final
class SecondOpinion:
    """The mean of what several small networks say of images, taught by a classifier's verdicts on examples.

    They see each example moved, turned and scaled a little, and as large as 32 pixels at most. They differ from the
    classifier and from each other in what they make of images unlike the examples, as one differs that is trained apart
    on labels; where they agree, such a one is likelier to agree too.

    Args:
        examples: images in [0, 1].
        log_probs: the classifier's of each.
        networks: how many, at least one: by turns residual and plain convolutional networks; of images smaller than 8
            pixels fully connected ones.
        passes: of each through the examples.
        rng: draws first weights, the order of examples, and how they are moved.

    Example:
        >>> opinion = SecondOpinion(x, classifier(x).log_softmax(dim=1), rng=torch.Generator().manual_seed(0))
        >>> opinion(x).shape == (len(x), classifier.num_classes)
        True

    References:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """

    def __init__(
        self,
        examples: Float[Tensor, "N C H W"],
        log_probs: Float[Tensor, "N K"],
        *,
        networks: int = 2,
        passes: int = 8,
        rng: torch.Generator,
    ) -> None:
        examples = reduced(examples)
        sizes: dict[str, Any] = {"image_shape": tuple(examples.shape[1:]), "num_classes": log_probs.shape[1]}
        kinds = cycle(_CONVOLUTIONAL if min(examples.shape[2:]) >= _SMALLEST else [("mlp", {})])
        self._networks = []
        for _, (kind, width) in zip(range(networks), kinds, strict=False):
            network = build_network(kind, **sizes, **width, seed=int(torch.randint(2**31, (), generator=rng)))
            steps = max(_LEAST_STEPS, passes * len(examples) // _BATCH)
            _teach(network, examples, log_probs, steps=steps, rng=rng)
            self._networks.append(network.eval().requires_grad_(False))

    def __call__(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the mean of their log-probabilities of images, differentiable in these."""
        x = reduced(x).contiguous(memory_format=torch.channels_last)
        return torch.stack([network(x).log_softmax(dim=1) for network in self._networks]).mean(dim=0)


def _teach(
    network: nn.Module,
    examples: Float[Tensor, "N C H W"],
    log_probs: Float[Tensor, "N K"],
    *,
    steps: int,
    rng: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_STEP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _STEP, total_steps=steps)
    probs = log_probs.exp()
    # A pixel and a half where images are as large as can be.
    shift = 0.05 * min(examples.shape[2:])
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(examples), (_BATCH,), generator=rng)
            x = jitter(examples[rows], rng=rng, max_shift=shift, max_angle=8.0, max_scale=0.08)
            told = network(x.contiguous(memory_format=torch.channels_last)).log_softmax(dim=1)
            loss = F.kl_div(told, probs[rows], reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def reduced(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
    """Return images as small as they are looked at: 32 pixels high and wide at most, larger ones averaged."""
    factor = max(x.shape[2:]) / _LARGEST
    if factor <= 1:
        return x
    height, width = (max(1, round(side / factor)) for side in x.shape[2:])
    return F.interpolate(x, size=(height, width), mode="area")

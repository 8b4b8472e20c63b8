"""What the encoder of a generator with styles is taught, in the game and when the generator is polished."""

import torch
from torch import Tensor
from torch.nn import functional as F

from failscape.generators import Condition, StyleGAN2
from failscape.generators.layers import normalized
from failscape.training.adversarial import clip_images

_PIXELS = 20.0


def encoder_losses(
    encoding: StyleGAN2,
    drawing: StyleGAN2,
    x: Tensor,
    fake: Tensor,
    z: Tensor,
    condition: Condition | None,
    *,
    autocast: torch.autocast,
) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, Tensor]]:
    """Regress the latents of generated images; draw real ones again, but for their noise.

    The generator is not trained by it: noise cannot be drawn again, so it would learn to blur.

    Args:
        encoding: whose encoder is taught.
        drawing: draws real images again.
        x: real images, `(N, C, H, W)`; drawing them again costs most, so every second one serves.
        fake: generated images, detached.
        z: their latents.
        condition: of the images, real and generated; None for a generator without one.
        autocast: in which networks compute.

    Returns:
        The losses by name; their sum, weighted; the real images that served and what was drawn of them.
    """
    x, condition = x[::2], None if condition is None else condition[slice(None, None, 2)]
    with autocast:
        found, encoded = encoding.encode(torch.cat([fake, x])).float().split([len(fake), len(x)])
        again = clip_images(drawing.draw(drawing.styles(drawing.mapping(encoded, condition))).float())
    # The mapping takes no more of a latent than its direction.
    latent = (found - normalized(z)).square().mean()
    # At a quarter of the size noise averages out, and what is left is the digit.
    pixels = (F.avg_pool2d(again, 2) - F.avg_pool2d(x, 2)).square().mean()
    return {"encoder_latent": latent, "encoder_pixels": pixels}, latent + _PIXELS * pixels, (x, again)

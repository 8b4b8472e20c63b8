"""Images as pages show them: pixels that need no further request, and what classifiers say of them."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from failscape.explain.method import to_8_bits
from failscape.figures import png_bytes
from failscape.report.drawings import data_uri


def pictures(
    x: Float[Tensor, "N C H W"], judges: Sequence[Float[Tensor, "N K"]], *, digits: int = 4
) -> list[dict[str, Any]]:
    """Return each image as a data URI, with the probabilities that each judge gives its classes."""
    return [
        {
            "image": data_uri(png_bytes(x[row])),
            "judges": [[round(value, digits) for value in probs[row].tolist()] for probs in judges],
        }
        for row in range(len(x))
    ]


def eight_bit(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Return images as they are seen and saved, which is what classifiers are asked about."""
    return to_8_bits(x.detach().cpu())

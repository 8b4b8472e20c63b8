"""What each order of asking brings: how often people contradict the classifier, by what was asked first."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import LabelError
from failscape.labels.records import QUEUES, Event, LabelImage, Queue
from failscape.metrics import Estimate, difference_of_shares, mean_share


@final
@dataclass(frozen=True, kw_only=True)
class OrderShare:
    """How often labels that were asked in one order differ from the classifier.

    Attributes:
        queue: the order.
        labels: how many there are.
        images: of how many images.
        differs: the share of the labels of an image that are not the classifier's class, "not any class" among them,
            averaged over the images, with Wilson's interval. NaN without images.
    """

    queue: Queue
    labels: int
    images: int
    differs: Estimate


@final
@dataclass(frozen=True, kw_only=True)
class OrderComparison:
    """The order of what teaches most against the random one, its control.

    The random order is random among the images that were left when it was asked. Where much was asked in the other
    order before, what is left is not what the project began with.

    Attributes:
        orders: each of `QUEUES`.
        unknown: labels of which the order is not known, or that no queue asked for; they are in neither.
        difference: share of the first order less that of the control, with Newcombe's interval; NaN without both.
    """

    orders: tuple[OrderShare, ...]
    unknown: int
    difference: Estimate


def compare_orders(labels: Sequence[Event], images: Sequence[LabelImage]) -> OrderComparison:
    """Compare how often people contradict the classifier in each order of asking.

    Args:
        labels: labels that hold, as `LabelStore.labels` gives them.
        images: those of the project, as `LabelStore.images` gives them.

    Raises:
        LabelError: if a label is an undo, or of none of the images.
    """
    predictions = {image.id: image.prediction for image in images}
    differing: dict[Queue | None, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for label in labels:
        if label.label is None or label.image_id not in predictions:
            raise LabelError(
                f"Expected labels of the images, but event {label.id} is an undo or of another image. Pass what "
                "LabelStore.labels and LabelStore.images return of one project."
            )
        differing[label.queue][label.image_id].append(label.label != predictions[label.image_id])
    shares = {queue: _shares(differing[queue]) for queue in QUEUES}
    orders = tuple(
        OrderShare(
            queue=queue,
            labels=sum(len(each) for each in differing[queue].values()),
            images=len(shares[queue]),
            differs=mean_share(shares[queue]),
        )
        for queue in QUEUES
    )
    return OrderComparison(
        orders=orders,
        unknown=sum(len(each) for each in differing[None].values()),
        difference=difference_of_shares(shares["teaching"], shares["random"]),
    )


def _shares(differing: dict[str, list[bool]]) -> Float[Tensor, " N"]:
    return torch.tensor([sum(each) / len(each) for each in differing.values()], dtype=torch.float64)

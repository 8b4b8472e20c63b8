"""What is to be labelled: 8-bit images with what the classifier, and the oracle if there is one, make of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data.checks import check_values
from failscape.errors import ClassifierError, DataError, ImageError, LabelError
from failscape.explain import to_8_bits
from failscape.explain.method import Origin

ORIGINS: tuple[Origin, ...] = get_args(Origin)

# How the answer that no class fits is written; no class may be called so.
NOT_ANY_NAME = "not any class"

_TOLERANCE = 1e-3
# What neither databases nor XML can hold.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@final
@dataclass(frozen=True, kw_only=True)
class LabelTask:
    """Images for people to label. `label_task` makes one from images and a classifier.

    Attributes:
        images: with one channel (grey) or three (RGB).
        names: where each image comes from, for exports; different from each other.
        class_names: the answers that there are, besides "not any class".
        probs: the classifier's probabilities of these 8-bit images.
        oracle_probs: the oracle's, if there is one.
        origins: how each image came about.
        priority: what is asked first, the highest value first.
        sources: what each image is or was made from, "" where that is nothing else; images of the same are alike.

    Raises:
        ImageError: if the images have another number of channels, or are empty.
        LabelError: if class names are missing or repeated.
        ClassifierError: if probabilities are not such, or not one row an image and one column a class.
        DataError: if names, origins, priorities or sources do not fit the images.
    """

    images: UInt8[Tensor, "N C H W"]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    probs: Float[Tensor, "N K"]
    oracle_probs: Float[Tensor, "N K"] | None = None
    origins: tuple[Origin, ...]
    priority: Float[Tensor, " N"]
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3) or n == 0:
            raise ImageError(
                f"Expected uint8 images (N, C, H, W) with 1 or 3 channels, but got {self.images.dtype} of shape "
                f"{tuple(self.images.shape)}. Convert them, and leave other channels out."
            )
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise LabelError(f"Expected different class names, one a class, but got {self.class_names!r}.")
        if NOT_ANY_NAME in self.class_names:
            raise LabelError(f"Expected other class names than {NOT_ANY_NAME!r}, which is an answer of its own.")
        for whose, probs in (("classifier", self.probs), ("oracle", self.oracle_probs)):
            if probs is not None:
                _check_probs(probs, (n, len(self.class_names)), whose)
        unsuitable = [name for name in (*self.class_names, *self.names, *self.sources) if _CONTROL.search(name)]
        if unsuitable:
            raise DataError(f"Expected names without control characters, but got {unsuitable[0]!r}. Rename it.")
        if len(self.names) != n or len(set(self.names)) != n or not all(self.names):
            raise DataError(
                f"Expected {n} different names, one an image, but got {len(set(self.names))} among {len(self.names)}."
            )
        unknown = sorted(set(self.origins) - set(ORIGINS))
        if len(self.origins) != n or unknown:
            raise DataError(
                f"Expected {n} origins, each of {', '.join(ORIGINS)}, but got {len(self.origins)}"
                f"{f' with {unknown[0]!r}' if unknown else ''}."
            )
        if len(self.sources) != n:
            raise DataError(f"Expected {n} sources, one an image, but got {len(self.sources)}.")
        if self.priority.shape != (n,) or not self.priority.isfinite().all():
            raise DataError(f"Expected {n} finite priorities, one an image, but got {tuple(self.priority.shape)}.")

    def __len__(self) -> int:
        return len(self.images)


def label_task(
    x: Float[Tensor, "N C H W"],
    classifier: Classifier,
    *,
    oracle: Classifier | None = None,
    names: Sequence[str],
    origin: Origin | Sequence[Origin] = "generated",
    priority: Float[Tensor, " N"] | None = None,
    sources: Sequence[str] | None = None,
) -> LabelTask:
    """Round images to 8 bits, and write down what the classifier and the oracle make of them.

    Args:
        x: in [0, 1]; a set of images gives `images.x`.
        classifier: whose mistakes are looked for; its class names are the answers.
        oracle: a better informed classifier, for the order of the questions.
        names: where each image comes from, such as `images.ids`.
        origin: how the images came about, all alike or one by one.
        priority: what is asked first, the highest first; by default `teaching_value`.
        sources: what each image is or was made from, as a result's `made_from`; by default nothing else.

    Raises:
        ImageError: if a value is NaN or outside [0, 1].
        ClassifierError: if the oracle has other classes.
        DataError: as `LabelTask`.
    """
    if len(names) != len(x):
        raise DataError(f"Expected {len(x)} names, one an image, but got {len(names)}.")
    check_values(x, names)
    if oracle is not None and oracle.class_names != classifier.class_names:
        raise ClassifierError(
            f"Expected an oracle with the classes of the classifier ({', '.join(classifier.class_names)}), but got "
            f"{', '.join(oracle.class_names)}."
        )
    rounded = to_8_bits(x)
    probs = classifier.probs(rounded)
    oracle_probs = None if oracle is None else oracle.probs(rounded)
    return LabelTask(
        images=(rounded * 255).round().to(torch.uint8),
        names=tuple(names),
        class_names=classifier.class_names,
        probs=probs,
        oracle_probs=oracle_probs,
        origins=(origin,) * len(x) if isinstance(origin, str) else tuple(origin),
        priority=teaching_value(probs, oracle_probs) if priority is None else priority,
        sources=("",) * len(x) if sources is None else tuple(sources),
    )


def teaching_value(
    probs: Float[Tensor, "N K"], oracle_probs: Float[Tensor, "N K"] | None = None
) -> Float[Tensor, " N"]:
    r"""Return how much a label of each image should teach: more than 1 where classifier and oracle disagree.

    Where their classes differ it is one plus the total variation $\frac12 \sum_k |p_k - q_k|$ of their
    probabilities; elsewhere it is the nearness to a frontier, $1 - (p_{(1)} - p_{(2)})$, one at a tie and zero where
    the classifier is sure. Without an oracle only the nearness counts.

    References:
        Seung, Opper and Sompolinsky, "Query by committee", COLT 1992, for the disagreement; Scheffer, Decomain and
        Wrobel, "Active hidden Markov models for information extraction", IDA 2001, for the margin.
    """
    first = probs.topk(min(2, probs.shape[1]), dim=1).values
    near = 1 - (first[:, 0] - first[:, 1]) if first.shape[1] == 2 else torch.zeros(len(probs))
    if oracle_probs is None:
        return near
    apart = (probs - oracle_probs).abs().sum(dim=1) / 2
    return torch.where(probs.argmax(dim=1) != oracle_probs.argmax(dim=1), 1 + apart, near)


def _check_probs(probs: Tensor, shape: tuple[int, int], whose: str) -> None:
    if probs.shape != shape:
        raise ClassifierError(
            f"Expected probabilities of the {whose} of shape {shape}, one row an image and one column a class, but "
            f"got {tuple(probs.shape)}."
        )
    if not (probs >= 0).all() or not ((probs.sum(dim=1) - 1).abs() <= _TOLERANCE).all():
        raise ClassifierError(
            f"Expected probabilities of the {whose} that are at least 0 and add up to 1, but got others. Take the "
            "softmax of logits."
        )

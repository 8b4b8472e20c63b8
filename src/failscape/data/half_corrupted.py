"""A set of which a random half is blurred or noised, the rest left as it is."""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data.corruptions import SEVERITIES, corrupt
from failscape.data.images import ImageSet, Source

KINDS = ("gaussian_blur", "gaussian_noise")


class HalfCorrupted:
    """Corrupts images as they are read.

    Which half is corrupted depends on the seed and the number of images; how each image is corrupted, on the
    seed and its index. So reading is lazy, repeatable, and the same in whatever order and batches. Corrupted
    images are rounded to 8 bits.

    Args:
        source: the clean images.
        seed: of all draws.
    """

    def __init__(self, source: Source, *, seed: int = 0) -> None:
        self._source = source
        self._seed = seed
        self.image_shape = source.image_shape
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
        self._chosen = torch.zeros(len(source), dtype=torch.bool)
        self._chosen[order[: len(source) // 2]] = True

    def __len__(self) -> int:
        return len(self._source)

    def corruption_of(self, index: int) -> tuple[str, int] | None:
        """Return the name and severity of an image's corruption, or None if it is clean."""
        return self._draw(index)[0] if self._chosen[index] else None

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        """Read images, corrupted where they are to be."""
        x = self._source.read(indices).clone()
        rows: dict[tuple[str, int], list[int]] = {}
        draws = {}
        for row in self._chosen[indices].nonzero().flatten().tolist():
            corruption, draws[row] = self._draw(int(indices[row]))
            rows.setdefault(corruption, []).append(row)
        for (name, severity), group in rows.items():
            if name == "gaussian_blur":
                # Draws nothing, so images of one severity go together.
                x[group] = corrupt(x[group], name, severity=severity, rng=draws[group[0]])
            else:
                for row in group:
                    x[row] = corrupt(x[row, None], name, severity=severity, rng=draws[row])[0]
        corrupted = list(draws)
        x[corrupted] = (x[corrupted] * 255).round() / 255
        return x

    def _draw(self, index: int) -> tuple[tuple[str, int], torch.Generator]:
        """Draw an image's corruption; return it with the generator for what else it draws."""
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {index}".encode()).digest()[:8]) >> 1
        rng = torch.Generator().manual_seed(seed)
        kind = int(torch.randint(len(KINDS), (), generator=rng))
        severity = int(torch.randint(len(SEVERITIES), (), generator=rng))
        return (KINDS[kind], SEVERITIES[severity]), rng


def half_corrupted(images: ImageSet) -> ImageSet:
    """Return the set with a random half of its images corrupted; labels, names and ids stay."""
    return ImageSet(
        HalfCorrupted(images),
        images.y,
        images.class_names,
        ids=images.ids,
        name=f"{images.name}+half-corrupted",
    )

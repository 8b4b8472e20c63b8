import re

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data import ImageSet
from failscape.errors import DataError, ImageError, LabelError


class Counting:
    """Makes image `i` of the value `i / 1000` and remembers what was asked for."""

    image_shape = (1, 4, 4)

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        self.asked.append(indices.tolist())
        return (indices.float() / 1000)[:, None, None, None].expand(-1, *self.image_shape).clone()


@pytest.fixture
def source() -> Counting:
    return Counting(10)


@pytest.fixture
def images(source: Counting) -> ImageSet:
    return ImageSet(source, torch.arange(10) % 2, ("even", "odd"), name="toy")


def test_nothing_is_read_before_it_is_asked_for(source: Counting, images: ImageSet) -> None:
    chosen = images.select(images.y == 1).select(torch.tensor([4, 0]))
    assert (len(chosen), chosen.ids, chosen.y.tolist(), chosen.image_shape) == (
        2,
        ("toy-00009", "toy-00001"),
        [1, 1],
        (1, 4, 4),
    )
    assert source.asked == []
    assert torch.equal(chosen.read(torch.tensor([1]))[0, 0, 0], torch.full((4,), 0.001))
    assert source.asked == [[1]]


def test_only_the_batch_asked_for_is_read(source: Counting, images: ImageSet) -> None:
    batches = images.batches(4)
    first = next(batches)
    assert source.asked == [[0, 1, 2, 3]]
    assert first.indices.tolist() == [0, 1, 2, 3]
    assert first.ids == images.ids[:4]
    assert [len(batch.x) for batch in batches] == [4, 2]
    assert source.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_all_images_are_read_once_and_kept(source: Counting, images: ImageSet) -> None:
    assert images.x is images.x
    assert torch.equal(images.x[:, 0, 0, 0], torch.arange(10) / 1000)
    assert torch.equal(images.read(torch.tensor([7, 2])), images.x[[7, 2]])
    assert source.asked == [list(range(10))]


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_below_one(images: ImageSet, size: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        images.batches(size)


@pytest.mark.parametrize("index", [-1, 10])
def test_index_outside(images: ImageSet, index: int) -> None:
    for call in (images.read, images.select):
        with pytest.raises(DataError, match="from 0 to 9 in toy"):
            call(torch.tensor([0, index]))


def test_mask_of_another_length(images: ImageSet) -> None:
    with pytest.raises(DataError, match="mask of 10"):
        images.select(torch.ones(9, dtype=torch.bool))


def test_reading_nothing(source: Counting, images: ImageSet) -> None:
    assert images.read(torch.tensor([], dtype=torch.int64)).shape == (0, 1, 4, 4)
    assert source.asked == []


def test_set_of_no_images() -> None:
    images = ImageSet.from_tensors(torch.rand(0, 1, 4, 4), torch.tensor([], dtype=torch.int64), ("a", "b"))
    assert len(images) == len(images.x) == len(images.ids) == 0


def test_empty_selection(images: ImageSet) -> None:
    empty = images.select(torch.zeros(10, dtype=torch.bool))
    assert empty.x.shape == (0, 1, 4, 4)
    assert list(empty.batches(3)) == []
    with pytest.raises(LabelError, match="no image at all"):
        empty.require_two_classes()


def test_fingerprint_follows_every_part_of_the_content() -> None:
    x, y = torch.rand(4, 1, 3, 3), torch.tensor([0, 1, 0, 1])
    one = ImageSet.from_tensors(x, y, ids=list("abcd")).fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert ImageSet.from_tensors(x.clone(), y, ids=list("abcd"), name="other").fingerprint() == one
    changed = x.clone()
    changed[3, 0, 2, 2] = 1 - changed[3, 0, 2, 2]
    others = [
        ImageSet.from_tensors(changed, y, ids=list("abcd")),
        ImageSet.from_tensors(x, 1 - y, ids=list("abcd")),
        ImageSet.from_tensors(x, y, ids=list("abce")),
        ImageSet.from_tensors(x, y, ("p", "q"), list("abcd")),
        ImageSet.from_tensors(x.flip(0), y, ids=list("abcd")),
    ]
    assert len({one, *(images.fingerprint() for images in others)}) == 6


def test_fingerprint_does_not_depend_on_what_was_read_before(images: ImageSet) -> None:
    fresh = ImageSet(Counting(10), images.y, images.class_names, name="toy")
    images.x  # noqa: B018
    assert images.fingerprint() == fresh.fingerprint()


def test_from_tensors_takes_numpy_and_other_floats() -> None:
    x = np.linspace(0, 1, 2 * 9).reshape(2, 1, 3, 3)
    images = ImageSet.from_tensors(x, np.array([0, 2], dtype=np.uint8))
    assert images.x.dtype == torch.float32
    assert images.y.dtype == torch.int64
    assert images.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 3, 3), r"shape \(N, C, H, W\).*\(2, 3, 3\)"),
        (torch.rand(2, 0, 3, 3), r"shape \(N, C, H, W\)"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), "Divide 8-bit images by 255"),
        (torch.tensor([0.0, float("nan")]).reshape(2, 1, 1, 1), r"image images-00001, but got NaN"),
        (torch.tensor([0.0, 255.0]).reshape(2, 1, 1, 1), "got 255 to 255. Divide 8-bit images by 255"),
        (
            torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1),
            "image images-00000, but got -1 to -1. Undo the norm",
        ),
        (torch.tensor([0.0, float("inf")]).reshape(2, 1, 1, 1), "got inf"),
    ],
)
def test_bad_images(x: Tensor, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        ImageSet.from_tensors(x, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 2]), "from 0 to 1, but got 2 for image images-00001"),
        (torch.tensor([-1, -1]), "but got -1 for image images-00000 and 1 more"),
        (torch.tensor([0.0, 1.0]), "integer labels"),
        (torch.tensor([[0, 1], [1, 0]]), "not one-hot"),
        (torch.tensor([True, False]), "integer labels"),
    ],
)
def test_bad_labels(y: Tensor, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        ImageSet.from_tensors(torch.rand(2, 1, 3, 3), y, ("a", "b"))


def test_label_too_large_to_name_all_classes() -> None:
    with pytest.raises(LabelError, match="below 100000"):
        ImageSet.from_tensors(torch.rand(2, 1, 3, 3), torch.tensor([0, 10**12]))


@pytest.mark.parametrize("names", [(), ("a", "a"), "ab"])
def test_bad_class_names(names: tuple[str, ...] | str) -> None:
    with pytest.raises(LabelError, match="different class names"):
        ImageSet.from_tensors(torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), names)


def test_counts_that_differ() -> None:
    with pytest.raises(DataError, match="3 for 2 images"):
        ImageSet.from_tensors(torch.rand(2, 1, 3, 3), torch.tensor([0, 1, 1]))
    with pytest.raises(DataError, match="1 for 2 images"):
        ImageSet.from_tensors(torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), ids=["a"])
    with pytest.raises(DataError, match="different ids"):
        ImageSet.from_tensors(torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), ids=["a", "a"])


def test_one_class_only() -> None:
    images = ImageSet.from_tensors(torch.rand(2, 1, 3, 3), torch.tensor([1, 1]), ("cat", "dog"))
    with pytest.raises(LabelError, match=r"at least 2 classes.*only 'dog'"):
        images.require_two_classes()


class Broken(Counting):
    def __init__(self, x: Tensor) -> None:
        super().__init__(3)
        self.x = x

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        return self.x[indices]


def test_each_read_is_checked() -> None:
    x = torch.rand(3, 1, 4, 4)
    x[1, 0, 0, 0] = float("nan")
    images = ImageSet(Broken(x), torch.tensor([0, 1, 1]), ("a", "b"), ids=("p", "q", "r"))
    assert images.read(torch.tensor([2, 0])).shape == (2, 1, 4, 4)
    with pytest.raises(ImageError, match="image q, but got NaN"):
        images.read(torch.tensor([2, 1]))
    with pytest.raises(ImageError, match="image q, but got NaN"):
        images.fingerprint()


@pytest.mark.parametrize("x", [torch.rand(3, 1, 4, 5), torch.rand(3, 3, 4, 4), torch.rand(3, 1, 4, 4).double()])
def test_a_source_that_breaks_its_word(x: Tensor) -> None:
    images = ImageSet(Broken(x), torch.tensor([0, 1, 1]), ("a", "b"))
    with pytest.raises(ImageError, match="keep to the source's `image_shape`"):
        images.read(torch.tensor([0]))

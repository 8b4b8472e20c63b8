import torch

from failscape.data import ImageSet, corrupt
from failscape.data.half_corrupted import HalfCorrupted, half_corrupted


def clean(count: int) -> ImageSet:
    x = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    return ImageSet.from_tensors(x, torch.arange(count) % 2, name="toy")


def test_exactly_half_with_both_kinds_and_all_severities() -> None:
    source = HalfCorrupted(clean(2000))
    plan = [source.corruption_of(i) for i in range(2000)]
    corrupted = [p for p in plan if p is not None]
    assert len(corrupted) == 1000
    assert len(set(corrupted)) == 10
    blurred = sum(name == "gaussian_blur" for name, _ in corrupted)
    assert abs(blurred - 500) < 4 * 1000**0.5 / 2
    for severity in range(1, 6):
        # Four standard deviations of a binomial count.
        assert abs(sum(s == severity for _, s in corrupted) - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5


def test_reading_does_not_depend_on_order_or_batch() -> None:
    images = half_corrupted(clean(60))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([images.read(torch.tensor([i])) for i in range(60)])
    assert torch.equal(images.read(order), one_by_one[order])
    assert torch.equal(half_corrupted(clean(60)).x, one_by_one)


def test_each_image_is_what_its_corruption_makes_of_it() -> None:
    images = clean(60)
    source = HalfCorrupted(images)
    x = source.read(torch.arange(60))
    for i in range(60):
        match source.corruption_of(i):
            case None:
                assert torch.equal(x[i], images.x[i])
            case "gaussian_blur", severity:
                blurred = corrupt(images.x[i, None], "gaussian_blur", severity=severity, rng=torch.Generator())
                assert torch.equal(x[i], (blurred[0] * 255).round() / 255)
            case _, severity:
                difference = (x[i] - images.x[i]).abs()
                assert difference.mean() > 0.1 * (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]


def test_corrupted_images_are_8_bit_and_labels_stay() -> None:
    before = clean(40)
    images = half_corrupted(before)
    assert torch.equal((images.x * 255).round() / 255, images.x)
    assert torch.equal(images.y, before.y)
    assert images.ids == before.ids
    assert images.name == "toy+half-corrupted"


def test_another_seed_corrupts_others() -> None:
    plans = [[HalfCorrupted(clean(50), seed=seed).corruption_of(i) for i in range(50)] for seed in (0, 1)]
    assert plans[0] != plans[1]

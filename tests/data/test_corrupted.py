import hashlib

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data import ImageSet, corrupt, load_images
from failscape.data.corrupted import (
    HALF_BLURRED_AND_NOISED,
    HALF_CORRUPTED,
    RECIPES,
    Corrupted,
    Recipe,
    corrupted,
    parse_recipe,
)
from failscape.errors import DataError, SpecError

SINGLE = [parse_recipe(text)[0] for text in ("gaussian_blur@2", "shot_noise@4", "jpeg_compression@1")]
ALL = pytest.mark.parametrize("recipe", [*RECIPES.values(), *SINGLE], ids=lambda recipe: recipe.name)


def clean(count: int) -> ImageSet:
    x = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    return ImageSet.from_tensors(x, torch.arange(count) % 2, name="toy")


def changed(one: Tensor, other: Tensor) -> Tensor:
    return (one != other).flatten(1).any(dim=1)


def test_exactly_half_with_both_kinds_and_all_severities() -> None:
    source = Corrupted(clean(2000), HALF_CORRUPTED)
    plans = [source.corruptions_of(i) for i in range(2000)]
    taken = [plan[0] for plan in plans if plan]
    assert {len(plan) for plan in plans} == {0, 1}
    assert len(taken) == 1000
    assert len(set(taken)) == 10
    blurred = sum(name == "gaussian_blur" for name, _ in taken)
    assert abs(blurred - 500) < 4 * 1000**0.5 / 2
    for severity in range(1, 6):
        # Four standard deviations of a binomial count.
        assert abs(sum(s == severity for _, s in taken) - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5


def test_second_half_is_blurred_and_then_noised_with_severities_from_1_to_3() -> None:
    source = Corrupted(clean(2001), HALF_BLURRED_AND_NOISED)
    plans = [source.corruptions_of(i) for i in range(2001)]
    assert set(plans[:1001]) == {()}
    assert {tuple(name for name, _ in plan) for plan in plans[1001:]} == {("gaussian_blur", "gaussian_noise")}
    pairs = [(blur, noise) for (_, blur), (_, noise) in plans[1001:]]
    for pair in ((blur, noise) for blur in (1, 2, 3) for noise in (1, 2, 3)):
        # Four standard deviations of a binomial count: the two severities are independent.
        assert abs(pairs.count(pair) - 1000 / 9) < 4 * (1000 * 8 / 81) ** 0.5


def test_noise_lies_on_the_blurred_image() -> None:
    images = clean(400)
    source = Corrupted(images, HALF_BLURRED_AND_NOISED)
    x = source.read(torch.arange(400))
    for i in range(200, 400):
        (name, blur), (_, noise) = source.corruptions_of(i)
        blurred = corrupt(images.x[i, None], name, severity=blur, rng=torch.Generator())
        # 64 values; clipping only takes away.
        assert (x[i] - blurred[0]).square().mean() ** 0.5 < 1.6 * (0.08, 0.12, 0.18)[noise - 1]


def test_the_embedded_weights_saw_these_very_images() -> None:
    """The draws of the first version, which trained them, written out once more."""
    images = load_images("embedded:mnist-test").select(torch.arange(200))
    chosen = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:100]
    expected, plan = images.x.clone(), []
    for i in sorted(chosen.tolist()):
        seed = int.from_bytes(hashlib.sha256(f"0 {i}".encode()).digest()[:8]) >> 1
        rng = torch.Generator().manual_seed(seed)
        name = ("gaussian_blur", "gaussian_noise")[int(torch.randint(2, (), generator=rng))]
        severity = 1 + int(torch.randint(5, (), generator=rng))
        plan.append(f"{i} {name} {severity}")
        expected[i] = (corrupt(images.x[i, None], name, severity=severity, rng=rng)[0] * 255).round() / 255
    assert torch.equal(corrupted(images, HALF_CORRUPTED).x, expected)
    assert hashlib.sha256("\n".join(plan).encode()).hexdigest().startswith("87dfe73ad1a9")


@ALL
def test_reading_does_not_depend_on_order_or_batch(recipe: Recipe) -> None:
    draws = 3 if recipe.is_random else 1
    images = corrupted(clean(60), recipe, draws=draws)
    order = torch.randperm(60 * draws, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([images.read(torch.tensor([i])) for i in range(60 * draws)])
    assert torch.equal(images.read(order), one_by_one[order])
    assert torch.equal(corrupted(clean(60), recipe, draws=draws).x, one_by_one)


def test_reading_is_lazy() -> None:
    class Spy:
        image_shape = (1, 8, 8)

        def __init__(self) -> None:
            self.asked: list[int] = []

        def __len__(self) -> int:
            return 50

        def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
            self.asked += indices.tolist()
            return torch.zeros(len(indices), 1, 8, 8)

    spy = Spy()
    source = Corrupted(spy, HALF_CORRUPTED, draws=4)
    assert len(source) == 200
    assert spy.asked == []
    source.read(torch.tensor([3, 53, 199]))
    assert spy.asked == [3, 3, 49]


@pytest.mark.parametrize(
    ("recipe", "corrupted_count", "same_count", "tolerance"),
    [
        # An image is the same in two draws if both leave it clean: 100 ± 5 standard deviations of 400.
        (HALF_CORRUPTED, 200, 100, 50),
        (HALF_BLURRED_AND_NOISED, 200, 200, 0),
        (parse_recipe("shot_noise@4")[0], 400, 0, 0),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else "",
)
def test_draws_are_independent_and_the_first_is_the_only_one(
    recipe: Recipe, corrupted_count: int, same_count: int, tolerance: int
) -> None:
    images = clean(400)
    four = corrupted(images, recipe, draws=4)
    draws = four.x.split(400)
    assert torch.equal(draws[0], corrupted(images, recipe).x)
    for i, draw in enumerate(draws):
        assert int(changed(draw, images.x).sum()) == corrupted_count
        for earlier in draws[:i]:
            assert abs(int((~changed(draw, earlier)).sum()) - same_count) <= tolerance
    assert torch.equal(four.y, images.y.repeat(4))
    assert len(set(four.ids)) == 1600
    assert four.ids[:400] == images.ids
    assert (four.ids[400], four.ids[-1]) == ("toy-00000-draw2", "toy-00399-draw4")
    assert four.name == f"toy+{recipe.name}*4"


def test_draws_that_would_be_the_same() -> None:
    with pytest.raises(DataError, match=r"1 draw of gaussian_blur@2, .*but got 4"):
        corrupted(clean(4), parse_recipe("gaussian_blur@2")[0], draws=4)


@ALL
def test_each_image_is_what_its_corruptions_make_of_it(recipe: Recipe) -> None:
    images = clean(60)
    source = Corrupted(images, recipe)
    x = source.read(torch.arange(60))
    for i in range(60):
        match source.corruptions_of(i):
            case ():
                assert torch.equal(x[i], images.x[i])
            case (("gaussian_blur" | "jpeg_compression" as name, severity),):
                expected = corrupt(images.x[i, None], name, severity=severity, rng=torch.Generator())
                assert torch.equal(x[i], (expected[0] * 255).round() / 255)
            case (("gaussian_noise", severity),):
                difference = (x[i] - images.x[i]).abs()
                assert difference.mean() > 0.1 * (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
            case (("shot_noise", 4),):
                assert torch.isin((x[i] * 255).round(), (torch.arange(6) * 51).float()).all()


@ALL
def test_corrupted_images_are_8_bit_and_labels_stay(recipe: Recipe) -> None:
    before = clean(40)
    images = corrupted(before, recipe)
    assert torch.equal((images.x * 255).round() / 255, images.x)
    assert torch.equal(images.y, before.y)
    assert images.ids == before.ids
    assert images.name == f"toy+{recipe.name}"


def test_another_seed_corrupts_others() -> None:
    sources = [Corrupted(clean(50), HALF_CORRUPTED, seed=seed) for seed in (0, 1)]
    plans = [[source.corruptions_of(i) for i in range(50)] for source in sources]
    assert plans[0] != plans[1]


@pytest.mark.parametrize("draws", [0, 101])
def test_number_of_draws(draws: int) -> None:
    with pytest.raises(DataError, match=f"from 1 to 100 draws of half-corrupted, but got {draws}"):
        corrupted(clean(4), HALF_CORRUPTED, draws=draws)


def test_second_half_of_a_sorted_set_is_refused() -> None:
    ordered = clean(40).select(torch.arange(40).view(20, 2).T.flatten())
    with pytest.raises(DataError, match=r"toy is sorted by class.*use half-corrupted"):
        corrupted(ordered, HALF_BLURRED_AND_NOISED)
    assert len(corrupted(ordered, HALF_CORRUPTED)) == 40
    one_class = clean(40).select(torch.arange(0, 40, 2))
    assert len(corrupted(one_class, HALF_BLURRED_AND_NOISED)) == 20


def test_recipes_by_name() -> None:
    assert parse_recipe("half-corrupted") == (HALF_CORRUPTED, 1)
    assert parse_recipe("half-blurred-and-noised*12") == (HALF_BLURRED_AND_NOISED, 12)
    recipe, draws = parse_recipe("speckle_noise@5*2")
    assert (recipe.name, recipe.which, draws) == ("speckle_noise@5", "all", 2)
    assert parse_recipe("contrast@1*1")[1] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "half-corrupted, half-blurred-and-noised, or one of gaussian_noise, .*but got ''"),
        ("half-corupted", "but got 'half-corupted'. Did you mean half-corrupted"),
        ("fog@3", r"but got 'fog'. Check the spelling\.$"),
        ("gaussian-blur@3", "but got 'gaussian-blur'. Did you mean gaussian_blur"),
        ("gaussian_blur", r"severity from 1 to 5 after gaussian_blur, but got none. Write it as in \+gaussian_blur@3"),
        ("gaussian_blur@", "but got none"),
        ("gaussian_blur@6", "severity from 1 to 5 after gaussian_blur, but got 6"),
        ("gaussian_blur@0", "but got 0"),
        ("gaussian_blur@2.5", r"but got 2\.5"),
        ("half-corrupted@3", "half-corrupted without a severity, .*but got '3'. Leave @3 out"),
        ("half-corrupted*0", r"draws from 1 to 100 after \*, but got '0'. Write it as in \+half-corrupted\*4"),
        ("half-corrupted*101", "but got '101'"),
        ("half-corrupted*", "but got ''"),
        ("half-corrupted*-1", "but got '-1'"),
        ("half-corrupted*1.5", "but got '1.5'"),
        ("half-corrupted*٤", "but got '٤'"),
        ("half-corrupted*" + "9" * 5000, "draws from 1 to 100"),
        ("gaussian_blur@3*4", r"1 draw of gaussian_blur@3, .*but got 4. Leave \*4 out"),
        ("gaussian_noise*4@3", r"RECIPE or CORRUPTION@SEVERITY after \+.*but got 'gaussian_noise\*4@3'"),
        ("gaussian_noise@3@3", "RECIPE or CORRUPTION@SEVERITY"),
    ],
)
def test_what_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_recipe(text)

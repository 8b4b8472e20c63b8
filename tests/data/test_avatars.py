import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from failscape.data import HAIR_COLOURS, TRAITS, Avatars, avatar_mask, draw_avatars, load_images
from failscape.data import avatars as avatars_module
from failscape.data.avatar_faces import draw_faces, has_combination, paint_faces
from failscape.data.avatars import parse_avatars
from failscape.errors import DataError, SpecError


@pytest.fixture(scope="module")
def drawn() -> Avatars:
    return draw_avatars(200, seed=3)


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Splits of the same seeds, but of 90, 60 and 70 faces, in a cache of their own."""
    monkeypatch.setenv("FAILSCAPE_CACHE", str(tmp_path))
    monkeypatch.setattr(avatars_module, "AVATAR_SPLITS", {"train": (90, 1), "test": (60, 2), "extra": (70, 3)})
    return tmp_path / "avatars"


def test_a_seed_decides_the_pixels_and_workers_do_not(drawn: Avatars) -> None:
    for workers in (1, 3):
        assert np.array_equal(draw_avatars(200, seed=3, workers=workers).pixels, drawn.pixels)
    assert not np.array_equal(draw_avatars(200, seed=4).pixels, drawn.pixels)


def test_a_face_depends_on_its_place_alone(drawn: Avatars) -> None:
    assert np.array_equal(draw_avatars(17, seed=3).pixels, drawn.pixels[:17])
    left_out = {"glasses": True, "hair": "red"}
    some = draw_avatars(150, seed=3, without=left_out)
    rows = (~has_combination(drawn.faces, left_out)).nonzero().flatten()[:150]
    assert some.faces.ids == drawn.faces.select(rows).ids
    assert np.array_equal(some.pixels, drawn.pixels[rows.numpy()])


def test_every_face_is_another_picture(drawn: Avatars) -> None:
    assert len({face.tobytes() for face in drawn.pixels}) == 200


def test_hair_is_of_the_colour_that_the_label_says(drawn: Avatars) -> None:
    mask = drawn.mask("hair").numpy()
    palette = np.array([list(bytes.fromhex(colour[1:])) for colour in HAIR_COLOURS.values()], float)
    for pixels, where, label in zip(drawn.pixels, mask, drawn.faces.hair_colour.tolist(), strict=True):
        hair = pixels[:, where].T.astype(float)
        assert len(hair) > 150
        nearest = np.linalg.norm(hair[:, None] - palette, axis=2).argmin(axis=1)
        assert np.bincount(nearest, minlength=10).argmax() == label


@pytest.mark.parametrize("trait", TRAITS)
def test_switching_a_trait_changes_only_its_mask_and_visibly(trait: str, drawn: Avatars) -> None:
    switched = drawn.faces.switched(trait)
    other = Avatars(switched, paint_faces(switched))
    mask = drawn.mask(trait).numpy()
    differs = np.abs(drawn.pixels.astype(int) - other.pixels).max(axis=1)
    assert not differs[~mask].any()
    assert differs[mask].all()
    assert torch.equal(other.faces.has(trait), ~drawn.faces.has(trait))
    # What a person can see: in every face at least 15 of 4096 pixels change by a tenth of the whole range.
    assert (differs >= 25).sum(axis=(1, 2)).min() >= 15


def test_masks_lie_where_the_parts_are() -> None:
    faces = draw_faces(60, seed=5)
    heights = {}
    for part in ("hair", "bushy_brows", "wide_eyes", "smile", "suit"):
        rows = avatar_mask(faces, part).any(dim=0).nonzero()[:, 0].double()
        heights[part] = float(rows.mean())
    assert heights["bushy_brows"] < heights["wide_eyes"] < heights["smile"] < heights["suit"]


PARTS = ("body", "clothing", "mouth", "nose", "eyes", "brows")


@pytest.mark.parametrize("part", PARTS)
def test_the_mask_of_a_part_is_what_is_seen_of_it_in_each_face(part: str) -> None:
    faces = draw_faces(60, seed=5)
    mask = avatar_mask(faces, part).numpy()
    whole, without = paint_faces(faces), paint_faces(faces, without=part)
    assert not (whole != without).any(axis=1)[~mask].any()
    assert mask.sum(axis=(1, 2)).min() >= 5
    assert len({each.tobytes() for each in mask}) > 1
    # A trait of the part lies within it: whatever it changes is the part before, or after.
    inside = {"clothing": "suit", "mouth": "smile", "eyes": "wide_eyes", "brows": "bushy_brows"}.get(part)
    if inside:
        switched = avatar_mask(faces.switched(inside), part).numpy()
        assert not avatar_mask(faces, inside).numpy()[~(mask | switched)].any()


def test_parts_lie_in_the_order_of_a_face() -> None:
    faces = draw_faces(60, seed=5)
    middle = {part: avatar_mask(faces, part).any(dim=0).nonzero().double().mean(dim=0) for part in PARTS}
    heights = [float(middle[part][0]) for part in ("brows", "eyes", "nose", "mouth", "clothing")]
    assert heights == sorted(heights)
    # All of them are about as far from the left as from the right.
    assert all(abs(float(place[1]) - 31.5) < 4 for place in middle.values())


def test_hair_colours_and_traits_are_independent_and_equally_frequent() -> None:
    faces = draw_faces(20_000, seed=1)
    counts = torch.bincount(faces.hair_colour, minlength=10).numpy()
    assert stats.chisquare(counts).pvalue > 1e-4
    shares = faces.traits.double().mean(dim=0)
    assert (shares - 0.5).abs().max() < 4 * 0.5 / 20_000**0.5
    columns = {**{name: faces.has(name).numpy() for name in TRAITS}, "hair": faces.hair_colour.numpy()}
    for one, other in combinations(columns.values(), 2):
        assert stats.chi2_contingency(stats.contingency.crosstab(one, other).count).pvalue > 1e-4


@pytest.mark.parametrize("combination", [{"glasses": True, "smile": False}, {"hair": "pink", "beard": True}])
def test_nothing_of_a_left_out_combination_occurs(combination: dict[str, bool | str]) -> None:
    faces = draw_faces(5000, seed=1, without=combination)
    assert len(faces) == 5000
    assert not has_combination(faces, combination).any()
    for name, state in combination.items():
        assert has_combination(faces, {name: state}).any()


def test_sets_for_hair_and_for_each_trait(drawn: Avatars) -> None:
    hair = drawn.by_hair()
    assert (hair.class_names, hair.image_shape, len(hair)) == (tuple(HAIR_COLOURS), (3, 64, 64), 200)
    assert torch.equal(hair.x, torch.from_numpy(drawn.pixels).float() / 255)
    glasses = drawn.by_trait("glasses")
    assert glasses.class_names == ("no glasses", "glasses")
    assert torch.equal(glasses.y.bool(), drawn.faces.traits[:, 0])
    assert glasses.ids[:2] == ("face-3-000000", "face-3-000001")


def test_specs_of_splits_that_share_no_face(small_splits: Path) -> None:
    train, test, extra = (load_images(f"avatars:hair{split}") for split in (":train", "", ":extra"))
    assert (len(train), len(test), test.name) == (90, 60, "avatars-hair-test")
    assert (len(extra), extra.name) == (70, "avatars-hair-extra")
    for one, other in combinations((train, test, extra), 2):
        assert not {image.numpy().tobytes() for image in one.x} & {image.numpy().tobytes() for image in other.x}
        assert not set(one.ids) & set(other.ids)
    smile = load_images("avatars:traits/smile:train")
    assert smile.class_names == ("no smile", "smile")
    assert torch.equal(smile.x, train.x)
    assert len(list(small_splits.iterdir())) == 3


def test_a_spec_that_leaves_a_combination_out(small_splits: Path) -> None:
    images = load_images("avatars:traits/smile:train:without=smile,no-glasses")
    faces = draw_faces(90, seed=1, without={"smile": True, "glasses": False})
    assert images.ids == faces.ids
    assert images.name == "avatars-smile-train-without-smile-no-glasses"
    assert not (images.y.bool() & ~faces.has("glasses")).any()
    assert load_images("avatars:hair:without=red,suit+contrast@1").name.endswith("without-red-suit+contrast@1")


def test_what_is_kept_is_drawn_once_and_again_if_damaged(small_splits: Path) -> None:
    fresh = draw_avatars(30, seed=8)
    assert not small_splits.exists()
    kept = draw_avatars(30, seed=8, keep=True)
    assert isinstance(kept.pixels, np.memmap)
    assert np.array_equal(kept.pixels, fresh.pixels)
    (file,) = small_splits.iterdir()
    before = file.stat().st_mtime_ns
    draw_avatars(30, seed=8, keep=True)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:-1000])
    assert np.array_equal(draw_avatars(30, seed=8, keep=True).pixels, fresh.pixels)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("avatars", "Expected avatars:hair or avatars:traits/NAME"),
        ("avatars:traits", "with glasses, moustache, .*, dark_background for NAME"),
        ("avatars:traits/smlie:train", "got 'avatars:traits/smlie:train'"),
        ("avatars:smile", "got 'avatars:smile'"),
        ("avatars:hair:validation", "then :train, :test, :extra if wanted"),
        ("avatars:hair:train:without=glasses:test", "got 'avatars:hair:train:without=glasses:test'"),
        ("avatars:hair:without=", "after without=, but got ''"),
        ("avatars:hair:without=glasses,no-hat", "but got 'no-hat'"),
        ("avatars:hair:without=glasses,no-glasses", "says two things of glasses"),
        ("avatars:hair:without=red,pink", "says two things of hair"),
        ("avatars:hair:train+half-corupted", "Did you mean half-corrupted"),
    ],
)
def test_specs_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_images(spec)


def test_parsed_specs() -> None:
    assert parse_avatars("avatars:hair") == ("hair", "test", None)
    assert parse_avatars("avatars:hair:train") == ("hair", "train", None)
    assert parse_avatars("avatars:traits/suit:without=no-suit,red") == ("suit", "test", {"suit": False, "hair": "red"})


def test_arguments_that_are_refused(drawn: Avatars) -> None:
    with pytest.raises(DataError, match="at least 1 avatar, but got n=0"):
        draw_avatars(0, seed=0)
    with pytest.raises(DataError, match="at least 1 worker, but got 0"):
        draw_avatars(1, seed=0, workers=0)
    with pytest.raises(DataError, match="at least one trait, but got none"):
        draw_avatars(1, seed=0, without={})
    with pytest.raises(SpecError, match=r"a hair colour of avatars .* but got 'green'"):
        draw_avatars(1, seed=0, without={"hair": "green"})
    with pytest.raises(SpecError, match="True or False for the trait beard, but got 'long'"):
        draw_avatars(1, seed=0, without={"beard": "long"})
    with pytest.raises(SpecError, match=r"a trait of avatars .* but got 'hat'"):
        drawn.by_trait("hat")
    with pytest.raises(SpecError, match=r"a part of avatars \(hair, body, .*glasses.* but got 'hat'"):
        drawn.mask("hat")


@pytest.mark.parametrize("package", ["python_avatars", "resvg_py"])
def test_missing_extra(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAILSCAPE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecError, match=rf"{package} to draw avatars.*pip install 'failscape\[avatars\]'"):
        load_images("avatars:hair")
    with pytest.raises(SpecError, match=r"failscape\[avatars\]"):
        avatar_mask(draw_faces(1, seed=0), "hair")

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import ClassifierError, GeneratorError, ImageError, LabelError, SpecError, UnsupportedGenerator
from failscape.generators import MLP, VAE, ConditionSpace, save_generator
from failscape.study.config import ImagesConfig, StudyConfig
from failscape.study.inputs import (
    Models,
    StepInputs,
    draw_conditions,
    load_labelled,
    load_models,
    select,
    select_for_steps,
)


def by_brightness(x: Tensor) -> Tensor:
    """Class 0 for dark images, 1 for grey, 2 for bright."""
    level = x.flatten(1).mean(dim=1, keepdim=True)
    return -10 * (level - torch.tensor([[0.0, 0.5, 1.0]])).abs()


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(by_brightness, image_shape=(1, 2, 2), class_names=("dark", "grey", "bright"))


def inputs_of(study: dict[str, Any]) -> list[StepInputs]:
    config = StudyConfig.from_mapping(study)
    return [StepInputs.of(step, config) for step in config.steps]


def shades(levels: list[float], labels: list[int]) -> ImageSet:
    x = torch.tensor(levels).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return ImageSet.from_tensors(x, torch.tensor(labels), ("dark", "grey", "bright"), name="shades")


def save(file: Path, x: NDArray[Any], y: list[int]) -> ImagesConfig:
    np.savez(file, x=x, y=np.array(y))
    return ImagesConfig(spec=str(file))


@pytest.mark.parametrize(
    ("only", "limit", "expected", "counts"),
    [
        ("mistakes", None, [1, 3, 5], (6, 3)),
        ("correct", None, [0, 2, 4], (6, 3)),
        ("all", None, [0, 1, 2, 3, 4, 5], (6, 3)),
        ("mistakes", 2, [1, 3], (4, 2)),
        ("correct", 1, [0], (1, 1)),
        ("mistakes", 9, [1, 3, 5], (6, 3)),
    ],
)
def test_the_classifier_decides_what_is_explained(
    classifier: Classifier, only: Any, limit: int | None, expected: list[int], counts: tuple[int, int]
) -> None:
    images = shades([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], [0, 1, 1, 2, 2, 0])
    selection = select(images, classifier, ImagesConfig(spec="shades", only=only, limit=limit))
    assert selection.images.ids == tuple(f"shades-{i:05d}" for i in expected)
    assert selection.images.y.tolist() == images.y[expected].tolist()
    assert (selection.total, selection.classified, selection.correct) == (6, *counts)


def test_only_as_much_is_read_as_the_limit_needs(classifier: Classifier) -> None:
    class Endless:
        image_shape = (1, 2, 2)
        largest = 0

        def __len__(self) -> int:
            return 10**6

        def read(self, indices: Tensor) -> Tensor:
            self.largest = max(self.largest, int(indices.max()))
            return torch.zeros(len(indices), 1, 2, 2)

    source = Endless()
    images = ImageSet(source, torch.ones(10**6, dtype=torch.long), classifier.class_names)
    selection = select(images, classifier, ImagesConfig(spec="endless", limit=1500))
    assert len(selection.images) == selection.classified == 1500
    assert source.largest < 2000


def test_nothing_to_explain_is_an_empty_selection(classifier: Classifier) -> None:
    selection = select(shades([0.0, 1.0], [0, 2]), classifier, ImagesConfig(spec="shades"))
    assert len(selection.images) == 0
    assert selection.describe("mistakes") == ("0 images chosen (mistakes); 0 of the 2 images classified are mistakes.")


def test_a_network_that_returns_nan_is_refused(classifier: Classifier) -> None:
    def sometimes_nan(x: Tensor) -> Tensor:
        return by_brightness(x).masked_fill(x[:, :1, 0, 0] > 0.9, float("nan"))

    broken = Classifier(sometimes_nan, image_shape=(1, 2, 2))
    with pytest.raises(ClassifierError, match="NaN"):
        select(shades([0.0, 1.0], [0, 2]), broken, ImagesConfig(spec="shades"))


def test_classes_of_the_same_names_are_matched_by_name(tmp_path: Path, classifier: Classifier) -> None:
    for name, level in (("bright", 255), ("dark", 0), ("grey", 128)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((2, 2), level, dtype=np.uint8)).save(tmp_path / name / "a.png")
    images = load_labelled(ImagesConfig(spec=str(tmp_path)), classifier)
    assert images.class_names == classifier.class_names
    assert torch.equal(classifier.predict(images.x), images.y)
    assert images.ids[0].startswith("bright")


def test_classes_of_other_names_are_matched_by_number(tmp_path: Path, classifier: Classifier) -> None:
    images = load_labelled(save(tmp_path / "a.npz", np.zeros((3, 2, 2), np.uint8), [2, 0, 1]), classifier)
    assert (images.y.tolist(), images.class_names) == ([2, 0, 1], ("dark", "grey", "bright"))


def test_a_target_takes_the_place_of_labels(tmp_path: Path, classifier: Classifier) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((2, 2), 255, dtype=np.uint8)).save(tmp_path / name)
    files = (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    images = load_labelled(ImagesConfig(files=files, target="grey"), classifier)
    assert (images.y.tolist(), images.ids) == ([1, 1], files)
    with pytest.raises(LabelError, match=r"dark, grey, bright.*'pink'"):
        load_labelled(ImagesConfig(files=files, target="pink"), classifier)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (np.zeros((4, 2, 2), np.uint8), [0, 1, 0, 1], ClassifierError, "as many classes"),
        (np.zeros((4, 2, 2), np.uint8), [0, 1, 2, 3], ClassifierError, "as many classes"),
        (np.zeros((3, 2, 2), np.uint8), [2, 2, 2], LabelError, "at least 2 classes"),
        (np.zeros((3, 2, 2), np.uint8), [0, -1, 2], LabelError, "labels from 0"),
        (np.zeros((3, 3, 3), np.uint8), [0, 1, 2], ClassifierError, r"\(1, 2, 2\).*\(1, 3, 3\)"),
        (np.zeros((3, 2, 2, 3), np.uint8), [0, 1, 2], ClassifierError, r"\(1, 2, 2\).*\(3, 2, 2\)"),
    ],
    ids=["too few classes", "too many", "one class only", "label out of range", "size", "channels"],
)
def test_images_that_do_not_fit_are_refused(
    tmp_path: Path, classifier: Classifier, x: NDArray[Any], y: list[int], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_labelled(save(tmp_path / "a.npz", x, y), classifier)


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_values_outside_0_and_1_are_refused_while_classifying(
    tmp_path: Path, classifier: Classifier, value: float
) -> None:
    x = np.zeros((3, 2, 2), np.float32)
    x[1, 0, 0] = value
    config = save(tmp_path / "a.npz", x, [0, 1, 2])
    with pytest.raises(ImageError, match=r"values in \[0, 1\]"):
        select(load_labelled(config, classifier), classifier, config)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, ("c", "o", "g")),
        ({"generator": "h"}, ("c", "o", "h")),
        ({"oracle": "p"}, ("c", "p", "g")),
        ({"classifier": "d", "oracle": "p"}, ("d", "p", "g")),
        # The study's oracle was made for the study's classifier.
        ({"classifier": "d"}, ("d", None, "g")),
        ({"classifier": "c"}, ("c", None, "g")),
    ],
)
def test_what_a_step_names_itself_takes_the_place_of_what_the_study_names(
    own: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    shared = {"classifier": {"spec": "c"}, "oracle": {"spec": "o"}, "generator": {"spec": "g"}}
    steps = [{"method": "m"} | own, {"method": "m", "images": {"spec": "j"}}]
    first, second = inputs_of({"name": "s", "images": {"spec": "i"}, "steps": steps} | shared)
    assert (first.classifier, first.oracle, first.generator, first.images.spec) == (*expected, "i")
    assert (second.classifier, second.oracle, second.generator, second.images.spec) == ("c", "o", "g", "j")


def test_a_study_loads_each_network_that_a_step_uses_once(world: dict[str, Any], tmp_path: Path) -> None:
    two, three, oracle = world["generator"]["spec"], str(tmp_path / "vae3.safetensors"), world["oracle"]["spec"]
    shared = world["classifier"]["spec"]
    world["steps"] = [
        {"method": "probe"},
        {"method": "probe", "generator": three},
        {"method": "probe", "classifier": oracle, "oracle": shared},
    ]
    models = load_models(inputs_of(world), allow_code=False)
    assert {spec: g.latent_dim for spec, g in models.generators.items()} == {two: 2, three: 3}
    assert set(models.classifiers) == {shared, oracle}
    world["steps"] = [{"method": "probe", "classifier": oracle, "generator": three}]
    models = load_models(inputs_of(world), allow_code=False)
    assert (set(models.classifiers), set(models.generators)) == ({oracle}, {three})


def test_steps_share_a_selection_only_by_the_word_of_one_classifier(tmp_path: Path, classifier: Classifier) -> None:
    images = save(
        tmp_path / "a.npz", np.array([0, 128, 255], np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2), [0, 1, 2]
    )
    # Dark and bright in each other's place.
    other = Classifier(lambda x: by_brightness(1 - x), image_shape=(1, 2, 2), class_names=classifier.class_names)
    models = Models(classifiers={"c": classifier, "d": other}, generators={})
    inputs = [
        StepInputs(classifier=spec, oracle=oracle, generator="g", images=images)
        for spec, oracle in (("c", None), ("d", None), ("c", "d"))
    ]
    selections = select_for_steps(inputs, models)
    assert len(selections) == 2
    assert inputs[0].choice == inputs[2].choice
    assert [len(selections[each.choice].images) for each in inputs] == [0, 2, 0]
    assert selections[inputs[1].choice].images.y.tolist() == [0, 2]


MINE = """
import torch, failscape

def two():
    return failscape.Classifier(lambda x: x.flatten(1)[:, :2], image_shape=(1, 8, 8), name="two")

def large():
    names = ("ant", "bee", "cat")
    return failscape.Classifier(lambda x: x.flatten(1)[:, :3], image_shape=(1, 9, 9), class_names=names, name="large")
"""


@pytest.mark.parametrize(
    ("changes", "own", "kind", "words"),
    [
        ({"generator": "vae9"}, {}, GeneratorError, r"\(1, 8, 8\).*vae9.* draws \(1, 9, 9\)"),
        ({}, {"generator": "vae9"}, GeneratorError, r"\(1, 8, 8\).*vae9.* draws \(1, 9, 9\)"),
        ({}, {"classifier": "large"}, GeneratorError, r"\(1, 9, 9\), as large.*vae.* draws \(1, 8, 8\)"),
        ({"oracle": "two"}, {}, ClassifierError, "same classes .*ant, bee, cat.* as .*two has 0, 1"),
        ({}, {"oracle": "two"}, ClassifierError, "same classes .*ant, bee, cat.* as .*two has 0, 1"),
        ({}, {"oracle": "large"}, ClassifierError, r"image shape \(1, 8, 8\) as .*large has .*\(1, 9, 9\)"),
        ({}, {"classifier": "two", "oracle": "large"}, ClassifierError, r"same classes \(0, 1\)"),
        # Only what the step uses has to fit: the study's oracle is none of this step's.
        ({}, {"classifier": "two"}, None, ""),
        ({"generator": "vae9"}, {"classifier": "large"}, None, ""),
    ],
)
def test_networks_that_do_not_fit_each_other_are_refused(
    world: dict[str, Any], tmp_path: Path, changes: Any, own: Any, kind: type[Exception] | None, words: str
) -> None:
    save_generator(VAE(image_shape=(1, 9, 9), latent_dim=2, hidden=(4,)), tmp_path / "vae9.safetensors")
    (tmp_path / "mine.py").write_text(MINE)
    specs = {name: f"python:{tmp_path / 'mine.py'}:{name}" for name in ("two", "large")}
    specs["vae9"] = str(tmp_path / "vae9.safetensors")
    study = world | {key: {"spec": specs[name]} for key, name in changes.items()}
    study["steps"] = [{"method": "probe"} | {key: specs[name] for key, name in own.items()}]
    if kind is None:
        load_models(inputs_of(study), allow_code=True)
    else:
        with pytest.raises(kind, match=words):
            load_models(inputs_of(study), allow_code=True)


def test_code_is_not_run_without_permission(world: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    for key in ("classifier", "oracle"):
        study = world | {"steps": [{"method": "probe", key: f"python:{tmp_path / 'mine.py'}:two"}]}
        with pytest.raises(SpecError, match="--allow-code"):
            load_models(inputs_of(study), allow_code=False)


def test_images_are_held_against_the_classifier_of_the_step(world: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    world["steps"].append({"method": "probe", "classifier": f"python:{tmp_path / 'mine.py'}:two"})
    inputs = inputs_of(world)
    models = load_models(inputs, allow_code=True)
    with pytest.raises(ClassifierError, match=r"as many classes as .*, 3, but two has 2"):
        select_for_steps(inputs, models)


class TestConditions:
    """Of new images that a generator draws."""

    def generator(self, score: str) -> MLP:
        space = ConditionSpace(num_classes=3, score=score, supported=[[0.6, 0.9], [0.5, 0.8], [0.4, 1.0]])
        return MLP(image_shape=(1, 2, 2), latent_dim=2, hidden=8, condition=space.config)

    def rng(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def test_whole_distributions_are_those_of_real_images(self, classifier: Classifier) -> None:
        images = shades([0.2, 0.4, 0.6, 0.9], [0, 0, 1, 1])
        asked = draw_conditions(self.generator("vector"), classifier, images, 50, rng=self.rng())
        assert asked is not None
        assert asked.probs is not None
        said = classifier.probs((images.x * 255).round() / 255)
        found = {tuple(row) for row in asked.probs.tolist()}
        assert found == {tuple(row) for row in said.tolist()}, "all of them, and no others"
        assert torch.equal(asked.y, asked.probs.argmax(dim=1))
        assert torch.equal(asked.score, asked.probs.amax(dim=1))

    def test_without_images_whole_distributions_are_refused(self, classifier: Classifier) -> None:
        with pytest.raises(UnsupportedGenerator, match="Name a set of images in the study"):
            draw_conditions(self.generator("vector"), classifier, None, 5, rng=self.rng())

    def test_a_class_and_a_score_are_drawn_as_they_are_distributed(self, classifier: Classifier) -> None:
        generator = self.generator("confidence")
        asked = draw_conditions(generator, classifier, None, 50, rng=self.rng())
        assert generator.condition_space is not None
        drawn = generator.condition_space.sample(50, rng=self.rng())
        assert asked is not None
        assert torch.equal(asked.score, drawn.score)
        vae = VAE(image_shape=(1, 2, 2), latent_dim=2, hidden=(8,))
        assert draw_conditions(vae, classifier, None, 5, rng=self.rng()) is None

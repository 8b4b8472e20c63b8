import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, final

import pyarrow as pa
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier, build_network
from failscape.errors import (
    ClassifierError,
    FailscapeError,
    GeneratorError,
    ImageError,
    LabelError,
    UnsupportedClassifier,
    UnsupportedGenerator,
    WeightsError,
)
from failscape.explain import (
    BatchedMethod,
    Method,
    Result,
    SympatheticExamples,
    SympatheticResult,
    Verification,
    load_result,
    to_8_bits,
)
from failscape.explain.method import EIGHT_BITS, SHARED
from failscape.figures import Figure
from failscape.generators import VAE, Generator

SHAPE = (1, 8, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(n: int = 7) -> Tensor:
    return to_8_bits(torch.rand(n, *SHAPE, generator=seeded()))


def wrap(seed: int = 0, num_classes: int = 3, name: str = "toy") -> Classifier:
    network = build_network("plain-cnn", seed=seed, image_shape=SHAPE, num_classes=num_classes, width=4)
    return Classifier(network, image_shape=SHAPE, name=name)


@pytest.fixture
def classifier() -> Classifier:
    return wrap()


@pytest.fixture
def vae() -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(image_shape=SHAPE, latent_dim=2, hidden=(16,)).eval()


@final
@dataclass(frozen=True, kw_only=True)
class ToyResult(Result):
    """Images, made darker, and a field of every kind that a result may have."""

    originals: Float[Tensor, "N C H W"] = field(metadata=EIGHT_BITS)
    target: Int[Tensor, " N"]
    mean: Float[Tensor, " N"]
    draw: Float[Tensor, " N"]
    ids: tuple[str, ...]
    names: tuple[str, ...] = field(metadata=SHARED)
    scale: float
    note: str | None = None
    extra: Float[Tensor, " N"] | None = None

    @property
    def summary(self) -> dict[str, float]:
        return {"mean": float(self.mean.mean())}

    @property
    def table(self) -> pa.Table:
        return pa.table({"id": list(self.ids), "mean": self.mean.numpy()})

    @property
    def definitions(self) -> Mapping[str, str]:
        return {"id": "name", "mean": "mean grey value"}

    @property
    def figures(self) -> Sequence[Figure]:
        return []


class Darken(BatchedMethod[ToyResult]):
    """Multiplies images by `scale`, without rounding them."""

    result_type: ClassVar[type[Result]] = ToyResult

    def __init__(self, *, scale: float = 0.3, batch_size: int = 256, extra: bool = False) -> None:
        self.scale, self.batch_size, self.extra = scale, batch_size, extra

    def map(self, classifier: Any, generator: Any, x: Any, y: Any, *, ids: Any, rng: Any) -> ToyResult:
        mean = x.mean(dim=(1, 2, 3))
        return ToyResult(
            images=self.scale * x,
            originals=x,
            target=y,
            mean=mean,
            draw=torch.rand(len(x), generator=rng),
            ids=ids,
            names=classifier.class_names,
            scale=self.scale,
            extra=mean if self.extra else None,
        )


def leaves(result: Result) -> dict[str, Any]:
    """Return the fields by name, those of the verification apart."""
    found = {entry.name: getattr(result, entry.name) for entry in fields(result)}
    verification = found.pop("verification")
    return found | {"probs": verification.probs, "oracle_probs": verification.oracle_probs}


def assert_same(one: Result, other: Result, but: Sequence[str] = ()) -> None:
    first, second = leaves(one), leaves(other)
    assert first.keys() == second.keys()
    for name in first.keys() - set(but):
        if isinstance(first[name], Tensor):
            assert first[name].dtype == second[name].dtype, name
            assert torch.equal(first[name], second[name]), name
        else:
            assert first[name] == second[name], name
            assert type(first[name]) is type(second[name]), name


def test_rounding_to_8_bits_is_what_saving_as_a_byte_does() -> None:
    x = torch.linspace(-0.2, 1.2, 1401).view(1, 1, 1, -1)
    rounded = to_8_bits(x)
    assert torch.equal(to_8_bits(rounded), rounded)
    assert torch.equal((rounded * 255).round().to(torch.uint8).float() / 255, rounded)
    assert len(rounded.unique()) == 256
    assert (rounded - x.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


class TestVerification:
    def test_is_what_the_classifier_and_the_oracle_say_of_the_8_bit_images(
        self, classifier: Classifier, vae: VAE
    ) -> None:
        x, y, oracle = some_images(), torch.zeros(7, dtype=torch.long), wrap(seed=1)
        result = Darken()(classifier, vae, x, y, rng=seeded(), oracle=oracle)
        assert torch.equal(result.images, to_8_bits(0.3 * x))
        assert not torch.equal(result.images, 0.3 * x)
        verification = result.verification
        assert verification is not None
        assert torch.equal(verification.probs, classifier.probs(result.images))
        assert verification.oracle_probs is not None
        assert torch.equal(verification.oracle_probs, oracle.probs(result.images))
        assert torch.equal(verification.prediction, classifier.predict(result.images))
        assert torch.equal(verification.oracle_prediction, oracle.predict(result.images))

    def test_without_an_oracle_it_says_nothing_of_one(self, classifier: Classifier, vae: VAE) -> None:
        result = Darken()(classifier, vae, some_images(), torch.zeros(7, dtype=torch.long), rng=seeded())
        assert result.verification is not None
        assert result.verification.oracle_probs is None
        assert result.verification.oracle_prediction is None

    def test_what_rounding_loses_is_lost(self, vae: VAE) -> None:
        def fractions(x: Tensor) -> Tensor:
            # Takes an image for class 1 where its grey values lie between those that 8 bits can hold.
            between = (255 * x - (255 * x).round()).abs().amax(dim=(1, 2, 3))
            return torch.stack([torch.full_like(between, 0.01), between], dim=1)

        classifier = Classifier(fractions, image_shape=SHAPE)
        x = some_images()
        assert classifier.predict(0.3 * x).tolist() == [1] * 7
        result = Darken()(classifier, vae, x, torch.ones(7, dtype=torch.long), rng=seeded())
        assert result.verification is not None
        assert result.verification.prediction.tolist() == [0] * 7

    def test_a_method_that_lies_is_found_out(self, classifier: Classifier, vae: VAE) -> None:
        class Liar(Method[SympatheticResult]):
            """Says that it found everything, and returns the images as they were."""

            result_type: ClassVar[type[Result]] = SympatheticResult

            def run(self, classifier: Any, generator: Any, x: Any, y: Any, *, ids: Any, rng: Any) -> Any:
                honest = SympatheticExamples(rounds=0, plane=0).map(classifier, generator, x, y, ids=ids, rng=rng)
                n, k = len(x), classifier.num_classes
                claim = Verification(probs=torch.eye(k)[y])
                return replace(
                    honest,
                    images=x,
                    found=torch.ones(n, dtype=torch.bool),
                    reachable=torch.ones(n, dtype=torch.long),
                    verification=claim,
                )

        x = some_images()
        wrong = (classifier.predict(x) + 1) % 3
        result = Liar()(classifier, vae, x, wrong, rng=seeded())
        assert not result.success.any()
        assert set(result.reasons) == {"lost in rounding"}
        assert result.summary["success"] == 0
        assert result.table["success"].to_pylist() == [False] * 7

    def test_neither_method_nor_result_can_grade_itself(self) -> None:
        for name in ("__call__", "save", "load"):
            owner = Method if name == "__call__" else Result
            assert getattr(owner.__dict__[name], "__final__", False) or getattr(
                owner.__dict__[name].__func__, "__final__", False
            )


X, Y = some_images(4), torch.tensor([0, 1, 2, 0])


def with_value(value: float) -> Tensor:
    x = X.clone()
    x[2, 0, 3, 3] = value
    return x


class Blank(Generator):
    family: ClassVar[str] = "blank"
    latent_dim = 2
    image_shape = SHAPE

    def forward(self, z: Tensor) -> Tensor:
        return torch.zeros(len(z), *SHAPE)


BAD_IMAGES: dict[str, tuple[dict[str, Any], type[FailscapeError], str]] = {
    "wrong size": ({"x": torch.zeros(4, 1, 9, 8)}, ClassifierError, r"\(1, 8, 8\) \(C, H, W\) for toy, but got \(1, 9"),
    "wrong channels": ({"x": torch.zeros(4, 3, 8, 8)}, ClassifierError, r"but got \(3, 8, 8\)"),
    "one image without a batch": ({"x": torch.zeros(1, 8, 8)}, ImageError, r"\(N, C, H, W\), but got .*\(1, 8, 8\)"),
    "no images": ({"x": X[:0], "y": Y[:0]}, ImageError, "at least one image"),
    "8-bit integers": ({"x": (X * 255).to(torch.uint8)}, ImageError, r"float32 .* but got torch\.uint8"),
    "0 to 255": ({"x": X * 255}, ImageError, r"in \[0, 1\], but got values from .* to .*Divide 8-bit images by 255"),
    "just above 1": ({"x": with_value(1.01)}, ImageError, r"in \[0, 1\].* to 1\.01"),
    "below 0": ({"x": with_value(-0.5)}, ImageError, r"values from -0\.5"),
    "NaN": ({"x": with_value(torch.nan)}, ImageError, "NaN"),
    "infinity": ({"x": with_value(torch.inf)}, ImageError, "inf"),
    "float64": ({"x": X.double()}, ImageError, r"float32 .* but got torch\.float64"),
    "label too large": ({"y": torch.tensor([0, 1, 3, 0])}, LabelError, "labels from 0 to 2, .* but got 0 to 3"),
    "negative label": ({"y": torch.tensor([0, -1, 2, 0])}, LabelError, "but got -1 to 2"),
    "float labels": ({"y": Y.float()}, LabelError, r"one integer label an image.* but got torch\.float32"),
    "boolean labels": ({"y": Y > 0}, LabelError, r"but got torch\.bool"),
    "one-hot labels": ({"y": torch.eye(4).long()}, LabelError, r"shape \(4,\), but got .*\(4, 4\)"),
    "too few labels": ({"y": Y[:3]}, LabelError, r"of shape \(3,\)"),
    "too few ids": ({"ids": ["a", "b"]}, LabelError, "one id an image, 4 in all, but got 2"),
    "generator of another size": (
        {"generator": VAE(image_shape=(1, 4, 4), latent_dim=2, hidden=(4,))},
        GeneratorError,
        r"images of shape \(1, 8, 8\), but this one draws \(1, 4, 4\)",
    ),
    "oracle with other classes": ({"oracle": wrap(num_classes=4, name="judge")}, ClassifierError, "judge .* has 4"),
    "oracle with the classes in another order": (
        {"oracle": Classifier(lambda x: x.flatten(1)[:, :3], class_names=list("021"), image_shape=SHAPE, name="judge")},
        ClassifierError,
        "the same classes .*judge",
    ),
    "oracle of another size": (
        {"oracle": Classifier(lambda x: x.flatten(1)[:, :3], image_shape=(1, 4, 4), name="judge")},
        ClassifierError,
        r"judge takes \(1, 4, 4\)",
    ),
    "classifier without gradients": (
        {"classifier": Classifier(lambda x: x.flatten(1).numpy()[:, :3], image_shape=SHAPE)},
        UnsupportedClassifier,
        "gradients for sympathetic examples",
    ),
    "classifier that fails on some images": (
        {"classifier": Classifier(lambda x: (x - 0.25).flatten(1).log()[:, :3], image_shape=SHAPE)},
        ClassifierError,
        "NaN or infinity",
    ),
    "generator without an encoder": ({"generator": Blank()}, UnsupportedGenerator, "an encoder for sympathetic"),
}


class TestBadInput:
    @pytest.mark.parametrize("what", BAD_IMAGES)
    def test_is_refused(self, what: str, classifier: Classifier, vae: VAE, as_installed: None) -> None:
        change, error, message = BAD_IMAGES[what]
        given = {"classifier": classifier, "generator": vae, "x": X, "y": Y, "rng": seeded()} | change
        with pytest.raises(error, match=message) as caught:
            SympatheticExamples(rounds=0, plane=0)(**given)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("Expected ")

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
    def test_labels_may_be_integers_of_any_size(
        self, dtype: torch.dtype, classifier: Classifier, vae: VAE, as_installed: None
    ) -> None:
        method = SympatheticExamples(rounds=0, plane=4)
        narrow = method(classifier, vae, X, Y.to(dtype), rng=seeded())
        assert_same(narrow, method(classifier, vae, X, Y, rng=seeded()))

    def test_ids_default_to_positions(self, classifier: Classifier, vae: VAE) -> None:
        assert Darken()(classifier, vae, X, Y, rng=seeded()).ids == ("0", "1", "2", "3")
        named = Darken()(classifier, vae, X, Y, rng=seeded(), ids=["d", "c", "b", "a"])
        assert named.ids == ("d", "c", "b", "a")


class TestBatches:
    @pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
    def test_result_does_not_depend_on_the_batch_size(self, batch_size: int, classifier: Classifier, vae: VAE) -> None:
        x, y = some_images(), torch.arange(7) % 3
        ids = [f"image-{k}" for k in range(7)]
        whole = Darken(extra=True)(classifier, vae, x, y, rng=seeded(), ids=ids)
        parts = Darken(extra=True, batch_size=batch_size)(classifier, vae, x, y, rng=seeded(), ids=ids)
        # One random stream a batch: that it depends on the batches is agreed.
        assert_same(whole, parts, but=["draw"])
        assert parts.names == classifier.class_names
        assert torch.equal(parts.target, y)

    def test_every_batch_has_its_own_random_stream(self, classifier: Classifier, vae: VAE) -> None:
        def draws(seed: int) -> list[float]:
            result = Darken(batch_size=2)(
                classifier, vae, some_images(), torch.zeros(7, dtype=torch.long), rng=seeded(seed)
            )
            return [float(draw) for draw in result.draw]

        assert draws(0) == draws(0)
        assert not set(draws(0)) & set(draws(1))
        assert len(set(draws(0))) == 7


class TestSaving:
    @pytest.mark.parametrize("extra", [False, True])
    @pytest.mark.parametrize("judged", [False, True])
    def test_round_trip_is_exact(
        self, extra: bool, judged: bool, tmp_path: Path, classifier: Classifier, vae: VAE
    ) -> None:
        oracle = wrap(seed=1) if judged else None
        result = Darken(extra=extra)(classifier, vae, X, Y, rng=seeded(), oracle=oracle)
        result.save(tmp_path)
        assert_same(ToyResult.load(tmp_path), result)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.safetensors"]

    @pytest.mark.parametrize("plane", [0, 5])
    def test_round_trip_of_sympathetic_examples(
        self, plane: int, tmp_path: Path, classifier: Classifier, vae: VAE
    ) -> None:
        method = SympatheticExamples(rounds=0, plane=plane, grid=20)
        # Images that are not 8-bit come back as the result has them, too.
        x = torch.rand(4, *SHAPE, generator=seeded())
        result = method(classifier, vae, x, Y, rng=seeded(), oracle=wrap(seed=1))
        result.save(tmp_path)
        loaded = load_result(tmp_path)
        assert isinstance(loaded, SympatheticResult)
        assert_same(loaded, result)
        assert (loaded.plane_classes is None) == (plane == 0)
        assert loaded.summary == result.summary
        assert loaded.table.equals(result.table)
        assert loaded.reasons == result.reasons

    @pytest.fixture
    def saved(self, tmp_path: Path, classifier: Classifier, vae: VAE) -> Path:
        method = SympatheticExamples(rounds=0, plane=0)
        method(classifier, vae, X, Y, rng=seeded()).save(tmp_path / "saved")
        return tmp_path / "saved"

    @pytest.mark.parametrize("name", ["result.json", "result.safetensors"])
    def test_refuses_half_a_result(self, saved: Path, name: str) -> None:
        (saved / name).unlink()
        with pytest.raises(WeightsError, match=f"readable file .*{name}"):
            load_result(saved)

    @pytest.mark.parametrize(
        "change",
        [
            {"type": "HeatmapResult"},
            {"type": "Unknown"},
            {"type": None},
            {"type": ["SympatheticResult"]},
            {"values": None},
            {"values": {}},
            {"values": [1, 2]},
            {"values": {"prior_length": 1.0, "mode": 7, "confidence": 0.0, "class_names": ["a"], "ids": ["b"]}},
        ],
    )
    def test_refuses_a_document(self, saved: Path, change: dict[str, Any], as_installed: None) -> None:
        path = saved / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(WeightsError, match=r"Expected"):
            load_result(saved)

    def test_refuses_tensors_of_another_save(
        self, saved: Path, tmp_path: Path, classifier: Classifier, vae: VAE, as_installed: None
    ) -> None:
        # A crash between the two files of a save leaves such a pair.
        SympatheticExamples(rounds=0, plane=0)(classifier, vae, X[:2], Y[:2], rng=seeded()).save(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "result.safetensors", saved / "result.safetensors")
        with pytest.raises(WeightsError, match=r"belong together"):
            load_result(saved)

    def test_a_result_is_of_its_own_kind(self, saved: Path) -> None:
        with pytest.raises(WeightsError, match=r"Expected a ToyResult in .*, but got 'SympatheticResult'"):
            ToyResult.load(saved)

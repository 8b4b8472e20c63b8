"""What a search for sympathetic examples found, and how it is shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import EIGHT_BITS, SHARED, Result
from failscape.explain.perturbed import pixel_change
from failscape.figures import (
    Case,
    Figure,
    Finding,
    Gallery,
    LatentPlane,
    Line,
    Panel,
    Plot,
    histogram_pair,
    image_grid,
    percent,
)
from failscape.metrics import Estimate, mean, rate

UNKNOWN = -1

UNREACHABLE = "unreachable class"
LOCAL_MINIMUM = "local minimum"
ROUNDING = "lost in rounding"
NOT_FOUND = "not found"

_EXPLANATIONS = {
    UNREACHABLE: "No point of the latent plane in use gives what was asked for: every point of a fine grid was tried, "
    "four standard deviations of the prior to each side and as far as the images' own latents reach.",
    LOCAL_MINIMUM: "What was asked for exists on the latent plane, but the search stopped before it.",
    ROUNDING: "The search reached the wanted class, but rounding to 8 bits lost it.",
    NOT_FOUND: "The search did not reach what was asked for; whether any latent does is not known.",
}

_DEFINITIONS = {
    "images": "Images that were searched.",
    "success": "Share of images whose 8-bit perturbed image the classifier assigns to the wanted class and, in the "
    "confident mode, with at least the probability asked for. Interval: Wilson, 95 %.",
    "norm": "Euclidean length ‖ε‖ of the latent perturbation, in units of the latent space; the mean is over "
    "successes. Interval: bootstrap, 95 %.",
    "norm_prior": "‖ε‖ divided by the root mean square length of a latent under the generator's prior: 0.1 is a "
    "tenth of the way from the prior's centre to a typical sample.",
    "pixel_distance": "Euclidean distance ‖x′ − x‖ between perturbed and original image, grey values from 0 to 1.",
    "steps": "Gradient evaluations that the search made for the image, over all its starts.",
    "oracle": "Share of successes that the oracle, a classifier trained apart that never guides the search, also "
    "assigns to the wanted class. What only the explained classifier believes is an adversarial artefact.",
    "unreachable": "Failures of which a fine grid over the latent plane shows that no latent reaches the class.",
    "local_minimum": "Failures where a grid shows the class to be reachable: a local minimum blocked the search.",
    "lost_in_rounding": "Failures that the search took for successes before rounding to 8 bits.",
    "not_found": "Failures of which it is not known whether any latent reaches the class.",
    "id": "The image's name in its set.",
    "predicted": "The class that the classifier gives the original image.",
    "wanted": "The class aimed at; for a mistake, the true class.",
    "p_before": "The classifier's probability of the wanted class on the original image.",
    "p_after": "The classifier's probability of the wanted class on the 8-bit perturbed image.",
    "predicted_after": "The class that the classifier gives the 8-bit perturbed image.",
    "oracle_after": "The class that the oracle gives the 8-bit perturbed image.",
    "reason": "Why nothing was found: " + " ".join(f"“{key}”: {text}" for key, text in _EXPLANATIONS.items()),
    "reconstruction": "g(e(x)): what the generator makes of the image's own latent.",
    "perturbation": "x′ − x: what was added to the image, and what was removed.",
    "perturbed": "x′ = g(e(x) + ε) + x − g(e(x)), as saved in 8 bits.",
}


@final
@dataclass(frozen=True, kw_only=True)
class SympatheticResult(Result):
    """What `SympatheticExamples` found, one row an image.

    Attributes:
        images: the perturbed images x', 8-bit values in [0, 1].
        originals: the images given.
        reconstructions: g(e(x)).
        z: latents of the images.
        epsilon: latent perturbations.
        target: the wanted classes.
        found: whether the search itself believes to have succeeded; `success` is what holds.
        reachable: 1 if the class is known to be reachable, 0 if known not to be, `UNKNOWN` otherwise.
        steps: gradient evaluations an image.
        path: points that the search passed, relative to `z`.
        line: class probabilities on even steps from the image to its example.
        prior_length: root mean square length of a latent under the prior.
        mode: the mode of the search.
        smallest: what it made small, "latent" or "image".
        confidence: the probability asked for; 0 where none was.
        class_names: K names.
        ids: the images' names.
        plane_classes: predicted classes over the plane of a two-dimensional latent space.
        plane_loss: cross-entropy to the wanted class there.
        plane_extent: lowest and highest latent of the plane in each coordinate.
    """

    origin = "test"

    originals: Float[Tensor, "N C H W"] = field(metadata=EIGHT_BITS)
    reconstructions: Float[Tensor, "N C H W"] = field(metadata=EIGHT_BITS)
    z: Float[Tensor, "N D"]
    epsilon: Float[Tensor, "N D"]
    target: Int[Tensor, " N"]
    found: Bool[Tensor, " N"]
    reachable: Int[Tensor, " N"]
    steps: Int[Tensor, " N"]
    path: Float[Tensor, "N T D"]
    line: Float[Tensor, "N L K"]
    prior_length: float
    mode: str
    smallest: str = "latent"
    confidence: float
    class_names: tuple[str, ...] = field(metadata=SHARED)
    ids: tuple[str, ...]
    plane_classes: UInt8[Tensor, "N R R"] | None = None
    plane_loss: Float[Tensor, "N R R"] | None = None
    plane_extent: Float[Tensor, "N 4"] | None = None

    @property
    def made_from(self) -> tuple[str, ...]:
        """The images that were given."""
        return self.ids

    @property
    def success(self) -> Bool[Tensor, " N"]:
        """Whether the verified 8-bit image is of the wanted class, with the probability asked for."""
        probs = self._verified_probs
        wanted = probs.gather(1, self.target[:, None])[:, 0]
        return (probs.argmax(dim=1) == self.target) & (wanted >= self.confidence)

    @property
    def norm(self) -> Float[Tensor, " N"]:
        """‖ε‖ in latent units."""
        norm: Tensor = self.epsilon.norm(dim=1)
        return norm

    @property
    def norm_prior(self) -> Float[Tensor, " N"]:
        """‖ε‖ in units of the prior's root mean square length."""
        return self.norm / self.prior_length

    @property
    def pixel_distance(self) -> Float[Tensor, " N"]:
        """‖x' − x‖ with pixels in [0, 1]."""
        distance: Tensor = (self.images - self.originals).flatten(1).norm(dim=1)
        return distance

    @property
    def size(self) -> Float[Tensor, " N"]:
        """What the search made small: ‖ε‖, or the change of the image as a share of the range of grey values."""
        return self.norm if self.smallest == "latent" else pixel_change(self.images - self.originals)

    @property
    def probs_before(self) -> Float[Tensor, "N K"]:
        """The classifier's probabilities on the original images."""
        return self.line[:, 0]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each row failed; empty for successes."""
        reasons = []
        for success, found, reachable in zip(
            self.success.tolist(), self.found.tolist(), self.reachable.tolist(), strict=True
        ):
            if success:
                reasons.append("")
            elif found:
                reasons.append(ROUNDING)
            else:
                reasons.append({1: LOCAL_MINIMUM, 0: UNREACHABLE, UNKNOWN: NOT_FOUND}[reachable])
        return tuple(reasons)

    @property
    def oracle_agrees(self) -> Bool[Tensor, " N"] | None:
        """Whether the oracle, too, gives the wanted class."""
        assert self.verification is not None
        prediction = self.verification.oracle_prediction
        return None if prediction is None else prediction == self.target

    @property
    def summary(self) -> dict[str, float]:
        """Success, norms, oracle agreement, and failures by reason."""
        success, reasons = self.success, self.reasons
        summary: dict[str, float] = {"images": float(len(success))}
        summary |= _spread("success", rate(success))
        summary |= _spread("norm", mean(self.norm[success]))
        if success.any():
            summary["norm_prior"] = self.norm_prior[success].mean().item()
            summary["pixel_distance"] = self.pixel_distance[success].mean().item()
        summary["steps"] = self.steps.float().mean().item()
        if self.oracle_agrees is not None:
            summary |= _spread("oracle", rate(self.oracle_agrees[success]))
        for reason in (UNREACHABLE, LOCAL_MINIMUM, ROUNDING, NOT_FOUND):
            summary[reason.removesuffix(" class").replace(" ", "_")] = float(reasons.count(reason))
        return summary

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        names = self.class_names
        after = self._verified_probs
        rows = torch.arange(len(self.target))
        columns: dict[str, object] = {
            "id": list(self.ids),
            "predicted": [names[k] for k in self.probs_before.argmax(dim=1).tolist()],
            "wanted": [names[k] for k in self.target.tolist()],
            "success": self.success.tolist(),
            "reason": list(self.reasons),
            "norm": self.norm.numpy(),
            "norm_prior": self.norm_prior.numpy(),
            "pixel_distance": self.pixel_distance.numpy(),
            "steps": self.steps.numpy(),
            "p_before": self.probs_before[rows, self.target].numpy(),
            "p_after": after[rows, self.target].numpy(),
            "predicted_after": [names[k] for k in after.argmax(dim=1).tolist()],
        }
        assert self.verification is not None
        if self.verification.oracle_prediction is not None:
            columns["oracle_after"] = [names[k] for k in self.verification.oracle_prediction.tolist()]
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """The cases, a sheet of examples, and the distribution of the norms."""
        figures: list[Figure] = []
        if self.success.any():
            figures.append(
                Plot(
                    name="examples",
                    title="Examples, from the smallest change to the largest",
                    caption="Each row is one image: as given, as the generator reconstructs it, what was added (+) "
                    "and removed (−), and the result. “9 → 4” means: taken for a 9, after the change for a 4.",
                    draw=self._draw_examples,
                )
            )
        if self.success.sum() > 1 and self.oracle_agrees is not None:
            figures.append(
                Plot(
                    name="norms",
                    title="How large a change is needed",
                    caption="‖ε‖ of the successes, apart for those that the oracle, too, assigns to the wanted class "
                    "and for those that it does not.",
                    draw=self._draw_norms,
                )
            )
        gallery = Gallery(
            name="cases",
            title="Every image",
            caption=f"All {len(self.ids)} images.",
            class_names=self.class_names,
            cases=[self.case(row) for row in range(len(self.ids))],
            definitions=_DEFINITIONS,
        )
        return [*figures, gallery]

    @property
    def findings(self) -> Sequence[Finding]:
        """How much has to be added to what is taken for another class, and whether the oracle sees it too."""
        wrong = self.probs_before.argmax(dim=1) != self.target
        right = wrong & self.success
        count, total = int(right.sum()), int(wrong.sum())
        if total == 0:
            return ()
        sure = f", so that it is at least {percent(self.confidence)} sure" if self.confidence else ""
        taken = "that it took for another class than wanted"
        if count == 0:
            return (Finding(sentence=f"No change was found that puts right any of {total:,} images {taken}{sure}."),)
        middle = _middle(right, self.size)
        size = (
            f"of length {self.norm[middle]:.2g}"
            if self.smallest == "latent"
            else f"by {percent(self.size[middle].item())} of the range of grey values in the mean of all pixels"
        )
        all_of_them = "the one image" if total == 1 else f"all {total:,} images"
        some = f"{count:,} of {total:,} images ({percent(count / total)})"
        need = "it needs what" if count == 1 else "half of them need no more than"
        found = Finding(
            sentence=f"A change to the picture puts right {all_of_them if count == total else some} {taken}{sure}; "
            f"{need} is shown here, a change {size}.",
            panels=self._finding_panels(middle),
        )
        agrees = self.oracle_agrees
        if agrees is None:
            return (found,)
        disputed = right & ~agrees
        sentence = (
            f"A second classifier, which judges and never guides, sees the class wanted in "
            f"{int((right & agrees).sum()):,} of the {count:,} images that were put right"
        )
        if not disputed.any():
            return (found, Finding(sentence=sentence + "."))
        sentence += "; where it does not, as here, the change speaks to this classifier alone."
        return (found, Finding(sentence=sentence, panels=self._finding_panels(_middle(disputed, self.size))))

    def with_planes(
        self, classes: UInt8[Tensor, "N R R"], loss: Float[Tensor, "N R R"], extent: Float[Tensor, "N 4"]
    ) -> "SympatheticResult":
        """Return the result with maps of the latent plane."""
        return replace(self, plane_classes=classes, plane_loss=loss, plane_extent=extent)

    def with_path_length(self, length: int) -> "SympatheticResult":
        """Return the result with its paths lengthened by repeating their last points."""
        missing = length - self.path.shape[1]
        return replace(self, path=torch.cat([self.path, self.path[:, -1:].repeat(1, missing, 1)], dim=1))

    def plane(self, row: int) -> LatentPlane | None:
        """Return the map of one image, in absolute latent coordinates."""
        if self.plane_classes is None or self.plane_loss is None or self.plane_extent is None:
            return None
        low_1, high_1, low_2, high_2 = self.plane_extent[row].tolist()
        return LatentPlane(
            classes=self.plane_classes[row].long(),
            loss=self.plane_loss[row].float(),
            extent=(low_1, high_1, low_2, high_2),
            path=self.z[row] + self.path[row],
            target=int(self.target[row]),
        )

    def case(self, row: int) -> Case:
        """Return one image with all that is shown of it."""
        names, target = self.class_names, int(self.target[row])
        before, after = self.probs_before[row], self._verified_probs[row]
        taken_for = names[int(before.argmax())]
        reason = self.reasons[row]
        numbers = {
            "norm": f"{self.norm[row]:.3f}",
            "norm_prior": f"{self.norm_prior[row]:.3f}",
            "pixel_distance": f"{self.pixel_distance[row]:.2f}",
            "steps": str(int(self.steps[row])),
        }
        probabilities = {"before": before, "after": after}
        if self.verification is not None and self.verification.oracle_probs is not None:
            probabilities["oracle, after"] = self.verification.oracle_probs[row]
        others = {"before": int(before.argmax()), "after": int(after.argmax())}
        curves = {names[k]: self.line[row, :, k] for k in dict.fromkeys([target, *others.values()])}
        return Case(
            id=self.ids[row],
            heading=f"{taken_for} → {names[target]}",
            verdict=self._verdict(row, reason),
            good=not reason,
            panels=(
                Panel(label="original", pixels=self.originals[row]),
                Panel(label="reconstruction", pixels=self.reconstructions[row]),
                Panel(label="perturbation", pixels=self.images[row] - self.originals[row], signed=True),
                Panel(label="perturbed", pixels=self.images[row]),
            ),
            probabilities=probabilities,
            numbers=numbers,
            line=Line(
                x=torch.linspace(0, 1, self.line.shape[1]),
                curves=curves,
                x_label="part of the way from the image (0) to the perturbed image (1)",
            ),
            plane=self.plane(row),
        )

    @property
    def _verified_probs(self) -> Float[Tensor, "N K"]:
        assert self.verification is not None, "a result is verified by Method.__call__"
        return self.verification.probs

    def _finding_panels(self, row: int) -> tuple[Panel, ...]:
        before, after = self.probs_before[row], self._verified_probs[row]
        said = [f"{self.class_names[int(p.argmax())]} ({percent(float(p.max()))})" for p in (before, after)]
        return (
            Panel(label=f"before: {said[0]}", pixels=self.originals[row]),
            Panel(label="the change", pixels=self.images[row] - self.originals[row], signed=True),
            Panel(label=f"after: {said[1]}", pixels=self.images[row]),
        )

    def _verdict(self, row: int, reason: str) -> str:
        if reason:
            return f"Failed, {reason}: {_EXPLANATIONS[reason]}"
        wanted = self.class_names[int(self.target[row])]
        after = self._verified_probs[row, int(self.target[row])]
        verdict = f"With this change the classifier says {wanted}, with a probability of {after:.2f}"
        if self.verification is None or self.verification.oracle_prediction is None:
            return verdict + "."
        says = int(self.verification.oracle_prediction[row])
        if says == int(self.target[row]):
            return verdict + "; the oracle agrees."
        return verdict + f"; the oracle says {self.class_names[says]}."

    def _draw_examples(self) -> Drawing:
        shown = self.success.nonzero()[:, 0]
        shown = shown[self.size[shown].argsort()]
        shown = shown[torch.linspace(0, len(shown) - 1, min(8, len(shown))).long()]
        change = self.images - self.originals
        cells = torch.stack([self.originals, self.reconstructions, change, self.images], dim=1)[shown]
        predicted = self.probs_before.argmax(dim=1)
        names = self.class_names
        return image_grid(
            cells,
            row_labels=[f"{names[int(predicted[r])]} → {names[int(self.target[r])]}" for r in shown],
            column_labels=["original", "reconstruction", "perturbation", "perturbed"],
            signed_columns=[2],
        )

    def _draw_norms(self) -> Drawing:
        agrees = self.oracle_agrees
        assert agrees is not None
        return histogram_pair(
            self.norm[self.success & agrees],
            self.norm[self.success & ~agrees],
            names=("oracle agrees", "oracle disagrees"),
            x_label="norm of the latent perturbation ‖ε‖ (latent units)",
        )


def _middle(chosen: Bool[Tensor, " N"], size: Float[Tensor, " N"]) -> int:
    """Return which of the chosen rows has the median size, of two in the middle the smaller."""
    rows = chosen.nonzero()[:, 0]
    return int(rows[size[rows].argsort(stable=True)[(len(rows) - 1) // 2]])


def _spread(name: str, estimate: Estimate) -> dict[str, float]:
    """Return an estimate as scalars of a summary; nothing was observed, nothing is said."""
    if math.isnan(estimate.value):
        return {f"{name}_n": 0.0}
    return estimate.named(name)

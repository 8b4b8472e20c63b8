"""Draw docs/images/mistakes.png, the picture of the README: `python docs/images/make_readme_picture.py`.

The six digits are chosen by hand among the embedded classifier's mistakes; what is shown of them is what
`SympatheticExamples` returns with its defaults, in the mode "confident".
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

import failscape
from failscape.explain import SympatheticExamples, SympatheticResult
from failscape.figures import diverging, house_style

DIGITS = (582, 2654, 4807, 6597, 6505, 4740)
TARGET = Path(__file__).with_name("mistakes.png")
INK, FAINT = "#222222", "#6b6b6b"


def explain() -> SympatheticResult:
    """Explain the six digits."""
    images = failscape.load_images("embedded:mnist-test").select(torch.tensor(DIGITS))
    return SympatheticExamples(mode="confident")(
        failscape.load_classifier("embedded:mnist-clean"),
        failscape.load_generator("embedded:mnist-vae-10d"),
        images.x,
        images.y,
        rng=torch.Generator().manual_seed(0),
        ids=images.ids,
    )


def draw(result: SympatheticResult) -> None:
    """Save the picture: a column a digit, its original, perturbation and result."""
    assert result.verification is not None
    change = result.images - result.originals
    scale = float(change.abs().max())
    with house_style():
        layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
        drawing = Figure(figsize=(1.34 * len(result.ids) + 1.2, 4.75), layout=layout)
        axes = drawing.subplots(3, len(result.ids))
        for column in range(len(result.ids)):
            original, added, perturbed = axes[:, column]
            original.imshow(result.originals[column, 0], cmap="gray", vmin=0, vmax=1)
            added.imshow(diverging(change[column, 0].numpy(), scale))
            perturbed.imshow(result.images[column, 0], cmap="gray", vmin=0, vmax=1)
            wanted, taken = int(result.target[column]), int(result.probs_before[column].argmax())
            before, after = result.probs_before[column, wanted], result.verification.probs[column, wanted]
            article = "an" if wanted == 8 else "a"
            original.set_title(f"taken for {taken},\nis {article} {wanted}", loc="center", fontsize=11, color=INK)
            perturbed.set_xlabel(f"p({wanted}): {before:.2f} → {after:.2f}", fontsize=9.5, color=INK, labelpad=5)
        for row, label in enumerate(("the image", "added (gold),\nremoved (blue)", "the result")):
            axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=11, color=FAINT, labelpad=8)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            for spine in ax.spines.values():
                spine.set_visible(False)
        drawing.savefig(TARGET, metadata={"Software": "failscape"})


if __name__ == "__main__":
    found = explain()
    assert found.success.all(), "every digit of the picture is put right"
    draw(found)

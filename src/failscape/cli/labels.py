"""Commands on what people said: labels status, labels export, labels import."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from failscape.errors import StorageError

if TYPE_CHECKING:
    from failscape.labels import Agreement, LabelStore, OrderComparison
    from failscape.metrics import Estimate

labels = App(name="labels", help="Show, export and import what people said of images.")


@labels.command
def status(run: str, /, *, project: str | None = None, out: Path = Path("runs")) -> int:
    """Show how far the labelling is, how far the labellers agree, and what each order of asking brings.

    Args:
        run: a run folder, "latest", or the URL of a database such as postgresql://HOST/NAME.
        project: one project; by default all.
        out: where "latest" is looked for.
    """
    from failscape.labels import compare_orders, measure_agreement

    with _open(run, out) as store:
        for one in store.projects() if project is None else (store.project(project),):
            held = store.labels(one.id)
            progress = store.progress(one.id, "")
            sys.stdout.write(
                f"{one.name}: {progress.finished:,} of {progress.images:,} images have {one.labellers_per_image} "
                f"label{'s' if one.labellers_per_image > 1 else ''}; {len(held):,} labels\n"
            )
            for name in dict.fromkeys(label.labeller for label in held):
                mine = store.progress(one.id, name)
                pace = "" if mine.per_minute is None else f", {mine.per_minute:.0f} a minute lately"
                sys.stdout.write(f"  {name}: {mine.mine:,} labels, {mine.left:,} images left{pace}\n")
            sys.stdout.write(_agreement_line(measure_agreement(held)))
            sys.stdout.write(_order_lines(compare_orders(held, store.images(one.id))))
    return 0


@labels.command
def export(
    run: str,
    /,
    *,
    kind: Annotated[
        Literal["zip", "folders", "parquet", "label-studio", "fiftyone", "csv"], Parameter(name="--format")
    ],
    to: Path,
    least: int | None = None,
    project: str | None = None,
    out: Path = Path("runs"),
) -> int:
    """Write labels and images for other programs.

    Args:
        run: a run folder, "latest", or the URL of a database.
        kind: zip (images on which people and the classifier differ, and their new labels), folders (one a class),
            parquet, label-studio, fiftyone, or csv (every label of everybody).
        to: a new or empty folder.
        least: labels that an image must have to be decided; by default as many as the project asks for.
        project: which project, where there are several.
        out: where "latest" is looked for.
    """
    from failscape.labels import export_labels, project_of

    with _open(run, out) as store:
        report = export_labels(store, project_of(store, project).id, to, kind=kind, least=least)
    sys.stdout.write(
        f"{report.images:,} images written; {report.unfinished:,} with too few labels, {report.tied:,} tied, "
        f"{report.not_any:,} in no class, {report.unlabelled:,} not labelled\n{report.folder}\n"
    )
    return 0


@labels.command(name="import")
def import_(
    run: str,
    file: Path,
    /,
    *,
    labeller: str | None = None,
    project: str | None = None,
    out: Path = Path("runs"),
) -> int:
    """Take over labels from a CSV file or from what Label Studio exports. Importing it again changes nothing.

    Args:
        run: a run folder, "latest", or the URL of a database.
        file: a .csv file with the columns image or name, and label or class_name; or Label Studio's .json file.
        labeller: whose labels they are, where the file does not say.
        project: which project, where there are several.
        out: where "latest" is looked for.
    """
    from failscape.labels import import_labels, project_of

    with _open(run, out) as store:
        report = import_labels(store, project_of(store, project).id, file, labeller=labeller)
    sys.stdout.write(f"{report.new:,} new labels, {report.changed:,} changed, {report.same:,} as they were\n")
    return 0


def _open(run: str, out: Path) -> "LabelStore":
    from failscape.labels import LabelStore
    from failscape.storage import latest_run_folder

    if "://" in run:
        return LabelStore(run, create=False)
    folder = latest_run_folder(out) if run == "latest" else Path(run)
    if folder is None:
        raise StorageError(f"Expected a run in {out}, but there is none. Run `failscape demo` to make one.")
    return LabelStore(folder, create=False)


def _agreement_line(agreement: "Agreement") -> str:
    if agreement.coefficient is None:
        return "  no image has labels of two people, so agreement is not known\n"
    kappa, percent = agreement.kappa, agreement.percent
    between = "interval not known" if math.isnan(kappa.low) else f"{kappa.low:.3f} to {kappa.high:.3f}"
    return (
        f"  agreement on {agreement.images:,} images: {percent.value:.1%} (95 % interval {percent.low:.1%} to "
        f"{percent.high:.1%}), {agreement.coefficient.capitalize()}'s kappa {kappa.value:.3f} ({between})\n"
    )


def _order_lines(comparison: "OrderComparison") -> str:
    lines = [
        f"  asked {'what teaches most first' if order.queue == 'teaching' else 'at random, as a control'}: "
        f"{_share(order.differs)} of the labels of {order.images:,} images differ from the classifier\n"
        for order in comparison.orders
        if order.images
    ]
    if len(lines) > 1:
        lines.append(f"  difference: {_share(comparison.difference)}\n")
    if comparison.unknown:
        lines.append(f"  asked in an order that is not known: {comparison.unknown:,} labels\n")
    return "".join(lines)


def _share(estimate: "Estimate") -> str:
    return f"{estimate.value:.1%} (95 % interval {estimate.low:.1%} to {estimate.high:.1%})"

"""The command line: which commands there are, and how every error ends."""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

import failscape
from failscape.cli.terminal import fail
from failscape.errors import FailscapeError
from failscape.study.config import first_complaint

app = App(
    name="failscape",
    help=failscape.__doc__,
    version=failscape.__version__,
    help_epilogue="FAILSCAPE_TRACEBACK=1 shows the traceback of an error.",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)

# Named by import path, so that a command's own imports wait until it is called.
app.command("failscape.cli.studies:demo", name="demo", help="Find what makes embedded classifiers fail.")
app.command("failscape.cli.studies:study", name="study", help="Run a study from its TOML file.")
app.command("failscape.cli.studies:explain", name="explain", help="Explain why images were misclassified.")
app.command("failscape.cli.studies:uncertain", name="uncertain", help="Draw what a classifier is unsure of.")
app.command("failscape.cli.method:method", name="method", help="Run one method by its name.")
app.command("failscape.cli.failures:failures", name="failures", help="Find what makes a classifier fail.")
app.command(
    "failscape.cli.failures:corner_cases", name="corner-cases", help="Find the smallest moves that lose a class."
)
app.command("failscape.cli.failures:case_set", name="case-set", help="Write the corner cases of a run as a data set.")
app.command("failscape.cli.classes:converge", name="converge", help="See what a classifier takes each class for.")
app.command("failscape.cli.classes:frontier", name="frontier", help="Draw what lies between classes.")
app.command("failscape.cli.classes:path", name="path", help="Go from class to class and see what is met.")
app.command("failscape.cli.compare:compare", name="compare", help="Put classifiers side by side.")
app.command("failscape.cli.studies:reproduce", name="reproduce", help="Reproduce the experiments of a paper.")
app.command("failscape.cli.train:train", name="train", help="Train a classifier or a generator.")
app.command("failscape.cli.calibrate:calibrate", name="calibrate", help="Fit a classifier's temperature.")
app.command(
    "failscape.cli.retrain:retrain", name="retrain", help="Retrain a classifier on labelled images, and measure it."
)
app.command("failscape.cli.retrain:loop", name="loop", help="Draw, label and retrain, round after round.")
app.command("failscape.cli.labels:labels", name="labels", help="Show, export and import what people said of images.")
app.command("failscape.cli.serve:serve", name="serve", help="Open runs in the browser: explore and label.")
app.command("failscape.cli.studies:report", name="report", help="Write the report of a run again.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 after an error, 130 after an interruption.

    Args:
        arguments: what was typed after `failscape`; by default that of this process.
    """
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (FailscapeError, CycloptsError) as error:
        if os.environ.get("FAILSCAPE_TRACEBACK") == "1":
            raise
        return fail(_message(error))
    except KeyboardInterrupt:
        sys.stderr.write("failscape: interrupted; run the same command to go on\n")
        return 130
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    if isinstance(error, CycloptsError) and isinstance(error.__cause__, ValidationError):
        return first_complaint(error.__cause__, None, "the flags")
    return str(error)

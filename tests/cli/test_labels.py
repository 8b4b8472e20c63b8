import json
from pathlib import Path

import pytest
from tests.labels.conftest import make_project
from tests.labels.test_exports import say

from failscape.cli import main
from failscape.labels import LabelStore


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a project of 6 images and two labellers."""
    folder = tmp_path / "runs" / "00001-toy"
    folder.mkdir(parents=True)
    with LabelStore(folder) as store:
        project = make_project(store, 6, labellers=2)
        say(store, project, "Ada", {0: 0, 1: 1, 2: 2, 3: 0})
        say(store, project, "Bo", {0: 0, 1: 1, 2: 0})
    return folder


def test_status(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "status", "latest", "--out", str(run.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "insects: 3 of 6 images have 2 labels; 7 labels"
    assert lines[1].startswith("  Ada: 4 labels, 2 images left")
    assert lines[2].startswith("  Bo: 3 labels, 3 images left")
    # Agree on 2 of 3; chance: 1/3 * 2/3 + 1/3 * 1/3 + 0 = 1/3.
    assert lines[3].startswith("  agreement on 3 images: 66.7% ")
    assert "Cohen's kappa 0.500 " in lines[3]


def test_export_and_import(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["labels", "export", str(run), "--format", "fiftyone", "--to", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 images written; 1 with too few labels, 1 tied, 0 in no class, 2 not labelled\n")
    assert len(json.loads((out / "labels.json").read_text())["labels"]) == 2
    fewer = tmp_path / "fewer"
    assert main(["labels", "export", str(run), "--format", "fiftyone", "--to", str(fewer), "--least", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 images written; 0 with too few labels, 1 tied, 0 in no class, 2 not labelled\n")

    (tmp_path / "more.csv").write_text("name,label\nimage-04,1\nimage-03,0\n")
    assert main(["labels", "import", str(run), str(tmp_path / "more.csv"), "--labeller", "Bo"]) == 0
    assert capsys.readouterr().out == "2 new labels, 0 changed, 0 as they were\n"
    with LabelStore(run, create=False) as store:
        assert len(store.labels(store.project("insects").id)) == 9


def test_what_goes_wrong_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ["--format", "csv", "--to", str(tmp_path / "out")]
    assert main(["labels", "status", str(tmp_path)]) == 2
    assert "Expected labels at" in capsys.readouterr().err
    assert main(["labels", "status", "latest", "--out", str(tmp_path / "none")]) == 2
    assert "there is none. Run `failscape demo`" in capsys.readouterr().err
    assert main(["labels", "status", "postgresql://me:secret@/x?host=/nowhere"]) == 2
    assert "secret" not in capsys.readouterr().err
    with LabelStore(run) as store:
        make_project(store, 2, name="second")
    assert main(["labels", "export", str(run), *to]) == 2
    assert "but got 'insects', 'second'. Name one with --project" in capsys.readouterr().err
    assert main(["labels", "export", str(run), "--project", "second", *to]) == 2
    assert "nothing is labelled yet" in capsys.readouterr().err

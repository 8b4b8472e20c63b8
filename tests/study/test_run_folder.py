import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from failscape.errors import StorageError
from failscape.explain import Result
from failscape.study.config import StudyConfig
from failscape.study.run_folder import RunFolder, read_steps, write_result


def open_and_close(config: StudyConfig, out: Path, folder: Path | None = None) -> Path:
    with RunFolder.open(config, out=out, folder=folder) as run:
        return run.path


@pytest.fixture
def other(world: dict[str, Any]) -> StudyConfig:
    return StudyConfig.from_mapping(world | {"seed": 1})


def test_the_same_study_goes_on_and_another_gets_a_number(
    tmp_path: Path, config: StudyConfig, other: StudyConfig
) -> None:
    out = tmp_path / "runs"
    assert open_and_close(config, out).name == "00001-toy"
    assert open_and_close(config, out).name == "00001-toy"
    assert open_and_close(other, out).name == "00002-toy"
    assert open_and_close(config, out).name == "00003-toy"
    assert StudyConfig.from_toml(out / "00002-toy" / "study.toml") == other


def test_the_latest_is_found_by_number(tmp_path: Path, config: StudyConfig, other: StudyConfig) -> None:
    out = tmp_path / "runs"
    for number, study in ((99998, other), (99999, other), (100000, config)):
        open_and_close(study, out, folder=out / f"{number:05d}-toy")
    # By name order 99999 would be the last.
    assert open_and_close(config, out).name == "100000-toy"
    assert open_and_close(other, out).name == "100001-toy"


def test_a_given_folder_is_used_as_it_is(tmp_path: Path, config: StudyConfig, other: StudyConfig) -> None:
    folder = tmp_path / "results" / "mine"
    assert open_and_close(config, tmp_path, folder) == folder
    assert open_and_close(config, tmp_path, folder) == folder
    before = (folder / "study.toml").read_bytes()
    with pytest.raises(StorageError, match="holds another"):
        open_and_close(other, tmp_path, folder)
    assert (folder / "study.toml").read_bytes() == before


def test_the_environment_is_written(tmp_path: Path, config: StudyConfig) -> None:
    environment = json.loads((open_and_close(config, tmp_path) / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["torch_threads"] == torch.get_num_threads()


def test_a_second_process_is_kept_out(tmp_path: Path, config: StudyConfig) -> None:
    with (
        RunFolder.open(config, out=tmp_path, folder=None),
        pytest.raises(StorageError, match="another process"),
        RunFolder.open(config, out=tmp_path, folder=None),
    ):
        pytest.fail("two processes write one folder")
    assert open_and_close(config, tmp_path).name == "00001-toy"


def test_a_torn_record_is_cut_off(tmp_path: Path, config: StudyConfig) -> None:
    with RunFolder.open(config, out=tmp_path, folder=None) as run:
        run.log("first", n=1)
    log = run.path / "log.jsonl"
    with log.open("a") as file:
        file.write('{"time": "2026-')
    with RunFolder.open(config, out=tmp_path, folder=None) as run:
        run.log("second")
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["first", "second"]


def test_a_step_appears_whole_or_not_at_all(tmp_path: Path, config: StudyConfig) -> None:
    step = config.steps[0]
    with RunFolder.open(config, out=tmp_path, folder=None) as run:
        final = run.step_folder(1, step)

        def fail_halfway() -> None:
            with run.new_step(1, step) as folder:
                (folder / "half").write_text("")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_halfway()
        assert list(final.parent.iterdir()) == []

        for content in ("old", "new"):
            with run.new_step(1, step) as folder:
                (folder / "step.json").write_text(json.dumps({"status": "done", "fingerprint": content}))
                assert not run.is_done(1, step, content)
            assert run.is_done(1, step, content)
        assert not run.is_done(1, step, "old")
        assert [path.name for path in final.parent.iterdir()] == ["01-first"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, config: StudyConfig) -> None:
    step = config.steps[0]
    with RunFolder.open(config, out=tmp_path, folder=None) as run:
        for leftover in (".01-first.partial", ".01-first.old"):
            (run.path / "steps" / leftover / "figures").mkdir(parents=True)
        with run.new_step(1, step) as folder:
            assert list(folder.iterdir()) == []
        assert [path.name for path in (run.path / "steps").iterdir()] == ["01-first"]


def test_a_result_is_written_as_its_parts(tmp_path: Path, probe: Any) -> None:
    result = probe(plot=True).run(None, None, torch.zeros(3, 1, 8, 8), None, ids=None, rng=torch.Generator())
    write_result(result, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "mean": 0.0,
        "draw": float(result.draw),
        "nothing": None,
    }
    assert pq.read_table(tmp_path / "table.parquet").equals(result.table)
    loaded: Result = type(result).load(tmp_path)
    assert torch.equal(loaded.images, result.images)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["empty.png", "empty.svg"]


def test_steps_are_read_in_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        folder = tmp_path / "steps" / f"{number:02d}-x"
        folder.mkdir(parents=True)
        (folder / "step.json").write_text(json.dumps({"name": str(number)}))
    (tmp_path / "steps" / ".03-x.partial").mkdir()
    steps = [(step["name"], step["folder"]) for step in read_steps(tmp_path)]
    assert steps == [("1", "01-x"), ("2", "02-x"), ("10", "10-x")]


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755)


def test_a_read_only_folder_is_one_line_and_leaves_all_as_it_was(
    readable_by_all: Path, config: StudyConfig, other: StudyConfig
) -> None:
    path = open_and_close(config, readable_by_all)
    before = {file: file.read_bytes() for file in path.iterdir()}
    path.chmod(0o555)
    readable_by_all.chmod(0o555)
    # The superuser may write anywhere.
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match="Permission denied") as new:
            open_and_close(other, readable_by_all)
        with pytest.raises(StorageError, match="Permission denied") as same:
            open_and_close(config, readable_by_all)
    finally:
        if superuser:
            os.seteuid(0)
    assert "\n" not in str(new.value) + str(same.value)
    assert {file: file.read_bytes() for file in path.iterdir()} == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, config: StudyConfig) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(StorageError):
        open_and_close(config, tmp_path / "runs")
    with pytest.raises(StorageError):
        open_and_close(config, tmp_path, folder=tmp_path / "runs")
    assert (tmp_path / "runs").read_text() == "mine"

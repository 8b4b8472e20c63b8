"""Corner cases that people keep: there as a whole or not at all, once, and in the set that a test bench takes."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.web.conftest import CLASSES, Served, serving, walk_of

from failscape.cli import main
from failscape.data import load_images
from failscape.explain import CornerCasesResult, Verification
from failscape.report.run import read_run
from failscape.storage import read_json, write_json
from failscape.web.kept import FOLDER, case_set, keep, picture

PLACES = [
    {"kind": "sample", "value": "3", "moves": [{"direction": 0, "deviations": 4.0}]},
    {"kind": "mean", "value": "8", "moves": [{"direction": 1, "deviations": -3.5}]},
    {"kind": "sample", "value": "5", "moves": [{"direction": 0, "deviations": 2}, {"direction": 2, "deviations": 1}]},
    {"kind": "sample", "value": "7", "moves": []},
]


@pytest.fixture
def run(styled_run: Path, tmp_path: Path) -> Path:
    """A run of one's own."""
    copy = tmp_path / styled_run.name
    shutil.copytree(styled_run, copy, ignore=shutil.ignore_patterns(FOLDER))
    return copy


@pytest.fixture
def served(run: Path) -> Iterator[Served]:
    with serving([run]) as server:
        yield server


def keep_all(served: Served) -> list[str]:
    """Keep four cases, each of them twice, and return their ids."""
    with served.client() as client:
        answers = [client.post(f"{served.run}/directions/keep", json=place).json() for place in PLACES * 2]
    assert [answer["new"] for answer in answers] == [True] * 4 + [False] * 4
    assert [answer["kept"] for answer in answers] == [1, 2, 3, 4, 4, 4, 4, 4]
    return [answer["id"] for answer in answers[:4]]


def downloaded(served: Served, folder: Path) -> Path:
    with served.client() as client:
        answer = client.get(f"{served.run}/directions/export/corner-cases")
    assert answer.status_code == 200, answer.text
    assert "failscape-corner-cases.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(folder)
    return folder


def add_searched(run: Path, styles: int, noise: int) -> CornerCasesResult:
    """Give a run a step that found two corner cases, one of them of a single dimension."""
    probs = torch.full((2, 10), 0.02)
    probs[0, 3], probs[0, 5] = 0.5, 0.34
    probs[1, 8], probs[1, 2] = 0.34, 0.5
    images = (torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    result = CornerCasesResult(
        images=images,
        verification=Verification(probs=probs, oracle_probs=probs),
        originals=images,
        ids=("0000-3-s7", "0001-8-joint"),
        y=torch.tensor([3, 8]),
        dimension=torch.tensor([7, -1]),
        move=torch.tensor([1.5, 2.0]),
        deviations=torch.tensor([3.0, 2.0]),
        place=torch.tensor([0, 2]),
        fall=torch.tensor([0.004, torch.nan]),
        before=torch.tensor([0.9, 0.8]),
        styles=torch.randn(2, styles),
        starts=torch.randn(2, styles),
        noise=torch.randn(2, noise),
        layers=("layer 1", "all"),
        descriptions=("adds ink", ""),
        classes=torch.tensor([3, 8]),
        passed_y=torch.tensor([8]),
        passed_dimension=torch.tensor([2]),
        passed_layers=("layer 1",),
        passed_before=torch.tensor([0.8]),
        passed_lowest=torch.tensor([0.795]),
        without=(),
        asked=1,
        asked_joint=1,
        gradients_missing=0,
        class_names=tuple("0123456789"),
    )
    folder = run / "steps" / "02-corner-cases"
    folder.mkdir()
    result.save(folder)
    record = read_json(run / "steps" / "01-style-influence" / "step.json")
    write_json(folder / "step.json", record | {"name": "corner-cases", "method": "corner-cases", "title": CLASSES[0]})
    return result


def test_the_download_is_a_data_set_as_the_method_exports_its_own(served: Served, run: Path, tmp_path: Path) -> None:
    ids = keep_all(served)
    walk = walk_of(served)
    result = add_searched(run, walk.generator.style_dim, walk.generator.noise_dim)
    with served.client() as client:
        page = client.get(f"{served.run}/directions/kept").text
        assert "4 kept here and 2 found by the step" in page
        assert CLASSES[0] not in page
    folder = downloaded(served, tmp_path / "set")
    own = result.export(tmp_path / "own")
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in own.iterdir())
    table = pq.read_table(folder / "corner-cases.parquet")
    assert set(pq.read_table(own / "corner-cases.parquet").schema.names) <= set(table.schema.names)
    rows = table.to_pylist()
    (passed,) = pq.read_table(folder / "passed-over.parquet").to_pylist()
    assert (passed["true_class"], passed["dimension"], passed["outcome"]) == ("8", 2, "without effect")
    assert passed["origin"] == "02-corner-cases"
    assert [row["id"] for row in rows] == [*result.ids, *ids]
    assert [row["origin"] for row in rows] == ["02-corner-cases"] * 2 + ["kept"] * 4
    assert rows[0]["place"] == "within"
    assert rows[2]["place"] is None
    # The images, by folder of their true class, are those that were seen.
    images = load_images(str(folder / "images"), allow_one_class=True)
    assert len(images) == 6
    by_file = {row["file"].removeprefix("images/"): row for row in rows}
    kept = {case.id: case for case in case_set(read_run(run)).kept}
    for name, x, y in zip(images.ids, images.x, images.y.tolist(), strict=True):
        row = by_file[name]
        assert images.class_names[y] == f"{int(row['true_class']):03d}-{row['true_class']}"
        if row["origin"] == "kept":
            assert torch.allclose(x[:1], picture(kept[row["id"]], run))
            probs = walk.classifier.probs(x[None, :1])[0]
            assert row["probability"] == pytest.approx(float(probs[int(row["true_class"])]), abs=1e-5)
            assert row["says"] == str(int(probs.argmax()))
    # The latents draw the images, and the moves lead from the starts to them.
    latents = load_file(folder / "latents.safetensors")
    assert all(torch.equal(latents[name][:2], getattr(result, name)) for name in ("styles", "starts", "noise"))
    for number, row in enumerate(rows):
        if row["origin"] != "kept":
            continue
        with torch.no_grad():
            again = walk.generator.synthesize(latents["styles"][number][None], latents["noise"][number][None])
        assert (again[0] - picture(kept[row["id"]], run)).abs().max() <= 0.51 / 255
        moved = (latents["styles"] - latents["starts"])[number]
        if row["dimension"] >= 0:
            assert moved.nonzero()[:, 0].tolist() == [row["dimension"]]
            assert row["shift"] == pytest.approx(float(moved[row["dimension"]]), rel=1e-4)
            assert row["direction"] == ("up" if row["shift"] > 0 else "down")
            spread = float(abs(walk.directions[0 if row["dimension"] == walk.directions[0].dimension else 1].unit))
            assert row["deviations"] == pytest.approx(row["shift"] / spread, rel=1e-4)
    assert [row["description"] for row in rows[2:]] == [
        "thins the stroke × +4.0",
        f"{CLASSES[0]} × -3.5",
        "thins the stroke × +2.0; adds ink × +1.0",
        "",
    ]


def test_the_command_writes_what_the_browser_downloads(
    served: Served, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_all(served)
    generator = walk_of(served).generator
    add_searched(run, generator.style_dim, generator.noise_dim)
    folder, target = downloaded(served, tmp_path / "set"), tmp_path / "written"
    assert main(["case-set", str(run), "--to", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    contents = [
        {file.relative_to(place): file.read_bytes() for file in place.rglob("*") if file.is_file()}
        for place in (folder, target)
    ]
    assert contents[0] == contents[1]
    # It writes over nothing.
    assert main(["case-set", str(run), "--to", str(target)]) == 2


@pytest.mark.parametrize(("styles", "noise"), [(1, 0), (0, 1)])
def test_cases_of_a_generator_that_was_changed_do_not_fit(served: Served, run: Path, styles: int, noise: int) -> None:
    """The same spec may name another network once it was trained again."""
    keep_all(served)
    generator = walk_of(served).generator
    add_searched(run, generator.style_dim + styles, generator.noise_dim + noise)
    with served.client() as client:
        answer = client.get(f"{served.run}/directions/export/corner-cases")
    assert answer.status_code == 422
    assert "the generator was changed meanwhile" in answer.json()["error"]


def test_what_a_crash_leaves_behind_does_no_harm(served: Served, run: Path, tmp_path: Path) -> None:
    ids = keep_all(served)
    place = run / FOLDER
    # Killed before the record was written: tensors alone, and a temporary file.
    (place / f"{ids[0]}.json").unlink()
    (place / f".{ids[0]}.json.123.tmp").write_text('{"id"')
    # A record that a disk broke, one of another name, and one without its tensors.
    (place / f"{ids[1]}.json").write_text('{"id": "' + ids[1])
    shutil.copy(place / f"{ids[2]}.json", place / f"{'0' * 16}.json")
    (place / f"{ids[3]}.safetensors").unlink()
    cases = case_set(read_run(run))
    assert [kept.id for kept in cases.kept] == [ids[2]]
    assert cases.unreadable == 3
    with served.client() as client:
        assert "3 of what was kept cannot be read" in client.get(f"{served.run}/directions").text
        rows = pq.read_table(downloaded(served, tmp_path / "set") / "corner-cases.parquet").to_pylist()
        assert [row["id"] for row in rows] == [ids[2]]
        # Kept again, each is whole again.
        for place_ in PLACES:
            client.post(f"{served.run}/directions/keep", json=place_)
    assert {kept.id for kept in case_set(read_run(run)).kept} == set(ids)


def test_a_picture_that_is_broken_can_be_removed(served: Served, run: Path) -> None:
    ids = keep_all(served)
    (run / FOLDER / f"{ids[0]}.safetensors").write_bytes(b"torn")
    with served.client() as client:
        assert "Its picture is broken: remove it." in client.get(f"{served.run}/directions").text
        answer = client.get(f"{served.run}/directions/export/corner-cases")
        assert answer.status_code == 422
        assert "intact safetensors" in answer.json()["error"]
        assert client.delete(f"{served.run}/directions/kept/{ids[0]}").status_code == 200
        assert client.get(f"{served.run}/directions/export/corner-cases").status_code == 200


def test_what_is_removed_is_gone_and_nothing_else(served: Served, run: Path) -> None:
    ids = keep_all(served)
    with served.client() as client:
        for _ in range(2):
            page = client.delete(f"{served.run}/directions/kept/{ids[1]}")
            assert page.status_code == 200
            assert ids[1] not in page.text
            assert all(other in page.text for other in (ids[0], ids[2], ids[3]))
        for wrong in ("..%2f..%2fstudy", "x", f"{ids[0]}.json", "A" * 16):
            assert client.delete(f"{served.run}/directions/kept/{wrong}").status_code in (404, 422)
    assert sorted(path.name for path in (run / FOLDER).iterdir()) == sorted(
        f"{one}.{end}" for one in (ids[0], ids[2], ids[3]) for end in ("json", "safetensors")
    )


def test_cases_of_other_networks_are_counted_and_left_out(served: Served, run: Path) -> None:
    ids = keep_all(served)
    record = run / FOLDER / f"{ids[0]}.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"generator": "embedded:another"}))
    cases = case_set(read_run(run))
    assert {kept.id for kept in cases.kept} == set(ids[1:])
    assert cases.elsewhere == 1
    with served.client() as client:
        assert "1 more is kept that another generator drew" in client.get(f"{served.run}/directions/kept").text


def test_names_of_kept_cases_are_text(served: Served, run: Path) -> None:
    """A record says what a class is called, and may say anything."""
    ids = keep_all(served)
    for one in ids:
        record = run / FOLDER / f"{one}.json"
        content = json.loads(record.read_text())
        names = [f"{CLASSES[0]}{k}" for k in range(10)]
        record.write_text(json.dumps(content | {"class_names": names, "value": "</li><script>x</script>"}))
    with served.client() as client:
        page = client.get(f"{served.run}/directions/kept").text
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page
        assert "<script>x" not in page


def test_the_list_goes_page_by_page(served: Served, run: Path) -> None:
    walk = walk_of(served)
    start = walk.start("sample", "1")
    before = walk.view(start, {})
    for number in range(30):
        moves = {0: -6 + number * 0.4}
        keep(walk.view(start, moves), before, walk, run, start="sample", value="1", moves=moves)
    cases = case_set(read_run(run)).kept
    with served.client() as client:
        first, second = (client.get(f"{served.run}/directions/kept", params={"page": n}).text for n in (1, 2))
        shown = [[kept.id for kept in cases if f'alt="Corner case {kept.id}"' in page] for page in (first, second)]
        assert shown == [[kept.id for kept in cases[-24:]], [kept.id for kept in cases[:-24]]]
        assert client.get(f"{served.run}/directions/kept", params={"page": 0}).status_code == 422


def test_a_run_that_cannot_be_written_says_so(served: Served, run: Path) -> None:
    (run / FOLDER).write_text("in the way")
    with served.client() as client:
        answer = client.post(f"{served.run}/directions/keep", json=PLACES[0])
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("Expected to write ")
        assert client.get(f"{served.run}/directions").status_code == 200


def test_without_a_case_there_is_nothing_to_download(toy_server: Served) -> None:
    with toy_server.client() as client:
        answer = client.get(f"{toy_server.run}/directions/export/corner-cases")
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("Expected a corner case in the set")

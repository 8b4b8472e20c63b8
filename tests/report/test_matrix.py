from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
import torch

from failscape.explain import FrontierResult, Verification
from failscape.report import write_report


@dataclass
class Cell:
    """A cell of the matrix: where it leads, what it shows, and how it is framed."""

    link: str = ""
    text: str = ""
    pictures: list[str] = field(default_factory=list)
    frame: str = ""


class Atlas(HTMLParser):
    """The cells of a page's matrix, row by row, the identifiers of the page, and its text by group of pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[Cell]] = []
        self.listed: list[Cell] = []
        self.ids: list[str] = []
        self.groups: dict[str, Cell] = {}
        self._inside: list[Cell] = []
        self._matrix = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        kind = told.get("class") or ""
        self.ids += [told["id"]] if "id" in told else []
        self._matrix |= kind == "matrix"
        if not self._matrix:
            return
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append(Cell())
            self._inside = [self.rows[-1][-1]]
        elif tag == "ul" and kind == "listed":
            self.listed.append(Cell())
            self._inside = [self.listed[-1]]
        elif tag == "section":
            self._matrix = kind == "group"
            self.groups[told["id"]] = Cell()
            self._inside = [self.groups[told["id"]]]
        elif tag == "a" and self._inside:
            self._inside[0].link, self._inside[0].frame = told["href"], kind
        elif tag == "img" and self._inside:
            assert told["src"].startswith("data:image/png")
            self._inside[0].pictures.append(told["alt"])

    def handle_endtag(self, tag):
        if tag in ("td", "section"):
            self._inside = []

    def handle_data(self, data):
        if self._inside:
            self._inside[0].text += data


@pytest.fixture
def atlas(make_run) -> Atlas:
    """Two images of a | b, of which the oracle has c in the first, none of a | c, and two that are no even pair."""
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.7, 0.3]])
    asked = torch.arange(3).repeat_interleave(2)
    probs = targets[asked]
    probs[asked == 1] = torch.tensor([1.0, 0.0, 0.0])
    oracle = targets[asked].clone()
    oracle[0] = torch.tensor([0.1, 0.0, 0.9])
    names = ("a | b", "a | c", "b=0.7,c=0.3")
    result = FrontierResult(
        images=torch.randint(0, 256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 255,
        ids=tuple(f"{names[row]} {i % 2}" for i, row in enumerate(asked.tolist())),
        asked=asked,
        targets=targets,
        target_names=names,
        log_prior=torch.tensor([2.0, 1.0] * 3),
        realism=torch.full((6,), torch.nan),
        way=torch.ones(6),
        steps=torch.ones(6, dtype=torch.long),
        drawn=torch.tensor([1, 1, 1]),
        samples=3,
        tolerance=0.05,
        shown=16,
        class_names=("a", "b", "c"),
        verification=Verification(probs=probs, oracle_probs=oracle),
    )
    return Atlas(write_report(make_run(result)).read_text())


def test_each_cell_leads_to_the_images_of_its_pair(atlas):
    cells = [row for row in atlas.rows if len(row) == 3]
    assert [[bool(cell.link) for cell in row] for row in cells] == [
        [False, True, True],
        [True, False, False],
        [True, False, False],
    ]
    assert len(set(atlas.ids)) == len(atlas.ids)
    for i, j, title in ((0, 1, "a | b"), (0, 2, "a | c")):
        assert cells[i][j].link == cells[j][i].link
        group = atlas.groups[cells[i][j].link.removeprefix("#")]
        assert cells[i][j].link.removeprefix("#") in atlas.ids
        assert group.text.strip().startswith(title)


def test_a_pair_of_which_nothing_was_found_is_a_dash(atlas):
    _, found, empty = next(row for row in atlas.rows if len(row) == 3)
    assert (found.text.strip(), len(found.pictures)) == ("", 1)
    assert (empty.text.strip(), empty.pictures) == ("–", [])
    group = atlas.groups[empty.link.removeprefix("#")]
    assert "No image was found within the tolerance" in group.text
    assert group.pictures == []


def test_what_only_the_classifier_believes_is_marked_in_its_cell_and_at_its_image(atlas):
    cell = next(cell for row in atlas.rows for cell in row if cell.pictures)
    assert cell.frame == "doubted"
    assert cell.pictures == ["a | b (only the classifier)"]
    group = atlas.groups[cell.link.removeprefix("#")]
    assert len(group.pictures) == 2
    # Of the two images the first alone.
    assert group.text.count("only the classifier") == 1


def test_what_is_no_even_pair_is_listed_below(atlas):
    (listed,) = atlas.listed
    group = atlas.groups[listed.link.removeprefix("#")]
    assert "b=0.7,c=0.3" in listed.text
    assert group.text.strip().startswith("b=0.7,c=0.3")
    assert (len(listed.pictures), len(group.pictures)) == (1, 2)

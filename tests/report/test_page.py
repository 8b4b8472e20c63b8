import json
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from toy import toy_result

from failscape.errors import StorageError
from failscape.figures import Plot, image_grid, save_plot
from failscape.report import write_report
from failscape.storage import read_json, write_bytes, write_json


class Page(HTMLParser):
    """Every element with its attributes, and the text of the page without styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in ("style", "script"):
            self.text += data

    def handle_endtag(self, tag):
        self._inside = ""
        self.text += " " if tag in ("td", "th") else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(run):
    return Page(write_report(run).read_text())


def test_nothing_is_asked_of_the_network(make_run):
    page = read(make_run(toy_result(6)))
    targets = [
        (tag, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert len(targets) > 20
    assert [target for target in targets if not target[1].startswith(("data:", "#"))] == []
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert [tag for tag in ("link", "script", "iframe") if any("src" in e for e in page.all(tag))] == []


def test_hostile_names_are_text_and_nothing_else(make_run):
    hostile = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    run = make_run(toy_result(6, names=(hostile, "nine", "two")), name="00001-<b>&")
    write_json(run / "environment.json", {"<svg onload=alert(3)>": "{{ 7 * 7 }}"})
    page = read(run)
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert hostile in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "<svg onload=alert(3)>" in page.text


def test_every_number_of_the_summary_has_a_definition_one_click_away(make_run):
    page = read(make_run(toy_result(6)))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    terms = [b["popovertarget"] for b in page.all("button") if b.get("class") == "term"]
    assert len(terms) >= 2 + 2 + 6, "summary, table and cases"
    assert set(terms) <= ids
    assert "Share of images that <b>worked</b>." in page.text
    assert "The method gives no definition of this." in page.text


def test_summary_shows_shares_in_percent_with_their_interval(make_run):
    text = " ".join(read(make_run(toy_result(6))).text.split())
    assert "success 66.7 % 50 to 80 % 12" in text
    assert "odd 0.25" in text


def test_pictures_have_texts_and_identifiers_are_unique(make_run):
    page = read(make_run(toy_result(6), toy_result(3)))
    assert len(page.all("img")) == 9 * 3 + 3 + 2, "cases, the case on the first screen, plots"
    assert all((image.get("alt") or "").strip() for image in page.all("img"))
    drawings = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(drawings) == 2 * 9
    assert all(svg["aria-label"] for svg in drawings)
    counts = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [identifier for identifier, count in counts.items() if count > 1] == []
    labelled = [a["aria-labelledby"].split() for _, a in page.elements if a.get("aria-labelledby")]
    assert {part for parts in labelled for part in parts} <= counts.keys()


def test_headings_descend_one_level_at_a_time(make_run):
    page = read(make_run(toy_result(6)))
    levels = []
    for tag, attributes in page.elements:
        if tag in ("h1", "h2", "h3", "h4"):
            levels.append(int(tag[1]))
        elif attributes.get("role") == "heading":
            levels.append(int(attributes["aria-level"]))
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_first_screen_says_what_was_explained(make_run):
    text = " ".join(read(make_run(toy_result(6))).text.split())
    assert "6 mistakes of toy-net, explained" in text
    assert "6 of 50 images (88 % right)" in text


def test_each_step_says_what_it_worked_with(make_run):
    run = make_run(toy_result(3), toy_result(3))
    path = run / "steps/02-step-2/step.json"
    own = {"classifier": "other-net", "oracle": "other-oracle", "images": "other-set"}
    write_json(path, read_json(path) | own)
    text = " ".join(read(run).text.split())
    assert "method toy classifier embedded:toy-net generator toy-vae" in text
    assert "method toy images other-set classifier other-net oracle other-oracle generator toy-vae" in text
    assert "embedded:toy-net, other-net" in text
    assert "6 of 50 images (88 % right, by toy-net)" in text


def test_failures_are_shown_with_their_reason(make_run):
    page = read(make_run(toy_result(6)))
    failed = [d for d in page.all("details") if "failed" in (d.get("class") or "")]
    assert [d["data-good"] for d in failed] == ["bad"] * 2
    assert page.text.count("Failed, local minimum.") >= 2
    assert "2 of 6 failed" in page.text


@pytest.mark.parametrize("damage", ["missing", "truncated", "no record", "raises"])
def test_a_broken_step_becomes_a_sentence_and_the_others_are_shown(make_run, damage):
    run = make_run(toy_result(3), toy_result(3))
    step = run / "steps/01-step-1"
    if damage == "missing":
        (step / "result.safetensors").unlink()
    elif damage == "truncated":
        write_bytes(step / "result.safetensors", (step / "result.safetensors").read_bytes()[:100])
    elif damage == "no record":
        write_bytes(step / "step.json", b"{")
    else:
        toy_result(3, broken=True).save(step)
    page = read(run)
    assert page.text.count("This step could not be read:") == 2, "on the first screen and in its section"
    assert len([d for d in page.all("details") if (d.get("class") or "").startswith("case")]) == 3


def test_failed_and_skipped_steps_say_why(make_run):
    run = make_run(toy_result(3), toy_result(3), toy_result(3))
    for i, (status, error) in enumerate([("failed", "Expected luck."), ("skipped", "No mistakes.")], start=1):
        path = run / f"steps/0{i}-step-{i}/step.json"
        write_json(path, read_json(path) | {"status": status, "error": error})
    text = read(run).text
    assert "This step failed: Expected luck." in text
    assert "This step was skipped: No mistakes." in text


def test_claims_say_in_words_whether_they_were_reached(make_run):
    run = make_run(toy_result(3))
    claim = {"key": "a.b", "what": "Success", "paper": 0.78, "target": ">= 0.99", "value": 0.5}
    claims = [
        claim | {"low": 0.4, "high": 0.6, "n": 10, "reached": False, "note": ""},
        claim | {"reached": True},
        claim | {"reached": None, "value": None},
    ]
    write_bytes(run / "claims.json", json.dumps(claims).encode())
    text = " ".join(read(run).text.split())
    assert "Beside the paper" in text
    assert "0.78 >= 0.99 0.50.4 to 0.6n = 10 no" in text
    assert "0.5 yes" in text
    assert "– not judged" in text


@pytest.mark.parametrize("content", [b"{", b'{"a": 1}', b"[1, null]"])
def test_broken_claims_are_left_out(make_run, content):
    run = make_run(toy_result(3))
    write_bytes(run / "claims.json", content)
    assert "Beside the paper" not in read(run).text


def test_an_empty_run_has_a_report(make_run):
    run = make_run()
    for name in ("study.toml", "environment.json", "selection.json"):
        (run / name).unlink()
    assert "This run has no finished steps." in read(run).text


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(StorageError, match="Expected a run folder"):
        write_report(tmp_path / "nothing")


def test_plots_not_saved_by_the_step_are_drawn(make_run):
    page = read(make_run(toy_result(3), saved_plots=False))
    (plot,) = [image for image in page.all("img") if image["alt"].startswith("A sheet")]
    assert plot["src"].startswith("data:image/png;base64,")


def test_a_plot_too_wide_to_be_shrunk_to_a_telephone_is_scrolled(make_run):
    run = make_run(toy_result(3), toy_result(9))
    regions = [region["aria-label"] for region in read(run).all("div") if region.get("role") == "region"]
    assert "A sheet" not in regions
    # A sheet of pictures in a row, 0.9 inches each.
    for step, columns in (("01-step-1", 3), ("02-step-2", 9)):
        drawing = image_grid(torch.zeros(1, columns, 1, 4, 4))
        save_plot(
            Plot(name="sheet", title="", caption="", draw=lambda drawing=drawing: drawing),
            run / "steps" / step / "figures",
        )
    page = read(run)
    assert [region["aria-label"] for region in page.all("div") if region.get("role") == "region"].count("A sheet") == 1


def test_the_same_run_gives_the_same_bytes(make_run, tmp_path):
    run = make_run(toy_result(6))
    first = write_report(run).read_bytes()
    elsewhere = tmp_path / "elsewhere" / run.name
    shutil.copytree(run, elsewhere)
    assert write_report(elsewhere).read_bytes() == first


def test_a_gallery_of_170_cases_stays_small(make_run):
    assert write_report(make_run(toy_result(170))).stat().st_size < 12e6


def first_page(run):
    """Return the page up to the contents, which lead on to the details."""
    html = write_report(run).read_text()
    return Page(html.partition("<nav")[0]), html


def test_findings_lead_each_with_its_pictures_and_the_way_to_its_step(make_run):
    run = make_run(toy_result(6, sentences=("A1.", "A2 <b>&.")), toy_result(6), toy_result(6, sentences=("C1.",)))
    page, html = first_page(run)
    text = " ".join(page.text.split())
    for before, after in pairwise(("What makes it fail", "A1.", "C1.", "A2 <b>&.", "The same in numbers", "66.7 %")):
        assert text.index(before) < text.index(after)
    links = [link["href"] for link in page.all("a") if (link["href"] or "").startswith("#s")]
    assert links == ["#s1", "#s3", "#s1", "#s1", "#s2", "#s3"], "three sentences, then the numbers of all steps"
    assert {link.removeprefix("#") for link in links} <= {a["id"] for _, a in Page(html).elements if "id" in a}
    pictures = page.all("img")
    assert [image["alt"] for image in pictures] == ["Picture 1 of 1, before: <9>"], "and no case beside them"
    assert pictures[0]["class"] == "pixelated"
    assert "loading" not in pictures[0], "what is on the first page is there when it is printed"


def test_without_findings_the_summary_opens_as_before(make_run):
    page, _ = first_page(make_run(toy_result(6)))
    assert "What was found" in page.text
    assert "What makes it fail" not in page.text
    assert len(page.all("img")) == 3, "the case beside the summary"


def test_what_is_missing_is_named_after_the_findings(make_run):
    run = make_run(toy_result(3, sentences=("A1.",)), toy_result(3), toy_result(3), toy_result(3))
    for i, (status, error) in enumerate([("failed", "Expected luck."), ("skipped", "No mistakes.")], start=2):
        path = run / f"steps/0{i}-step-{i}/step.json"
        write_json(path, read_json(path) | {"status": status, "error": error})
    (run / "steps/04-step-4/result.json").unlink()
    page, _ = first_page(run)
    text = " ".join(page.text.split())
    assert "Nothing is said here of Step 2. This step failed: Expected luck." in text
    assert "Nothing is said here of Step 3. This step was skipped: No mistakes." in text
    assert "Nothing is said here of Step 4. This step could not be read:" in text
    assert text.count("Expected luck.") == 1, "the numbers do not repeat it"


def test_findings_that_cannot_be_shown_do_not_cost_the_details(make_run, monkeypatch):
    run = make_run(toy_result(3, sentences=("A1.",)), toy_result(3))

    def broken(result):
        if result.sentences:
            return honest(result)
        raise KeyError("lost")

    honest = type(toy_result(1)).findings.fget
    monkeypatch.setattr(type(toy_result(1)), "findings", property(broken))
    page, html = first_page(run)
    assert "Nothing is said here of Step 2. Its findings could not be shown: KeyError: 'lost'" in " ".join(
        page.text.split()
    )
    assert len([d for d in Page(html).all("details") if (d.get("class") or "").startswith("case")]) == 6


def test_a_comparison_is_named_by_all_that_is_compared(make_run):
    run = make_run(toy_result(3, sentences=("A1.",)), toy_result(3))

    def compare(*others):
        for i, names in enumerate(others, start=1):
            path = run / f"steps/0{i}-step-{i}/step.json"
            write_json(path, read_json(path) | {"compared_with": names})
        return " ".join(read(run).text.split())

    text = compare(["embedded:b", "c"], ["embedded:b", "c"])
    assert "toy-net, b and c, compared" in text
    assert "How they fail" in text
    assert "Compared withembedded:b, c" in text
    assert "compared with embedded:b, c generator" in text
    text = compare(["embedded:b"], [])
    assert "6 mistakes of toy-net, explained" in text
    assert "What makes it fail" in text

from html import escape

from tests.web.conftest import CLASSES, TITLE, Served

from failscape.report.run import read_run


def test_the_overview_says_what_was_found_and_every_finding_leads_to_its_step(toy_server: Served) -> None:
    run = next(iter(toy_server.site.runs.values()))
    findings = [finding for step in read_run(run.folder).steps for finding in step.result.findings]
    assert findings
    with toy_server.client() as client:
        first = client.get("/", follow_redirects=True)
        assert str(first.url) == f"{toy_server.run}/overview"
        for finding in findings[:5]:
            assert escape(finding.sentence, quote=False) in first.text.replace("&#39;", "'").replace("&#34;", '"')
        assert f'href="/runs/{run.id}/steps/1"' in first.text
        step = client.get(f"{toy_server.run}/steps/1")
        assert step.status_code == 200
        assert "Share of images whose 8-bit perturbed image" in step.text
        assert client.get(f"{toy_server.run}/steps/2").text.count("Edge cases") >= 2


def test_names_are_never_markup(toy_server: Served) -> None:
    with toy_server.client() as client:
        pages = [client.get(f"{toy_server.run}/{place}").text for place in ("overview", "steps/1", "steps/2", "label")]
        project = pages[3].partition('href="label/')[2].partition('"')[0]
        pages.append(client.get(f"{toy_server.run}/label/{project}").text)
    assert escape(CLASSES[0]) in pages[4]
    for page in pages:
        assert CLASSES[0] not in page
        assert TITLE not in page
        assert "style=" not in page
        assert "<script>" not in page


def test_a_run_is_named_by_nothing_of_its_path(toy_server: Served) -> None:
    run = next(iter(toy_server.site.runs.values()))
    with toy_server.client() as client:
        text = client.get("/", follow_redirects=True).text
    assert run.name in text
    assert run.id.isalnum()
    assert str(run.folder.parent) not in text.replace(str(run.folder.parents[1]), "")

import math

import pytest

from failscape.report.wording import Glossary, interval, number, summary_rows


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72.0, "72"),
        (10000, "10,000"),
        (0.24100705, "0.241"),
        (-0.5, "−0.5"),
        (63.958, "64"),
        (1234.56, "1,234.6"),
        (0.00001234, "1.2e−05"),
        (math.nan, "–"),
        (None, "–"),
        (math.inf, "∞"),
        (True, "yes"),
        ("text", "text"),
        (["a", 0.5], "a, 0.5"),
    ],
)
def test_numbers_read_as_a_person_would_write_them(value, text):
    assert number(value) == text


def test_shares_are_in_percent_and_an_interval_names_the_unit_once():
    assert number(0.9722, share=True) == "97.2\N{NO-BREAK SPACE}%"
    assert interval(0.9042, 0.9923, share=True) == "90.4 to 99.2\N{NO-BREAK SPACE}%"
    assert interval(math.nan, 1.0) == interval(None, 1.0) == ""


def test_interval_and_count_join_the_line_of_their_number():
    glossary = Glossary("p", {"rate": "Rate of it.", "gone": "Mean of nothing."})
    rows = summary_rows({"rate": 0.5, "rate_low": 0.4, "rate_high": 0.6, "rate_n": 9, "gone_n": 0}, glossary)
    assert [(row.term.text, row.count) for row in rows] == [("rate", "9"), ("gone", "0")]
    assert rows[0].interval == "40 to 60\N{NO-BREAK SPACE}%"
    assert rows[1].value == "–"
    assert [row.term.ref for row in rows] == ["p-0", "p-1"]


def test_a_key_that_only_looks_like_a_companion_keeps_its_line():
    assert [row.term.text for row in summary_rows({"very_low": 1.0}, Glossary("p", {}))] == ["very low"]

import json
import math
from pathlib import Path

import pytest

from failscape.metrics import Estimate
from failscape.study.reproduce.claims import Claim, write_metrics

SOME = Estimate(value=0.5, low=0.25, high=0.75, n=8)
NOTHING = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)


@pytest.mark.parametrize(
    ("bounds", "value", "reached"),
    [
        ({"at_least": 0.9}, 0.9, True),
        ({"at_least": 0.9}, 0.95, True),
        ({"at_least": 0.9}, 0.8999, False),
        ({"at_least": 0.0}, 0.0, True),
        ({"at_least": 0.0}, -1e-9, False),
        ({"at_most": 0.4}, 0.4, True),
        ({"at_most": 0.4}, 0.1, True),
        ({"at_most": 0.4}, 0.4001, False),
        ({"at_most": 0.0}, 0.0, True),
        ({"at_least": 1.0, "at_most": 2.0}, 1.5, True),
        ({"at_least": 1.0, "at_most": 2.0}, 2.5, False),
        ({"at_least": 1.0, "at_most": 2.0}, 0.5, False),
        ({"above": 0.0}, 0.0, False),
        ({"above": 0.0}, 1e-9, True),
        ({"above": 0.0}, math.nan, None),
        ({}, 0.5, None),
        ({"at_least": 0.9}, math.nan, None),
    ],
)
def test_reached(bounds: dict[str, float], value: float, reached: bool | None) -> None:
    assert Claim(key="k", what="w", **bounds).is_reached(value) is reached


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"at_least": 0.0}, "≥ 0"),
        ({"at_most": 1e-3}, "≤ 0.001"),
        ({"at_least": 1.0}, "≥ 1"),
        ({"above": 0.0}, "> 0"),
        ({}, "–"),
    ],
)
def test_target_as_text(bounds: dict[str, float], text: str) -> None:
    assert Claim(key="k", what="w", **bounds).target == text


class TestWriting:
    def test_dotted_keys_are_nested_and_nothing_is_left_out(self, tmp_path: Path) -> None:
        numbers = {"a.b.rate": SOME, "a.b.more.gap": 0.125, "a.count": 3, "plain": NOTHING, "a.b.nan": math.nan}
        write_metrics(tmp_path, numbers, [])
        nothing = {"value": None, "low": None, "high": None, "n": 0}
        assert json.loads((tmp_path / "metrics.json").read_text()) == {
            "a": {
                "b": {
                    "rate": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8},
                    "more": {"gap": 0.125},
                    "nan": None,
                },
                "count": 3,
            },
            "plain": nothing,
        }

    def test_claims_stand_beside_what_was_measured(self, tmp_path: Path) -> None:
        claims = [
            Claim(key="a.rate", what="a rate", paper="0.95", at_least=0.9, note="note"),
            Claim(key="gap", what="a gap", at_most=0.2),
            Claim(key="none", what="a mean of nothing", at_least=1.0),
        ]
        write_metrics(tmp_path, {"none": NOTHING, "gap": 0.125, "a.rate": SOME}, claims)
        rows = json.loads((tmp_path / "claims.json").read_text())
        assert rows[0] == {
            "key": "a.rate",
            "what": "a rate",
            "paper": "0.95",
            "target": "≥ 0.9",
            "low": 0.25,
            "high": 0.75,
            "n": 8,
            "value": 0.5,
            "reached": False,
            "note": "note",
        }
        assert (rows[1]["value"], rows[1]["low"], rows[1]["n"], rows[1]["reached"]) == (0.125, None, None, True)
        assert (rows[2]["value"], rows[2]["n"], rows[2]["reached"]) == (None, 0, None)

    def test_a_claim_of_which_nothing_was_measured_is_not_passed_over(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError, match="b"):
            write_metrics(tmp_path, {"a": 1.0}, [Claim(key="a", what="a"), Claim(key="b", what="b")])
        assert not list(tmp_path.iterdir())

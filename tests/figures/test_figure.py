import pytest

from failscape.figures import percent


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.9, "90 %"), (0.98765, "98.8 %"), (0.9999, "99.9 %"), (1e-5, "0.1 %")],
)
def test_only_none_and_all_are_written_as_0_and_100(share: float, text: str) -> None:
    assert percent(share) == text.replace(" ", "\N{NO-BREAK SPACE}")

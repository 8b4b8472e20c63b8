"""What a person reads: one self-contained HTML file made from a run folder."""

from failscape.report.page import write_report

__all__ = ["write_report"]

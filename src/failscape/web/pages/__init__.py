"""The pages of a run, in the order of the navigation."""

from failscape.web.pages import compare, directions, frontiers, label, mistakes, overview, uncertain
from failscape.web.site import Page

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    mistakes.PAGE,
    directions.PAGE,
    uncertain.PAGE,
    frontiers.PAGE,
    compare.PAGE,
    label.PAGE,
)

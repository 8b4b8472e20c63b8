"""The pages of a run, in the order of the navigation."""

from failscape.web.pages import directions, label, mistakes, overview
from failscape.web.site import Page

PAGES: tuple[Page, ...] = (overview.PAGE, mistakes.PAGE, directions.PAGE, label.PAGE)

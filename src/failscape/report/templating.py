"""The templates of pages: everything escaped, nothing undefined."""

import jinja2

from failscape.report import drawings


def template_environment(*packages: str) -> jinja2.Environment:
    """Return the templates of packages, a template of an earlier one before one of the same name."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "templates") for package in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plane_width"] = drawings.PLANE_WIDTH
    environment.globals["line_size"] = (drawings.LINE_WIDTH, drawings.LINE_HEIGHT)
    return environment

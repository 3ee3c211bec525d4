"""Sphinx extension for the landing page: the before/after slider and the numbers that belong to its pictures.

    ```{before-after} original decoded
    :labels: original | decoded
    ```

and {landing}`decoded_bytes` or {landing}`decoded_bpp`: whatever `landing.json` holds.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from diffusion_codec.book import landing, slider

FOLDER = "_static/landing"


def facts(source: str | Path) -> dict[str, Any]:
    """What notebook 03 wrote down about its pictures."""
    text = (Path(source) / "book" / FOLDER / landing.FACTS).read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    return known


def shown(value: object) -> str:
    """A number as a reader wants it: 7 231 for bytes, 0.147 for bits per pixel."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)


class BeforeAfter(SphinxDirective):
    """Two of the landing page's pictures under one divider."""

    required_arguments = 2
    option_spec: ClassVar[dict[str, Any]] = {"labels": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """One raw HTML node; the pictures are static files of the site."""
        unknown = set(self.arguments) - set(landing.PICTURES)
        labels = tuple(label.strip() for label in self.options.get("labels", "").split("|"))
        if unknown or len(labels) != 2:
            raise self.error("expected two of " + ", ".join(landing.PICTURES) + " and ':labels: one | two'")
        # Static files lie at the site's root, pages as deep as their names say.
        root = "../" * self.env.docname.count("/")
        before, after = (f"{root}_static/landing/landing_{name}.webp" for name in self.arguments)
        known = facts(self.env.srcdir)
        html = slider.markup(before, after, labels, known["description"])
        return [nodes.raw("", html, format="html")]


class LandingFact(SphinxRole):
    """One number of `landing.json` in the text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number as text; an unknown name is an error that lists the right ones."""
        known = facts(self.env.srcdir)
        if self.text not in known:
            message = f"unknown: {self.text!r}; landing.json has {', '.join(known)}"
            return [], [self.inliner.reporter.error(message, line=self.lineno)]
        return [nodes.Text(shown(known[self.text]))], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("before-after", BeforeAfter)
    app.add_role("landing", LandingFact())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

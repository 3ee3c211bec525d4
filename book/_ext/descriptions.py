"""Sphinx extension: every page's description, for search engines and previews, is its first paragraph."""

import html
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LONGEST = 200


def first_words(document: nodes.document) -> str:
    """The first paragraph of a page in plain text, cut after a word; empty where a page has none."""
    text = next((node.astext() for node in document.findall(nodes.paragraph)), "")
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], document: Any) -> None:
    """Add the tag to the page's head."""
    if document is not None and (text := first_words(document)):
        tag = f'<meta name="description" content="{html.escape(text, quote=True)}">'
        context["metatags"] = f"{context.get('metatags', '')}\n{tag}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("html-page-context", describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

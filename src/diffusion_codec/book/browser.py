"""Headless Chromium, as the checks of the site and the print of the book use it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from diffusion_codec.book.project import BookError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT = 180_000
"""Milliseconds for one page; long, because a machine may be busy."""

MISSING = "no Chromium here: install it (Debian: apt-get install chromium) or name it in CHROMIUM"


def find() -> str | None:
    """The path of a Chromium: the environment variable CHROMIUM, or the first of PROGRAMS that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def chromium() -> "Iterator[Browser]":
    """A browser that is closed again. Raises BookError where no Chromium or no playwright is installed."""
    path = find()
    if path is None:
        raise BookError(MISSING)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BookError("playwright drives the browser and is not installed: run `make setup`") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def visit(page: "Page", address: str) -> None:
    """Open a page and wait until formulas and pictures are there."""
    page.goto(address, wait_until="load")
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")
    page.evaluate(
        """() => Promise.all([...document.images].map(image => {
          image.loading = 'eager';
          return image.complete || new Promise(done => { image.onload = image.onerror = () => done(true); });
        })).then(() => true)"""
    )


def chapters(root: Path) -> list[str]:
    """The pages of the book in reading order, as in `book/_toc.yml`, without ending: "notebooks/04_claims"."""
    toc: dict[str, Any] = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    return [str(toc["root"]), *_files(toc)]


def _files(entry: dict[str, Any]) -> Iterator[str]:
    for part in entry.get("parts", []):
        yield from _files(part)
    for kind in ("chapters", "sections"):
        for child in entry.get(kind, []):
            if "file" in child:
                yield str(child["file"])
            yield from _files(child)

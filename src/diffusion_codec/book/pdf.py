"""The whole book as one PDF: every page printed by headless Chromium, in reading order, with bookmarks."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from diffusion_codec.book import browser
from diffusion_codec.book.project import BookError

if TYPE_CHECKING:
    from playwright.sync_api import Page, PdfMargins
    from pypdf import PdfWriter

FOOTER = (
    '<div style="width: 100%; font: 8px sans-serif; color: #666; text-align: center">'
    '<span class="title"></span> &middot; <span class="pageNumber"></span></div>'
)
MARGINS: "PdfMargins" = {"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"}


def write(site: Path, chapters: list[str], target: Path) -> int:
    """Print the pages `chapters` of a built site into one PDF; how many sheets it has.

    A link from one page of the book to another leads to that chapter inside the PDF. Raises BookError where the
    site or Chromium is missing.
    """
    from pypdf import PdfWriter

    missing = [name for name in chapters if not (site / f"{name}.html").is_file()]
    if missing:
        raise BookError(f"{site} has no page {missing[0]}: build the book first (`make book`)")
    start = time.monotonic()
    book = PdfWriter()
    first: dict[Path, int] = {}
    with browser.chromium() as opened:
        page = opened.new_page(color_scheme="light", viewport={"width": 1000, "height": 1400})
        page.set_default_timeout(browser.TIMEOUT)
        for name in chapters:
            address = (site / f"{name}.html").resolve()
            title, printed = _print(page, address.as_uri())
            first[address] = len(book.pages)
            book.append(io.BytesIO(printed), outline_item=title, import_outline=False)
    _lead_inside(book, first)
    book.compress_identical_objects()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        book.write(file)
    print(f"{target}: {len(book.pages)} sheets in {time.monotonic() - start:.0f} s")
    return len(book.pages)


def _print(page: "Page", address: str) -> tuple[str, bytes]:
    """Title and PDF of one page as its print style shows it; what is folded away on the screen is unfolded."""
    browser.visit(page, address)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    title = str(page.locator("h1").first.evaluate("e => e.firstChild.textContent.trim()"))
    printed = page.pdf(
        format="A4",
        margin=MARGINS,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        print_background=True,
    )
    return title, printed


def _lead_inside(book: "PdfWriter", first: Mapping[Path, int]) -> None:
    """Turn links to files of the site into jumps to the first sheet of that chapter; drop links to other files."""
    from pypdf.generic import ArrayObject, NameObject

    for sheet in book.pages:
        if "/Annots" not in sheet:
            continue
        kept, annotations = ArrayObject(), cast(Any, sheet["/Annots"])
        for reference in annotations:
            link: Any = reference.get_object()
            address = str(link["/A"].get("/URI", "")) if "/A" in link else ""
            if address.startswith("file:"):
                number = first.get(Path(unquote(urlsplit(address).path)))
                if number is None:
                    continue
                del link["/A"]
                link[NameObject("/Dest")] = ArrayObject(
                    [book.pages[number].indirect_reference, NameObject("/Fit")]
                )
            kept.append(reference)
        sheet[NameObject("/Annots")] = kept

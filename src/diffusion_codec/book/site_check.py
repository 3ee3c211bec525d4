"""Checks a built site: nothing is loaded from elsewhere, and every link and picture inside it exists."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from diffusion_codec.book.project import BookError

LOADING = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author", "license"}  # rel= of <link>
SCRIPT_ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+\.\w+/[^\s'\"]*")
CSS_ADDRESS = re.compile(r"(?:url\(\s*|@import\s+)['\"]?((?:https?:)?//[^'\")\s]+)")


class Page(HTMLParser):
    """What one page loads, what it links to, and the anchors it offers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses and identifiers of one tag."""
        values = {name: value for name, value in attrs if value}
        self._in_script = tag == "script" and values.get("type") != "application/json"  # data fetches nothing
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        address = values.get(LOADING.get(tag, ""))
        if address and not (tag == "link" and values.get("rel") in NOT_LOADED):
            self.loads.append(address)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])

    def handle_data(self, data: str) -> None:
        """Addresses in a script inside the page count as loaded: nobody can tell when it fetches them."""
        if self._in_script:
            self.loads += SCRIPT_ADDRESS.findall(data)

    def handle_endtag(self, tag: str) -> None:
        """A script ends with its tag."""
        self._in_script = False


def check(site: Path) -> int:
    """Raise BookError listing every external load and dead link under `site`; returns the number of pages."""
    found = sorted(site.rglob("*.html"))
    # The themes leave unfilled templates of theirs in _static; no reader gets to see them.
    shown = [path for path in found if "_static" not in path.relative_to(site).parts]
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in shown}
    if not pages:
        raise BookError(f"{site} holds no page: build the book first (`make book`)")
    problems = [problem for path in pages for problem in _problems(path, pages)]
    problems += [
        f"{path.relative_to(site)}: loads {address} from elsewhere"
        for path in sorted(site.rglob("*.css"))
        for address in CSS_ADDRESS.findall(path.read_text(encoding="utf-8"))
    ]
    if problems:
        raise BookError(
            f"the built site is not sound ({len(problems)} problems):\n" + "\n".join(problems[:40])
        )
    return len(pages)


def _problems(path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    page = pages[path]
    for address in page.loads:
        if _is_external(address):
            yield f"{path.name}: loads {address} from elsewhere"
        elif not _exists(path, address, pages):
            yield f"{path.name}: {address} does not exist"
    for address in page.links:
        if not _is_external(address) and not _exists(path, address, pages):
            yield f"{path.name}: dead link {address}"


def _is_external(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def _exists(path: Path, address: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(address)
    if parts.scheme:  # data:, mailto: and the like refer to no file
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target not in pages or anchor in pages[target].anchors

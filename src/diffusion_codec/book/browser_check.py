"""The built site as its readers meet it: every page in a real browser, from its folder and from a server.

Looked for: requests to elsewhere, errors of scripts, pictures that do not load, pages wider than a telephone, what
axe-core calls serious or critical in light and dark, and chapters that the search does not find. Screenshots are
kept for a person to look at.
"""

import functools
import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from diffusion_codec.book import browser
from diffusion_codec.book.project import BookError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

DESK: "ViewportSize" = {"width": 1280, "height": 900}
PHONE: "ViewportSize" = {"width": 360, "height": 780}
SHOWN: tuple[tuple[Literal["light", "dark"], "ViewportSize"], ...] = (("light", DESK), ("dark", PHONE))
SETTLING = 1200
"""Milliseconds until the theme has followed a new size (it waits 300) and colours have changed, on a busy machine."""
LOCAL = {"file", "data", "blob", "about"}
IMPACTS = {"serious", "critical"}
AXE_OPTIONS = {
    "preload": False,  # it would read style sheets again, which a page from a folder may not
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]},
}

WIDER = """() => {
  const width = document.documentElement.clientWidth, wide = [];
  const scrolls = (e) => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const article = document.querySelector('.bd-article') || document.body;
  for (const e of article.querySelectorAll('table, pre, img, svg, figure, select, input, canvas, p, .admonition')) {
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= width + 1 || !e.checkVisibility()) continue;
    let up = e;
    while (up && up !== document.body && !scrolls(up)) up = up.parentElement;
    if (!up || up === document.body) wide.push(e.tagName.toLowerCase() + (e.className.baseVal ?? e.className));
  }
  if (document.documentElement.scrollWidth > width) wide.push('the page: ' + document.documentElement.scrollWidth);
  return wide.slice(0, 5);
}"""
REDIRECT = re.compile(r'^\s*<meta http-equiv="refresh" content="\d+; *url=([^"]+)"', re.IGNORECASE)
"""The page at the site's root is only this; reading it would race with the browser that follows it."""
TITLE = "e => [...e.childNodes].filter(n => !n.classList?.contains('headerlink')).map(n => n.textContent).join('')"
BROKEN = "() => [...document.images].filter(i => i.currentSrc && !i.naturalWidth).map(i => i.currentSrc.slice(0, 120))"


class Visitor:
    """One tab that notes what goes wrong while it is open."""

    def __init__(self, context: "BrowserContext", home: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(browser.TIMEOUT)
        self.home = home
        self.noted: list[str] = []
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("requestfailed", lambda request: self._failed(request.url, request.failure))
        self.page.on("response", lambda response: self._response(response.status, response.url))
        self.page.on("pageerror", lambda error: self.noted.append(f"script error: {error}"))
        self.page.on("console", lambda message: self._console(message.type, message.text))

    def _request(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in LOCAL and f"{parts.scheme}://{parts.netloc}" != self.home:
            self.noted.append(f"asks {address} from elsewhere")

    def _failed(self, address: str, reason: str | None) -> None:
        if reason != "net::ERR_ABORTED":  # the page was left before it had all
            self.noted.append(f"{address} does not load")

    def _response(self, status: int, address: str) -> None:
        if status >= 400:
            self.noted.append(f"{address} answers {status}")

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.noted.append(f"console: {text}")

    def visit(self, address: str) -> list[str]:
        """Open a page; the list of what goes wrong from then on, broken pictures included."""
        self.noted = []
        browser.visit(self.page, address)
        self.noted += [f"the picture {source} is broken" for source in self.page.evaluate(BROKEN)]
        return self.noted


def check(site: Path, chapters: list[str], screenshots: Path) -> None:
    """Open every page of `site`; raise BookError that lists every problem found.

    Args:
        site: folder of the built site.
        chapters: the pages in reading order, without ending (`browser.chapters`).
        screenshots: folder for a picture of every chapter at a desk in light and on a telephone in dark.
    """
    found = sorted(path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)
    redirects = {path: match[1] for path in found if (match := REDIRECT.match(path.read_text("utf-8")))}
    pages = [path for path in found if path not in redirects]
    if not pages:
        raise BookError(f"{site} holds no page: build the book first (`make book`)")
    start = time.monotonic()
    screenshots.mkdir(parents=True, exist_ok=True)
    with browser.chromium() as opened:
        problems = [
            *(
                f"{path.relative_to(site)}: leads to {target}, which is not there"
                for path, target in redirects.items()
                if not (path.parent / target).is_file()
            ),
            *_read(opened, site, pages, set(chapters), screenshots),
            *_search(opened, site, chapters),
            *_served(opened, site, pages),
        ]
    if problems:
        shown = "\n".join(problems[:60])
        raise BookError(f"the site is not as readers need it ({len(problems)} problems):\n{shown}")
    print(
        f"{len(pages)} pages are sound in the browser ({time.monotonic() - start:.0f} s); look at {screenshots}"
    )


def _read(
    opened: "Browser", site: Path, pages: list[Path], chapters: set[str], screenshots: Path
) -> Iterator[str]:
    """Every page from its folder: at a desk in light, then on a telephone in dark."""
    context = opened.new_context(viewport=DESK, color_scheme="light", reduced_motion="reduce")
    visitor = Visitor(context, "file://")
    for path in pages:
        name = path.relative_to(site).with_suffix("").as_posix()
        visitor.visit(path.as_uri())
        problems, page = visitor.noted, visitor.page
        for scheme, size in SHOWN:
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(SETTLING)
            if scheme == "dark":
                problems += [f"wider than {PHONE['width']} pixels: {what}" for what in page.evaluate(WIDER)]
            problems += [f"{scheme}: {finding}" for finding in accessibility(page)]
            if name in chapters:
                file = screenshots / f"{name.replace('/', '_')}_{scheme}.jpg"
                page.screenshot(path=file, full_page=True, type="jpeg", quality=70)
        yield from (f"{name}: {problem}" for problem in problems)
    context.close()


def accessibility(page: "Page") -> list[str]:
    """What axe-core calls serious or critical on the page as it is shown now."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    found: list[dict[str, Any]] = page.evaluate(
        "options => axe.run(document, options).then(r => r.violations)", AXE_OPTIONS
    )
    return [
        f"{rule['id']} ({rule['help']}): {node['target'][-1]} {_reason(node)}"
        for rule in found
        if rule["impact"] in IMPACTS
        for node in rule["nodes"][:3]
    ]


def _reason(node: dict[str, Any]) -> str:
    data = next((check["data"] for check in node["any"] if check["data"]), None)
    if isinstance(data, dict) and "contrastRatio" in data:
        return f"[{data['fgColor']} on {data['bgColor']}: {data['contrastRatio']}]"
    return ""


def _search(opened: "Browser", site: Path, chapters: list[str]) -> Iterator[str]:
    """The search, from the folder, finds every chapter by its title."""
    context = opened.new_context(viewport=DESK)
    visitor = Visitor(context, "file://")
    for name in chapters:
        visitor.page.goto((site / f"{name}.html").as_uri(), wait_until="domcontentloaded")
        title = visitor.page.locator("h1").first.evaluate(TITLE).strip()
        visitor.page.goto(f"{(site / 'search.html').as_uri()}?q={quote(title)}")
        link = visitor.page.locator(f'#search-results a[href*="{name}.html"]')
        try:
            link.first.wait_for(state="attached", timeout=30_000)
        except Exception:  # playwright's TimeoutError is not a builtin one
            yield f"{name}: search: the search for {title!r} does not find it"
    context.close()


def _served(opened: "Browser", site: Path, pages: list[Path]) -> Iterator[str]:
    """Every page from a server on this machine."""
    with _server(site) as home:
        context = opened.new_context(viewport=PHONE)
        visitor = Visitor(context, home)
        for path in pages:
            name = path.relative_to(site).as_posix()
            yield from (f"{name}, served: {problem}" for problem in visitor.visit(f"{home}/{quote(name)}"))
        context.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of every request."""


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()

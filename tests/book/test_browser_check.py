"""The check in a real browser finds what it is there for, and the print holds what a page shows."""

import subprocess
from pathlib import Path

import pytest

from diffusion_codec.book import browser, browser_check, pdf
from diffusion_codec.book.project import BookError

PAGE = """<!doctype html><html lang="en"><head><meta name="viewport" content="width=device-width">
<title>{title}</title><link rel="icon" href="data:,"></head><body><main><h1>{title}</h1>{body}</main></body></html>"""
REDIRECT = '<meta http-equiv="Refresh" content="0; url={target}" />\n'
SEARCH = """<ul id="search-results"></ul><script>
const title = new URLSearchParams(location.search).get('q');
const pages = {'Two words': 'second.html', 'First': 'first.html'};
if (pages[title]) document.querySelector('ul').innerHTML = `<li><a href="${pages[title]}">${title}</a></li>`;
</script>"""
DOT = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


def site(
    folder: Path, body: str = "<p>Hello</p>", second: str = "Two words", root: str = "first.html"
) -> Path:
    (folder / "first.html").write_text(PAGE.format(title="First", body=body))
    (folder / "second.html").write_text(PAGE.format(title=second, body='<a href="first.html">first</a>'))
    (folder / "index.html").write_text(REDIRECT.format(target=root))
    (folder / "search.html").write_text(PAGE.format(title="Search", body=SEARCH))
    return folder


@pytest.mark.usefixtures("need_chromium")
class TestInABrowser:
    def test_a_sound_site_passes_and_leaves_screenshots(self, tmp_path: Path) -> None:
        table = '<div style="overflow-x: auto" tabindex="0"><table><tr><td style="min-width: 900px">x</table></div>'
        wide = f'{table}<img src="{DOT}" alt="dot">'
        shots = tmp_path / "shots"
        browser_check.check(site(tmp_path, wide), ["first", "second"], shots)
        names = {path.name for path in shots.iterdir()}
        assert names == {
            f"{name}_{scheme}.jpg" for name in ("first", "second") for scheme in ("light", "dark")
        }

    def test_every_kind_of_fault_is_named_with_its_page(self, tmp_path: Path) -> None:
        body = """<img src="gone.png" alt="gone"><img src="http://127.0.0.1:9/x.png" alt="elsewhere">
        <script>console.error("I am wrong"); nothing.there();</script>
        <table><tr><td style="min-width: 900px">too wide</table>
        <p style="color: #aaa; background: #fff">pale</p><button></button>"""
        with pytest.raises(BookError) as caught:
            browser_check.check(
                site(tmp_path, body, "Not indexed", "none.html"), ["first", "second"], tmp_path / "shots"
            )
        told = str(caught.value)
        for fault in (
            "index.html: leads to none.html, which is not there",
            "first: asks http://127.0.0.1:9/x.png from elsewhere",
            "gone.png does not load",
            "gone.png is broken",
            "first: console: I am wrong",
            "first: script error: nothing is not defined",
            "first: wider than 360 pixels: table",
            "first: light: color-contrast",
            "first: dark: button-name",
            "second: search: the search for 'Not indexed' does not find it",
            "first.html, served: ",
        ):
            assert fault in told, fault

    def test_the_print_holds_every_page_once_and_links_lead_inside(self, tmp_path: Path) -> None:
        from pypdf import PdfReader

        body = '<p style="break-after: page">Hello</p><details><summary>more</summary>Unfolded</details>'
        target = tmp_path / "book.pdf"
        assert pdf.write(site(tmp_path, body), ["first", "second"], target) == 3
        book = PdfReader(target)
        assert [item.title for item in book.outline] == ["First", "Two words"]
        text = [page.extract_text() for page in book.pages]
        assert "Hello" in text[0]
        assert "Unfolded" in text[1]
        assert "Two words" in text[2]
        (link,) = (annotation.get_object() for annotation in book.pages[2]["/Annots"])
        assert link["/Dest"][0] == book.pages[0].indirect_reference
        assert "/A" not in link


def test_without_a_site_or_a_browser_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BookError, match="holds no page: build the book first"):
        browser_check.check(tmp_path, [], tmp_path / "shots")
    with pytest.raises(BookError, match="no page first: build the book first"):
        pdf.write(tmp_path, ["first"], tmp_path / "book.pdf")
    monkeypatch.setattr(browser, "find", lambda: None)
    with pytest.raises(BookError, match="apt-get install chromium"):
        browser_check.check(site(tmp_path), ["first"], tmp_path / "shots")


def test_chapters_come_in_the_order_of_the_table_of_contents(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text(
        "root: book/index\nparts:\n- chapters:\n  - file: notebooks/01\n    sections:\n    - file: book/a\n"
        "  - url: https://example.org\n- chapters:\n  - file: book/b\n"
    )
    assert browser.chapters(tmp_path) == ["book/index", "notebooks/01", "book/a", "book/b"]


def load_extension(name: str):
    import importlib.util

    path = Path(__file__).parents[2] / "book" / "_ext" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("environment", "remote", "address"),
    [
        ({"DIFFUSION_CODEC_REPOSITORY": "https://github.com/me/book"}, "", "https://github.com/me/book"),
        ({"GITHUB_REPOSITORY": "me/book"}, "", "https://github.com/me/book"),
        ({}, "git@github.com:me/book.git", "https://github.com/me/book"),
        ({}, "https://gitlab.com/me/book/", "https://gitlab.com/me/book"),
        ({}, "/srv/git/book.git", None),
        ({}, "", None),
    ],
)
def test_buttons_know_the_public_address_or_there_are_none(
    tmp_path: Path, environment: dict[str, str], remote: str, address: str | None
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    assert load_extension("launch_links").public_address(tmp_path, environment) == address

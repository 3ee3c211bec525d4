"""The built site: sound, self-contained, with the slider; and an answer at once when nothing changed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_codec.book import builder, cache, landing, site_check, slider
from diffusion_codec.book.paths import repository_root
from diffusion_codec.book.project import BookError, Project, Request
from diffusion_codec.errors import BadInputError

PICTURE = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
SIZES = {"original": 5000, "decoded": 1234, "jpeg": 1300}

PAGE = """# Landing

```{before-after} original decoded
:labels: Original | Decoded
```

{landing}`decoded_bytes` bytes, {landing}`decoded_bpp` bits per pixel, $x^2$, {cite:p}`ziv1985universal`,
[table](table.md), {result}`measured.csv | a |  | .1f` measured.
"""
TABLE = """# Table

```{csv-table}
:file: ../data/results/measured.csv
:header-rows: 1
```

```{bibliography}
```
"""


def write_landing(project: Project) -> Path:
    folder = project.stage / "figures" / landing.NOTEBOOK
    folder.mkdir(parents=True)
    landing.write(folder, dict.fromkeys(landing.PICTURES, PICTURE), SIZES, 'Two "macaws"', "a picture")
    return folder


@pytest.fixture
def small_book(project: Project) -> Project:
    """The real configuration, extensions and styles, with two pages and no notebooks."""
    real = repository_root(Path(__file__).parent) / "book"
    book = project.root / "book"
    book.mkdir()
    for name in ("_config.yml", "references.bib"):
        shutil.copy(real / name, book / name)
    for name in ("_ext", "_static"):
        shutil.copytree(real / name, book / name)
    (book / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n  - file: book/table\n")
    (book / "index.md").write_text(PAGE)
    (book / "table.md").write_text(TABLE)
    shutil.rmtree(project.root / "notebooks")
    # what chapters 4 and 5 leave for html_extra_path
    for name in ("04_claims", "05_user_study"):
        (project.stage / "figures" / name / "site").mkdir(parents=True)
    return Project(project.root)


def test_a_book_is_built_checked_and_then_up_to_date(
    small_book: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_landing(small_book)
    builder.build(small_book, smoke=False)
    site = small_book.build / "html"
    page = (site / "book" / "index.html").read_text()
    assert "1\u202f234 bytes" in page
    assert f"{8 * 1234 / 96:.3f} bits per pixel" in page
    assert 'src="../_static/landing/landing_decoded.webp" alt="Two &quot;macaws&quot;: Decoded"' in page
    assert "1.0 measured" in page
    assert '<meta name="description" content="1 234 bytes, ' in page
    assert "THEBE_JS_URL" not in page
    assert (site / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 1_000_000
    assert "book/index.html" in (site / "index.html").read_text()
    capsys.readouterr()
    builder.build(Project(small_book.root), smoke=False)
    assert "is up to date" in capsys.readouterr().out


def test_a_warning_fails_the_build_and_leaves_the_old_site(small_book: Project) -> None:
    write_landing(small_book)
    old = small_book.build / "html" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    (small_book.root / "book" / "table.md").write_text("# Table\n\n[gone](nowhere.md)\n")
    with pytest.raises(BookError, match="nowhere"):
        builder.build(small_book, smoke=False)
    assert old.read_text() == "old"


def test_without_the_landing_pictures_the_build_says_what_to_do(small_book: Project) -> None:
    folder = write_landing(small_book)
    (folder / "landing_jpeg.webp").unlink()
    with pytest.raises(BookError, match=r"03_rate_distortion/landing_jpeg\.webp.*make run NB=03"):
        builder.build(small_book, smoke=False)


def test_nothing_to_do_is_found_out_without_heavy_imports(project: Project) -> None:
    keys = {name: project.key(name, Request()) for name in project.notebooks}
    for name, key in keys.items():
        project.executed(name).parent.mkdir(parents=True, exist_ok=True)
        project.executed(name).write_text("{}")
        cache.mark(project, name, key)
    index = project.build / "html" / "index.html"
    index.parent.mkdir(parents=True)
    index.write_text("")
    requests = dict.fromkeys(project.notebooks, Request())
    cache.mark(project, "site", builder._site_key(project, keys, requests))
    command = [sys.executable, "-X", "importtime", "-m", "diffusion_codec.book", "build"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True)
    assert "build/html/index.html is up to date" in done.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "yaml" in loaded
    assert not loaded & {"torch", "numpy", "papermill", "sphinx", "nbformat", "PIL", "pydantic", "typer"}


def site(tmp_path: Path, body: str, style: str = "") -> Path:
    (tmp_path / "index.html").write_text(f"<html><body id='top'>{body}</body></html>")
    (tmp_path / "other.html").write_text("<p id='here'>")
    (tmp_path / "style.css").write_text(style)
    return tmp_path


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other.html#here">x</a><a href="#top">y</a><a href="https://example.org/page">z</a>',
        '<img src="data:image/png;base64,AAAA"><link rel="stylesheet" href="style.css?v=1">',
        '<link rel="canonical" href="https://example.org/"><script>let a = 4 / 2; // a comment</script>',
        '<script type="application/json">{"source": "https://example.org/data"}</script>',
    ],
)
def test_a_sound_site_passes(tmp_path: Path, body: str) -> None:
    assert site_check.check(site(tmp_path, body, "p { background: url(data:,) }")) == 2


@pytest.mark.parametrize(
    ("body", "style", "problem"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "", "from elsewhere"),
        ('<script>const u = "https://cdn.example/x.js"</script>', "", "from elsewhere"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "", "from elsewhere"),
        ('<img src="gone.png">', "", "gone.png does not exist"),
        ('<a href="gone.html">x</a>', "", "dead link gone.html"),
        ('<a href="other.html#gone">x</a>', "", "dead link other.html#gone"),
        ("", "@import url('https://fonts.example/a');", "from elsewhere"),
    ],
)
def test_an_unsound_site_is_refused(tmp_path: Path, body: str, style: str, problem: str) -> None:
    with pytest.raises(BookError, match=re.escape(problem)):
        site_check.check(site(tmp_path, body, style))


def test_an_empty_folder_is_no_site(tmp_path: Path) -> None:
    with pytest.raises(BookError, match="make book"):
        site_check.check(tmp_path)


def test_the_slider_embeds_both_pictures_and_escapes_the_words(tmp_path: Path) -> None:
    made = slider.slider(PICTURE, PICTURE, ("A<b>", "B"), 'say "hi"')
    bundle = made._repr_mimebundle_()
    assert bundle["text/html"].count('src="data:image/webp;base64,') == 2
    assert 'alt="say &quot;hi&quot;: A&lt;b&gt;"' in bundle["text/html"]
    assert 'type="range"' in bundle["text/html"]
    assert "<style>" in bundle["text/html"]
    assert bundle["text/plain"] == 'say "hi": A<b> | B'


@pytest.mark.parametrize(
    ("picture", "labels", "alt"),
    [
        (PICTURE, ("", "B"), "words"),
        (PICTURE, ("A", "B"), " "),
        (PICTURE[..., 0], ("A", "B"), "words"),
        (PICTURE.astype(np.float32), ("A", "B"), "words"),
    ],
)
def test_a_slider_without_words_or_pixels_is_refused(
    picture: np.ndarray, labels: tuple[str, str], alt: str
) -> None:
    with pytest.raises(BadInputError):
        slider.slider(picture, picture, labels, alt)


def test_landing_wants_all_three_pictures(tmp_path: Path) -> None:
    with pytest.raises(BookError, match="original, decoded, jpeg"):
        landing.write(tmp_path, {"original": PICTURE}, SIZES, "words", "a picture")

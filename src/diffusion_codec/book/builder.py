"""Builds the site: runs what is out of date, stages the sources, calls jupyter-book, checks the result."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import as_completed
from pathlib import Path

from diffusion_codec.book import cache
from diffusion_codec.book.project import BookError, Project, Request, digest_files, walk
from diffusion_codec.files import write_atomically
from diffusion_codec.workers import processes

AT_ONCE = max(1, min(4, (os.cpu_count() or 1)))
"""Notebooks that run at the same time: much of what each does, loading packages above all, keeps one core busy."""

SMOKE_VARIABLE = "DIFFUSION_CODEC_SMOKE"
# What pages show as tables or as code; staged beside the book as it lies in the repository.
SHOWN_DATA = ("data/published", "data/results")
SHOWN_CODE = tuple(
    f"src/diffusion_codec/{name}.py"
    for name in ("codec", "quantization", "parameter_estimation", "schedule", "backbone/model")
)


def build(project: Project, *, smoke: bool = False) -> None:
    """Bring `build/html` up to date; with nothing changed this only compares hashes.

    Raises BookError when a notebook fails, a page has a warning or the site is not self-contained.
    """
    requests = {name: cache.asked(project, name) or Request(smoke=smoke) for name in project.notebooks}
    keys = {name: project.key(name, request) for name, request in requests.items()}
    _say_what_is_remembered(requests)
    stale = {name: requests[name] for name, key in keys.items() if not cache.is_fresh(project, name, key)}
    _run(project, stale)
    key = _site_key(project, keys, requests)
    if cache.site_is_fresh(project, key):
        print("build/html/index.html is up to date")
        return
    start = time.monotonic()
    cache.unmark(project, "site")
    stage(project)
    _make_site(project, smoke=any(request.smoke for request in requests.values()))
    cache.mark(project, "site", key)
    print(f"built build/html/index.html in {time.monotonic() - start:.0f} s")


def _run(project: Project, requests: dict[str, Request]) -> None:
    """Run notebooks, several at once; the first that fails ends the build, after those that run now."""
    if not requests:
        return
    from diffusion_codec.book import runner

    at_once = min(AT_ONCE, len(requests))
    with processes(at_once, _share_cores, at_once) as pool:
        runs = [pool.submit(runner.run, project, name, request) for name, request in requests.items()]
        try:
            for run in as_completed(runs):
                run.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _share_cores(at_once: int) -> None:
    """Threads for the kernels that this process starts: two that take all cores each wait for one another."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_once)))


def stage(project: Project) -> None:
    """Put everything the book is made of into `build/stage`, laid out as in the repository."""
    from diffusion_codec.book import execution, landing

    for source in ("book", *SHOWN_DATA):
        target = project.stage / source
        shutil.rmtree(target, ignore_errors=True)
        if (project.root / source).is_dir():
            shutil.copytree(project.root / source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for source in SHOWN_CODE:
        if (project.root / source).is_file():
            (project.stage / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project.root / source, project.stage / source)
    for name in project.notebooks:
        refresh_prose(project.source(name), project.executed(name))
    kept = {project.executed(name) for name in project.notebooks}
    for stale in set((project.stage / "notebooks").glob("*.ipynb")) - kept:
        stale.unlink()
    execution.write_tables([project.executed(name) for name in project.notebooks], project.stage / "data")
    landing.stage(project.stage)


def refresh_prose(source: Path, executed: Path) -> None:
    """Give an executed notebook the prose of its source; their code is equal, or it would have run again."""
    written = json.loads(source.read_text(encoding="utf-8"))
    ran = json.loads(executed.read_text(encoding="utf-8"))
    code = [cell for cell in ran["cells"] if cell["cell_type"] == "code"]
    cells = []
    for cell in written["cells"]:
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        cells.append(code.pop(0))
        if code and "injected-parameters" in code[0]["metadata"].get("tags", []):
            cells.append(code.pop(0))
    ran["cells"] = cells
    text = json.dumps(ran, indent=1, ensure_ascii=False) + "\n"
    write_atomically(executed, text.encode(), force=True)


def _site_key(project: Project, keys: dict[str, str], requests: dict[str, Request]) -> str:
    folders = ["book", "src/diffusion_codec/book", *SHOWN_DATA, "build/stage/figures"]
    files = [path for folder in folders for path in walk(project.root / folder)]
    files += [project.source(name) for name in project.notebooks] + [project.root / "constraints.txt"]
    files += [project.root / source for source in SHOWN_CODE]
    smoke = [name for name, request in requests.items() if request.smoke]
    return hashlib.sha256(json.dumps([keys, smoke, digest_files(project.root, files)]).encode()).hexdigest()


def _say_what_is_remembered(requests: dict[str, Request]) -> None:
    for name, request in requests.items():
        if request.overrides:
            shown = ", ".join(f"{key}={value!r}" for key, value in request.overrides.items())
            print(f"{name}: as last asked for ({shown}); `make run NB={name[:2]}` goes back to the defaults")


def _make_site(project: Project, *, smoke: bool) -> None:
    """Build in a fresh folder every time: Sphinx repeats no warning about a page it has kept."""
    from diffusion_codec.book import site_check

    for stale in project.build.glob("jupyter-book*"):
        shutil.rmtree(stale, ignore_errors=True)
    # a name of its own: the process of a build that was killed may still write to its folder
    work = project.build / f"jupyter-book-{os.getpid()}"
    book = project.stage / "book"
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", jupyter_book, "build", str(project.stage), "--path-output", str(work)]
    command += ["--config", str(book / "_config.yml"), "--toc", str(book / "_toc.yml")]
    command += ["-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(
        command,
        env=os.environ | {SMOKE_VARIABLE: "1" if smoke else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BookError(f"jupyter-book failed:\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}")
    site = work / "_build" / "html"
    site_check.check(site)
    target, old = project.build / "html", work / "replaced"
    if target.exists():
        target.replace(old)  # by renaming: a build that is stopped leaves a whole site or none
    site.replace(target)
    shutil.rmtree(old, ignore_errors=True)

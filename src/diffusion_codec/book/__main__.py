"""`python -m diffusion_codec.book run 03 -P 'bitrates: [0.1, 0.2]'` and `... build`; used by the Makefile."""

import argparse
import sys
from pathlib import Path

from diffusion_codec.book import cache, project
from diffusion_codec.book.paths import repository_root
from diffusion_codec.errors import DiffusionCodecError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; plain argparse, because `make book` must answer at once when nothing has changed."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_codec.book", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one notebook and keep its result for the book")
    run.add_argument("notebook", help="its number or name, for example 03")
    run.add_argument(
        "-P", "--parameters", action="append", default=[], metavar="YAML", help="'bitrates: [0.1, 0.2]'"
    )
    run.add_argument("--force", action="store_true", help="run even if the result is up to date")
    build = commands.add_parser("build", help="run what is out of date and build the site into build/html")
    for command in (run, build):
        command.add_argument("--smoke", action="store_true", help="small parameters: notebooks/params/smoke/")
    check = commands.add_parser("check", help="check the links and the independence of a built site")
    browser = commands.add_parser(
        "browse", help="open every page in headless Chromium and report what goes wrong"
    )
    pdf = commands.add_parser("pdf", help="print the whole book into build/book.pdf")
    for command in (check, browser, pdf):
        command.add_argument("site", type=Path, nargs="?", help="default: build/html")
    return parser.parse_args(arguments)


def run(book: project.Project, options: argparse.Namespace) -> None:
    """Run one notebook; what was asked for is remembered only when it succeeded."""
    from diffusion_codec.book import runner

    notebook = book.find(options.notebook)
    overrides: project.Parameters = {}
    for text in options.parameters:
        overrides |= project.parse_parameters(text, "--parameters")
    request = project.Request(smoke=options.smoke, overrides=overrides)
    ran = runner.run(book, notebook, request, force=options.force)
    cache.remember(book, notebook, request)
    where = book.executed(notebook).relative_to(book.root)
    print(f"{where}{'' if ran else ' is up to date'}; `make book` shows it")


def look_at(book: project.Project, command: str, site: Path) -> None:
    """Check a built site by its files or in a browser, or print it."""
    from diffusion_codec.book import browser, browser_check, pdf, site_check

    if command == "check":
        site_check.check(site)
    elif command == "browse":
        browser_check.check(site, browser.chapters(book.root), book.build / "screenshots")
    else:
        pdf.write(site, browser.chapters(book.root), book.build / "book.pdf")


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; 1 when a notebook or the book fails or a request is wrong; 2 for wrong usage; 130 for Ctrl-C."""
    options = parse(arguments)
    try:
        book = project.Project(repository_root())
        if options.command == "run":
            run(book, options)
        elif options.command == "build":
            from diffusion_codec.book import builder

            builder.build(book, smoke=options.smoke)
        else:
            look_at(book, options.command, options.site or book.build / "html")
    except (DiffusionCodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished before is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m diffusion_codec.evaluation.seal`: write the hashes of everything in data/results/, or check them.

A number that was changed by hand, or a file that was swapped, no longer has the hash that was written when it was
measured: reading then fails, and with it the tests, `make claims` and the book.
"""

from pathlib import Path
from typing import Annotated

import typer

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.files import write_atomically

SUMS = "SHA256SUMS"

app = typer.Typer(add_completion=False)


class SealError(BadInputError):
    """A stored result is not what was measured, or nobody said that it was."""


def results_folder() -> Path:
    """Where the repository keeps what was measured."""
    return fetch.repository_root() / "data" / "results"


def _files(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    aside = (SUMS, "Thumbs.db")
    return {
        name: path
        for name, path in sorted(found.items())
        if path.name not in aside and not path.name.startswith(".") and path.suffix != ".lock"
    }


def write(folder: Path) -> int:
    """Write the hash of every file of a folder of results; how many there are."""
    files = _files(folder)
    lines = "".join(f"{fetch.sha256_of(path)}  {name}\n" for name, path in files.items())
    write_atomically(folder / SUMS, lines.encode(), force=True)
    return len(files)


def verify(folder: Path) -> int:
    """Check every file against its hash; how many there are. Raises SealError, which names the file."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SealError(f"{folder / SUMS} is missing; `make seal` writes it after a measurement") from error
    stated = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    files = _files(folder)
    for name in sorted(stated.keys() | files.keys()):
        if name not in files:
            raise SealError(f"data/results/{name} is gone; restore it, or measure again and run `make seal`")
        if name not in stated:
            raise SealError(f"data/results/{name} has no hash; run `make seal` after measuring")
        actual = fetch.sha256_of(files[name])
        if actual != stated[name]:
            raise SealError(
                f"data/results/{name} was changed since it was measured (SHA-256 {actual[:16]}, not "
                f"{stated[name][:16]}); restore it, or measure again and run `make seal`"
            )
    return len(files)


@app.command()
def main(
    check: Annotated[bool, typer.Option("--check", help="Only compare, write nothing.")] = False,
) -> None:
    """Write data/results/SHA256SUMS."""
    try:
        count = verify(results_folder()) if check else write(results_folder())
    except DiffusionCodecError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(
        f"{count} files of data/results/ " + ("are as they were measured" if check else "have a hash now")
    )


if __name__ == "__main__":
    app()

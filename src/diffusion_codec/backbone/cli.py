"""``diffusion-codec backbone list | fetch | convert | prompt | random``."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from diffusion_codec.backbone import prompt, sources
from diffusion_codec.backbone.convert import convert as convert_folder
from diffusion_codec.backbone.options import Precision
from diffusion_codec.backbone.random_model import SHAPES, write_random
from diffusion_codec.files import check_target

app = typer.Typer(help="The diffusion models the codec can stand on.", no_args_is_help=True)


@app.command("list")
def list_known() -> None:
    """Name, size, licence and whereabouts of each backbone."""
    for name in sources.EMBEDDED:
        typer.echo(f"{name}: ships with the package")
    for name, entry in sources.known().items():
        size = (
            f"{sum(file.bytes for file in entry.files) / 1e9:.2f} GB"
            if entry.files
            else "size asked at download"
        )
        pinned = "pinned" if entry.files else "recorded at the first download"
        about = f"{entry.title}; {size}; {entry.licence}; revision and hashes {pinned}"
        typer.echo(f"{name}: {about}; {prompt.whereabouts(name)}")


@app.command("fetch")
def fetch_backbone(
    name: Annotated[str, typer.Argument(help="A name of `backbone list`, or owner/name of the hub.")],
) -> None:
    """Fetch a backbone and the empty prompt's embedding now, for work without a network."""
    source = sources.find(name)
    embedding = prompt.load(source)
    typer.echo(f"{name}: {source.folder}; empty prompt of {embedding.shape[1]} tokens x {embedding.shape[2]}")


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(help="Backbone folder with pickled (.bin) weights.")],
) -> None:
    """Write safetensors beside pickled weights; do this only with files whose origin you know."""
    for path in convert_folder(folder):
        typer.echo(f"written: {path}")


@app.command("prompt")
def store_prompt(
    backbone: Annotated[str, typer.Argument(help="Name or folder, with its text encoder.")],
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Compute the empty prompt's embedding and store it in a file."""
    check_target(out, force)
    source = sources.find(backbone)
    key = source.text_key or prompt.folder_key(source.folder)
    prompt.write(out, prompt.compute(source.text_encoder()), key, force)
    typer.echo(f"written: {out}; in a backbone folder call it {prompt.FILE}; text encoder {key}")


@app.command()
def random(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "stable-diffusion-1",
    precision: Annotated[Precision, typer.Option(help="Of the stored weights.")] = "float16",
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
) -> None:
    """Make a backbone of random weights in a real one's exact shape: a proof of the path, not a picture."""
    count = write_random(out, shape, getattr(torch, precision), seed)
    typer.echo(f"{out}: {count / 1e6:.0f} million random parameters, {precision}")

"""`diffusion-codec audit FILE`: a map of what the decoder made up, as numbers, as a picture, as a summary."""

import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from diffusion_codec.cli import BackboneOption, DeviceOption, WeightsOption, read_dfc
from diffusion_codec.files import STANDARD_STREAM, check_target, describe, write_atomically

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def audit(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .dfc file.")],
    original: Annotated[
        str | None,
        typer.Option(metavar="IMG", help="The picture it was made from: says how right the map is."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Beginning of the results' names, or a folder; FILE without .dfc."),
    ] = None,
    draws: Annotated[int, typer.Option(metavar="N", min=2, help="Decodings to compare.")] = 8,
    backbone: BackboneOption = "mini",
    codec_weights: WeightsOption = "default",
    device: DeviceOption = "cpu",
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite results that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary instead of a line.")] = False,
) -> None:
    """Map what the decoder of a .dfc file made up.

    Decodes FILE several times, each time from another latent that it stands for, and writes how far the pictures
    differ: NAME.spread.npy (float32, rows x columns, grey levels), NAME.spread.png, NAME.audit.json. Text, faces or
    counts in places that glow are not to be trusted; others may be wrong, too.
    """
    name = out or _name(source)
    if name == STANDARD_STREAM:
        raise typer.BadParameter("--out - cannot be: there are three files; name them")
    if name.endswith(os.sep) or os.path.isdir(name):
        name = os.path.join(name, os.path.basename(_name(source)))
    targets = {kind: f"{name}.{kind}" for kind in ("spread.npy", "spread.png", "audit.json")}
    for target in targets.values():
        check_target(target, force)
    data, file = read_dfc(source)
    header = file.header
    from diffusion_codec.audit import heat, uncertainty
    from diffusion_codec.codec import Codec
    from diffusion_codec.image_io import Picture, load_image, save_image

    before = None if original is None else load_image(original).pixels
    if before is not None:
        uncertainty.check_sizes(before.shape, (header.height, header.width, 3))
    codec = Codec.from_pretrained(backbone, codec_weights, device)
    found = uncertainty.spread(codec, data, draws)
    told = uncertainty.summary(found, data, before)
    write_atomically(targets["spread.npy"], _npy(found.spread), force)
    save_image(Picture(np.array(heat.picture(found.decoded, found.spread))), targets["spread.png"], force)
    write_atomically(targets["audit.json"], (json.dumps(told, indent=1) + "\n").encode(), force)
    typer.echo(json.dumps(told | {"files": targets}) if as_json else _line(source, told, targets))


def _name(source: str) -> str:
    """How the results' names begin: the file's without .dfc."""
    if source == STANDARD_STREAM:
        return "audit"
    return str(Path(source).with_suffix("")) if source.lower().endswith(".dfc") else source


def _npy(values: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float32))
    return buffer.getvalue()


def _line(source: str, told: dict[str, object], targets: dict[str, str]) -> str:
    text = (
        f"{describe(source)}: draws differ by {told['spread_mean']:.1f} grey levels on average, "
        f"{told['uncertain_share']:.0%} of the picture by {told['uncertain_above']:g} or more"
    )
    if told.get("rank_correlation") is not None:
        text += f"; rank correlation with the true error {told['rank_correlation']:.2f}"
    return f"{text}\nwritten: {', '.join(targets.values())}\nGenerative decoder: not for evidence."

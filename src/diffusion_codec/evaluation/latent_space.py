"""Is `mini`'s latent space Stable Diffusion's: `python -m diffusion_codec.evaluation.latent_space`.

TAESD, a published autoencoder for the latents of Stable Diffusion 1.x, taught `mini` its own. Here each reads what the
other wrote: latents as they are, and those of a file after `mini`'s denoiser.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from diffusers import AutoencoderTiny
from torch import Tensor

from diffusion_codec import codec_weights, datasets, metrics
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.tables import keep, stored
from diffusion_codec.fetch import locate
from diffusion_codec.pixels import to_pixels_like, to_signed
from diffusion_codec.training.latents import load_taesd

MEASURES = ("psnr", "lpips-alex")
RATE = 0.1
"""Bits per pixel of the files."""
OWN, TEACHER = "mini", "TAESD"


class ReadBy:
    """A backbone whose latents another autoencoder decodes."""

    def __init__(self, backbone: Backbone, autoencoder: AutoencoderTiny):
        self.backbone, self.autoencoder = backbone, autoencoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def decode(self, y: Tensor, finish: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        """As :meth:`Backbone.decode`."""
        return finish(self.autoencoder.decode(y).sample)


@torch.inference_mode()
def compare(codec: Codec, teacher: AutoencoderTiny, pictures: ImageDataset) -> pd.DataFrame:
    """Means over pictures, one row a latent and decoder: latent, decoder, and the measures."""
    readers = {OWN: codec, TEACHER: Codec(ReadBy(codec.backbone, teacher), codec.weights)}  # type: ignore[arg-type]
    rows = []
    for item in pictures:
        pixels = item.pixels()
        x = to_signed(pixels)
        file = codec.compress_to_size(pixels, int(RATE * pixels.shape[0] * pixels.shape[1] / 8)).data
        latents = {OWN: codec.backbone.encode(x), TEACHER: teacher.encode(x).latents}
        for decoder, reader in readers.items():
            decoded = {
                latent: to_pixels_like(reader.backbone.decode(y), pixels) for latent, y in latents.items()
            }
            decoded[f"{OWN}, file of {RATE:g}"] = reader.decompress(file).pixels
            for latent, picture in decoded.items():
                values = {name: metrics.get(name)(pixels, picture) for name in MEASURES}
                rows.append({"latent": latent, "decoder": decoder, **values})
    return pd.DataFrame(rows).groupby(["latent", "decoder"], as_index=False, sort=False).mean().round(4)


def main(
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/latent_space.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.", min=1)] = None,
) -> None:
    """Decode the latents of `mini` by TAESD, and the other way round."""
    target = stored("latent_space.csv", out, whole=(dataset, limit) == ("kodak", None))
    codec = Codec(Backbone.from_pretrained("mini"), codec_weights.load(codec_weights.embedded_weights()))
    pictures = datasets.load(dataset, limit)
    table = compare(codec, load_taesd(locate("taesd").path), pictures)
    keep(table, pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)

"""``python -m diffusion_codec.bench.peers``: seconds of this codec and of others on the same photograph.

Classical codecs are tuned to this codec's rate; of CompressAI's networks only the time is measured, their weights are
random (seconds do not depend on them, pictures would). CompressAI lives in an environment of its own, where
``make bench-records`` runs this module; elsewhere its rows are left out, and the output says so. Each codec runs in a
fresh process.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Annotated

import numpy as np
import typer

from diffusion_codec.bench.shared import (
    HEIGHT,
    WIDTH,
    in_fresh_process,
    photograph,
    pictured,
    timed,
    write_record,
)

OURS = "diffusion-codec"
CLASSICAL = ("jpeg", "webp", "avif", "avif-slow", "jpeg-xl")
LEARNED = {"bmshj2018-hyperprior": 1, "mbt2018": 1, "cheng2020-anchor": 1}
"""CompressAI's names, and the quality index that says how wide a network is (1: the narrow ones, of low rates)."""

SMOKE_WIDTH, SMOKE_HEIGHT = 128, 64
REPEATS = 5

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Peer:
    """One codec: median seconds of warm runs to make and to read a file; bytes are 0 where weights are random."""

    codec: str
    version: str
    settings: str
    file_bytes: int
    encode: float
    decode: float


def ours(pixels: np.ndarray, steps: int, repeats: int) -> Peer:
    """This codec as it ships, with ``steps`` denoising steps."""
    from diffusion_codec import __version__
    from diffusion_codec.backbone import RunOptions
    from diffusion_codec.codec import Codec

    codec = Codec.from_pretrained(run=RunOptions("auto"))
    data, _, encode = timed(lambda: codec.compress(pixels).data, repeats)
    _, _, decode = timed(lambda: codec.decompress(data, steps), repeats)
    return Peer(
        f"{OURS}, {steps} step" + "s" * (steps > 1), __version__, "quality 50", len(data), encode, decode
    )


def classical(name: str, pixels: np.ndarray, file_bytes: int, repeats: int) -> Peer:
    """A baseline at about ``file_bytes`` bytes, or at its smallest file."""
    from diffusion_codec import baselines

    codec = baselines.get(name)
    try:
        quality = codec.encode_at(pixels, 8 * file_bytes / (pixels.shape[0] * pixels.shape[1])).quality
    except baselines.UnreachableRateError:
        quality = codec.qualities[0]
    data, _, encode = timed(lambda: codec.encode(pixels, quality), repeats)
    _, _, decode = timed(lambda: codec.decode(data), repeats)
    return Peer(name, codec.version, f"{codec.options}, quality {quality:g}", len(data), encode, decode)


def learned(name: str, pixels: np.ndarray, repeats: int) -> Peer:
    """A network of CompressAI with random weights; needs its environment."""
    if find_spec("torchvision") is None:  # asked for by a part of CompressAI that is not used here
        stand_in = ModuleType("torchvision")
        stand_in.__spec__ = ModuleSpec("torchvision", None)  # without one, whoever looks for it fails
        stand_in.__dict__["transforms"] = ModuleType("torchvision.transforms")
        sys.modules |= {"torchvision": stand_in, "torchvision.transforms": stand_in.__dict__["transforms"]}
    import compressai
    import torch
    from compressai.zoo import image_models

    torch.manual_seed(0)
    model = image_models[name](quality=LEARNED[name], pretrained=False).eval()
    model.update(force=True)
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        made, _, encode = timed(lambda: model.compress(x), repeats)
        _, _, decode = timed(lambda: model.decompress(made["strings"], made["shape"]), repeats)
    settings = f"random weights, quality index {LEARNED[name]}, {torch.get_num_threads()} threads"
    return Peer(name, compressai.__version__, settings, 0, encode, decode)


def measure(pixels: np.ndarray, repeats: int, say: Callable[[str], None]) -> list[Peer]:
    """All codecs there are."""
    peers = [in_fresh_process(ours, pixels, steps, repeats) for steps in (3, 1)]
    peers += [in_fresh_process(classical, name, pixels, peers[0].file_bytes, repeats) for name in CLASSICAL]
    if find_spec("compressai") is None:
        say("CompressAI is not installed here: its networks are left out; `make bench-records` installs it")
        return peers
    for name in LEARNED:
        # the other two loop over positions: many seconds a picture
        often = repeats if name == "bmshj2018-hyperprior" else 1
        peers.append(in_fresh_process(learned, name, pixels, often))
    return peers


@app.command()
def bench(
    smoke: Annotated[bool, typer.Option("--smoke", help="A tiny picture, once.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Write data/results/bench_peers.json.")] = False,
) -> None:
    """Measure all codecs on one photograph; ratios to the first row are what to quote."""
    width, height = (SMOKE_WIDTH, SMOKE_HEIGHT) if smoke else (WIDTH, HEIGHT)
    repeats = 1 if smoke else REPEATS
    peers = measure(photograph(width, height), repeats, lambda text: typer.echo(text, err=True))
    typer.echo(f"{'codec':24}{'bytes':>8}{'encode, s':>12}{'decode, s':>12}{'ratios':>18}")
    for peer in peers:
        ratios = f"{peer.encode / peers[0].encode:8.2f} {peer.decode / peers[0].decode:8.2f}"
        size = str(peer.file_bytes) if peer.file_bytes else "–"
        typer.echo(f"{peer.codec:24}{size:>8}{peer.encode:12.3f}{peer.decode:12.3f}{ratios:>18}")
    if save:
        about = pictured(width, height, repeats=repeats)
        typer.echo(f"Written: {write_record('bench_peers', 'peers', peers, about)}")


if __name__ == "__main__":
    app()

"""One file through several backbones, and what stage benches have stored about large ones."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from diffusion_codec.backbone import RunOptions, prompt, sources
from diffusion_codec.backbone.random_model import write_random
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError

RANDOM = "random weights, Stable Diffusion's classes"


@dataclass(frozen=True)
class Decoding:
    """What one backbone made of the file; ``pixels`` is None for random weights: there is nothing to see."""

    backbone: str
    parameters: int
    symbols_sha256: str
    seconds: float
    pixels: np.ndarray | None


def whereabouts(names: Sequence[str]) -> pd.DataFrame:
    """One row a backbone: name, what it is, download in GB, licence, whether it is on this machine.

    Raises:
        BadInputError: a name that is neither embedded nor in the manifest.
    """
    known = sources.known()
    rows: list[tuple[object, ...]] = []
    for name in names:
        if name in sources.EMBEDDED:
            rows.append((name, "the embedded stand-in", None, "Apache-2.0", "yes"))
            continue
        if name not in known:
            raise BadInputError(
                f"backbone {name!r} is unknown; choose from {', '.join(sources.EMBEDDED)}, {', '.join(known)}"
            )
        entry = known[name]
        size = sum(file.bytes for file in entry.files) / 1e9 or None
        rows.append((name, entry.title, size, entry.licence, "yes" if prompt.at_hand(name) else "no"))
    return pd.DataFrame(rows, columns=["name", "model", "download, GB", "licence", "on this machine"])


def decode_by(
    data: bytes, backbones: Sequence[str], steps: int, device: str, run: RunOptions
) -> list[Decoding]:
    """Decode one file with each backbone, and with a tiny random model of Stable Diffusion's own classes."""
    decodings = [_decode(data, name, name, steps, device, run) for name in backbones]
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder) / "random", "tiny-1")
        decodings.append(_decode(data, str(Path(folder) / "random"), RANDOM, steps, device, run))
    return decodings


def _decode(data: bytes, backbone: str, name: str, steps: int, device: str, run: RunOptions) -> Decoding:
    codec = Codec.from_pretrained(backbone, device=device, run=run)
    decoded = codec.decompress(data, steps)
    count = sum(parameter.numel() for parameter in codec.backbone.parameters())
    pixels = None if name == RANDOM else decoded.pixels
    return Decoding(name, count, decoded.symbols_sha256, sum(decoded.seconds.values()), pixels)


def decodings_table(decodings: Sequence[Decoding]) -> pd.DataFrame:
    """One row a backbone; the symbols are shown by the first digits of their SHA-256."""
    rows = [(d.backbone, d.parameters / 1e6, d.symbols_sha256[:12], d.seconds) for d in decodings]
    return pd.DataFrame(rows, columns=["decoded by", "parameters, millions", "symbols", "seconds"])


def stored_stages(folder: Path) -> pd.DataFrame:
    """What ``diffusion_codec.bench.stages --save stages_...`` has stored, one row a cell, the same machine together.

    Columns: backbone, device, picture, precision, mode, batch, compress and decompress (seconds of one picture, the
    first time), processor time of both in seconds, peak memory in GiB.
    """
    rows = []
    for path in sorted(folder.glob("stages_*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        about = stored["about"]
        for cell in stored["cells"]:
            parts = {
                half: sum(v for k, v in cell["first"].items() if k.startswith(f"{half} "))
                for half in ("compress", "decompress", "cpu")
            }
            rows.append(
                {
                    "backbone": about["backbone"],
                    "device": about.get("gpu") or f"{about['device']}, {about['threads']} threads",
                    "picture": f"{cell['width']} x {cell['height']}",
                    "precision": cell["precision"],
                    "mode": cell["mode"],
                    "batch": cell["batch"],
                    "compress, s": parts["compress"],
                    "decompress, s": parts["decompress"],
                    "processor time, s": parts["cpu"],
                    "peak, GiB": cell["peak_memory"] / 2**30,
                }
            )
    return pd.DataFrame(rows)

"""The stored benchmarks as tables, and what can be counted instead of timed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from diffusion_codec.backbone.sources import embedded_folder
from diffusion_codec.evaluation import complexity, records

STAGES = {
    "encode": "E",
    "parameters": "P_φ",
    "entropy": "entropy coding",
    "denoise": "denoising",
    "decode": "D",
}
COMMANDS = {
    "bench": "python -m diffusion_codec.bench --save",
    "bench_growth": "python -m diffusion_codec.bench --growth --largest --save",
    "bench_peers": "python -m diffusion_codec.bench.peers --save",
    "bench_engines": "python -m diffusion_codec.bench.engines --save",
    "bench_folders": "python -m diffusion_codec.bench.folders --save",
}
"""What writes each record; `make bench-records` runs all of them."""


def stored(folder: Path, name: str) -> dict[str, Any] | None:
    """A record of the folder of results, None where it was not measured yet."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def provenance(folder: Path, name: str) -> str:
    """One sentence on where a record comes from, or on how to get it."""
    record = stored(folder, name)
    if record is None:
        return "Not measured yet; `make bench-records` does it."
    about = record["about"]
    precision = f", precision {about['precision']}" if "precision" in about else ""
    day = f" on {about['date']}" if "date" in about else ""
    size = f" of {about['width']} × {about['height']} pixels" if "width" in about else ""
    return (
        f"Measured{day} by `{COMMANDS[name]}` on {about['machine']}, {about['threads']} threads, torch "
        f"{about['versions']['torch']}{precision}, photograph `{about['photograph']}`{size}, at commit "
        f"{records.short(about['commit'])}."
    )


def networks(width: int, height: int) -> dict[str, Callable[[], object]]:
    """Calls of the embedded model's networks for one picture, sides multiples of 8; only shapes are computed."""
    folder = embedded_folder("mini")
    with torch.device("meta"):
        vae = AutoencoderTiny.from_config(AutoencoderTiny.load_config(folder / "vae")).eval()
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet")).eval()
        x, y = torch.empty(1, 3, height, width), torch.empty(1, 4, height // 8, width // 8)
        t, prompt = torch.empty(1), torch.empty(1, 1, 1)
    return {
        "E": lambda: vae.encode(x),
        "one denoising step": lambda: unet(y, t, prompt),
        "D": lambda: vae.decode(y),
    }


def counts(width: int, height: int) -> pd.DataFrame:
    """Columns network, GMAC, multiply-adds a pixel, MiB held at once: the same on every machine."""
    rows = []
    for name, run in networks(width, height).items():
        multiply_adds = complexity.operations(run) / 2
        held = complexity.peak_bytes(run) / 2**20
        rows.append((name, multiply_adds / 1e9, multiply_adds / (width * height), held))
    return pd.DataFrame(rows, columns=["network", "GMAC", "multiply-adds a pixel", "MiB held at once"])


def measurements(folder: Path) -> list[dict[str, Any]]:
    """What is stored for pictures of all sizes, the smallest first; of two records of one size that of `bench`."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for name in ("bench_growth", "bench"):
        for row in (stored(folder, name) or {"measurements": []})["measurements"]:
            found[row["width"], row["height"]] = row
    return [found[size] for size in sorted(found, key=lambda size: size[0] * size[1])]


def stages(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a picture's size and stage: size, direction, stage, seconds, share of the matrix product's speed."""
    lines = []
    for row in rows:
        for direction in ("compress", "decompress"):
            for key, label in STAGES.items():
                if key in row[direction]:
                    seconds = row[direction][key]
                    size = f"{row['width']} × {row['height']}"
                    lines.append((size, direction, label, seconds, _share(row, key, seconds)))
    columns = ["picture", "direction", "stage", "seconds", "share of peak"]
    return pd.DataFrame(lines, columns=columns)


def _share(row: dict[str, Any], stage: str, seconds: float) -> float | None:
    """The part of the machine's speed in matrix products that a stage reaches; None where it was not counted."""
    operations = row.get("operations", {}).get(stage)
    if operations is None:
        return None
    return float(operations / seconds / row["matrix_speed"][row["formats"][stage]])


def totals(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a size: picture, megapixels, compress and decompress in seconds, peak memory in MiB."""
    lines = [
        (
            f"{row['width']} × {row['height']}",
            row["width"] * row["height"] / 1e6,
            row["compress"]["total"],
            row["decompress"]["total"],
            row["peak_memory"] / 2**20,
        )
        for row in rows
    ]
    return pd.DataFrame(lines, columns=["picture", "megapixels", "compress, s", "decompress, s", "peak, MiB"])


def exponent(frame: pd.DataFrame, column: str) -> float:
    """The power of the number of pixels that a column grows with, between the smallest and the largest picture."""
    first, last = frame.iloc[0], frame.iloc[-1]
    return math.log(last[column] / first[column]) / math.log(last["megapixels"] / first["megapixels"])


def peers(folder: Path) -> pd.DataFrame | None:
    """Codecs on one photograph, with seconds as multiples of this codec's."""
    record = stored(folder, "bench_peers")
    if record is None:
        return None
    frame = pd.DataFrame(record["peers"])
    ours = frame.iloc[0]
    return pd.DataFrame(
        {
            "codec": frame["codec"],
            "bytes": [str(size) if size else "–" for size in frame["file_bytes"]],
            "encode, s": frame["encode"],
            "decode, s": frame["decode"],
            "encode, ratio": frame["encode"] / ours["encode"],
            "decode, ratio": frame["decode"] / ours["decode"],
            "settings": frame["settings"],
        }
    )


def engines(folder: Path) -> pd.DataFrame | None:
    """Ways to run the decoder: seconds, ratio to the first way, difference of the pixels in levels of 255."""
    record = stored(folder, "bench_engines")
    if record is None:
        return None
    frame = pd.DataFrame(record["engines"])
    return pd.DataFrame(
        {
            "decoder": frame["engine"],
            "first call, s": frame["first"],
            "seconds": frame["seconds"],
            "ratio": frame["seconds"] / frame["seconds"].iloc[0],
            "pixels, rms": frame["rms"],
            "pixels, at most": frame["largest"],
        }
    )


def folders(folder: Path) -> pd.DataFrame | None:
    """Pictures a second, a folder at once against one call after another."""
    record = stored(folder, "bench_folders")
    if record is None:
        return None
    return pd.DataFrame(record["ways"]).rename(
        columns={"compress": "compressed a second", "decompress": "decompressed a second"}
    )

"""The noise machine: a reader moves the step and the declared timestep and sees what the decoder makes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffusion_codec.evaluation.noise_grid import SPAN, Pixels, Row
from diffusion_codec.figures.interactive import Interactive, fill, webp
from diffusion_codec.figures.noise import KIND_NAMES, picture_grid

LATENT_RANGE = 3.0
"""Values of the latent from -3 to 3 become black to white."""


def machine(
    grids: Mapping[str, Sequence[Row]], original: Pixels, alt: str, prints: list[Path]
) -> Interactive:
    """The machine for a cell of a notebook; `grids` are the rows of each kind of error, `alt` says what is seen."""
    first = next(iter(grids.values()))
    data = {
        "original": webp(original, 90),
        "alt": alt,
        "span": SPAN,
        "t": [cell.t for cell in first[0].cells],
        "sigma": [cell.sigma for cell in first[0].cells],
        "kinds": [_kind(kind, rows) for kind, rows in grids.items()],
    }
    return fill("noise_machine", data, prints, alt)


def _kind(kind: str, rows: Sequence[Row]) -> dict[str, Any]:
    sheet = np.concatenate([np.concatenate([cell.pixels for cell in row.cells], 1) for row in rows])
    return {
        "name": KIND_NAMES[kind],
        "sheet": webp(sheet, 78),
        "latents": webp(np.concatenate([_latent(row) for row in rows]), 90),
        "rows": [
            {
                "step": round(row.step, 4),
                "t": row.matched_t,
                "deviation": round(row.deviation, 4),
                "bpp": round(row.bpp, 4),
                "density": [round(float(value), 3) for value in row.density],
                "lpips": [round(cell.lpips, 4) for cell in row.cells],
                "psnr": [round(cell.psnr, 2) for cell in row.cells],
            }
            for row in rows
        ],
    }


def _latent(row: Row) -> Pixels:
    """The four channels as grey levels, two above two."""
    levels = np.clip((row.y_hat / LATENT_RANGE + 1) * 127.5, 0, 255).astype(np.uint8)
    return np.concatenate([np.concatenate(levels[:2], 1), np.concatenate(levels[2:], 1)])


def still(rows: Sequence[Row]) -> Figure:
    """The machine in print: three steps; not denoised, then declared too low, matched, too high."""
    chosen = sorted({0, len(rows) // 2, len(rows) - 1})
    pictures, notes, names = [], [], []
    for index in chosen:
        row, matched = rows[index], index + 1
        columns = (0, max(1, matched - 2), matched, min(len(row.cells) - 1, matched + 2))
        pictures.append([row.cells[column].pixels for column in columns])
        notes.append([f"t = {row.cells[c].t}, LPIPS {row.cells[c].lpips:.3f}" for c in columns])
        names.append(f"Δ = {row.step:.2f}")
    return picture_grid(pictures, ["not denoised", "t too low", "t matched", "t too high"], names, notes)

"""A map of spread as a picture: the decoded photograph in grey, glowing where the decoder was unsure."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FULL = 40.0
"""Grey levels of spread that get the full colour, the same in every picture."""

BAR = 28
_GLOW = (
    (0.0, (0, 0, 0)),
    (0.25, (90, 20, 110)),
    (0.5, (200, 50, 60)),
    (0.75, (250, 150, 30)),
    (1.0, (255, 250, 160)),
)


def colours(spread: NDArray[np.float32], full: float = FULL) -> NDArray[np.uint8]:
    """(H, W) grey levels to uint8 (H, W, 3): black, purple, red, orange, pale yellow at `full` and above."""
    part = np.clip(spread / full, 0, 1)
    at = [position for position, _ in _GLOW]
    channels = [np.interp(part, at, [colour[c] for _, colour in _GLOW]) for c in range(3)]
    levels: NDArray[np.uint8] = np.rint(np.stack(channels, -1)).astype(np.uint8)
    return levels


def picture(decoded: NDArray[np.uint8], spread: NDArray[np.float32], full: float = FULL) -> Image.Image:
    """The photograph in dim grey under the map's colours, with a scale below it."""
    grey = np.repeat(decoded.mean(-1, keepdims=True), 3, -1)
    strength = np.sqrt(np.clip(spread / full, 0, 1))[..., None]
    mixed = (1 - strength) * 0.75 * grey + strength * colours(spread, full)
    height, width = spread.shape
    sheet = Image.new("RGB", (width, height + BAR), "white")
    sheet.paste(Image.fromarray(np.rint(mixed).astype(np.uint8)), (0, 0))
    ramp = np.broadcast_to(
        np.linspace(0, full, max(width // 2, 1), dtype=np.float32), (10, max(width // 2, 1))
    )
    sheet.paste(Image.fromarray(colours(np.ascontiguousarray(ramp), full)), (8, height + 9))
    text = f"0 to {full:g} grey levels and more: what the file does not decide"
    ImageDraw.Draw(sheet).text((width // 2 + 16, height + 8), text, fill="black")
    return sheet

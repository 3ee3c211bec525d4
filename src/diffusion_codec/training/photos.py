"""Training photographs in memory, and random crops of them with aligned teacher latents."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusion_codec.datasets import assert_disjoint, fingerprint, photo_files
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.image_io import load_image

LATENT_STRIDE = 8


def load_photos(folder: Path, limit: int | None = None, minimum_side: int = 64) -> list[Tensor]:
    """Photographs as uint8 sRGB (3, H, W), cut to multiples of 8 pixels, in order of their names.

    Raises:
        MissingDataError: the folder holds no photograph.
        BadInputError: one of them cannot be read.
        OverlapError: one of them is in an evaluation set.
    """
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder} of photographs")
    paths = photo_files(folder)[:limit]
    photos, prints = [], []
    for path in paths:
        pixels = load_image(path).pixels
        height, width = (side - side % LATENT_STRIDE for side in pixels.shape[:2])
        if min(height, width) >= minimum_side:
            photos.append(torch.from_numpy(pixels[:height, :width]).permute(2, 0, 1).contiguous())
            prints.append(fingerprint(path.stem, pixels))
    if not photos:
        raise MissingDataError(f"no photograph of {minimum_side} px or more a side in {folder}")
    assert_disjoint(prints)
    return photos


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1, the range of diffusers' autoencoders."""
    return pixels.float() / 127.5 - 1


def area_weights(sides: Sequence[Sequence[int]], count: int, crop: int) -> Tensor:
    """How often to crop each picture, float32 (N,), by its area; they sum to 1.

    Args:
        sides: height and width of each picture that a crop fits into.
        count: pictures there were, for the message.
        crop: pixels a side, for the message.

    Raises:
        BadInputError: a crop fits into none.
    """
    if not sides:
        raise BadInputError(
            f"none of the {count} photographs has the {crop} px a side of a crop: train on larger ones, or with a "
            "smaller crop"
        )
    areas = torch.tensor([float(height * width) for height, width in sides])
    return areas / areas.sum()


class LatentCrops:
    """Random crops of photographs together with the same place of their cached latents.

    ``latents[i]`` is (4, H/8, W/8) for ``photos[i]`` of (3, H, W). Draws are a pure function of the generator.

    Raises:
        BadInputError: every photograph is smaller than a crop of ``size`` pixels a side.
    """

    def __init__(self, photos: list[Tensor] | None, latents: list[Tensor], size: int):
        self.photos, self.size = photos, size // LATENT_STRIDE
        keep = [i for i, y in enumerate(latents) if min(y.shape[1:]) >= self.size]
        self.photos = [photos[i] for i in keep] if photos else None
        self.latents = [latents[i].float() for i in keep]
        self.weights = area_weights([y.shape[1:] for y in self.latents], len(latents), size)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
        """(count, 3, size, size) in -1..1 (or None without photographs) and (count, 4, size/8, size/8)."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        corners = torch.rand(count, 2, generator=generator)
        pixels, latents = [], []
        for index, corner in zip(chosen.tolist(), corners.tolist(), strict=True):
            y = self.latents[index]
            top, left = (int(c * (side - self.size + 1)) for c, side in zip(corner, y.shape[1:], strict=True))
            latents.append(y[:, top : top + self.size, left : left + self.size])
            if self.photos:
                rows, columns = (
                    slice(LATENT_STRIDE * a, LATENT_STRIDE * (a + self.size)) for a in (top, left)
                )
                pixels.append(self.photos[index][:, rows, columns])
        crops = to_unit(torch.stack(pixels)) if pixels else None
        return crops, torch.stack(latents)


class PhotoCrops:
    """Random square crops of photographs, on their device; draws are a pure function of the generator.

    Raises:
        BadInputError: every photograph is smaller than a crop of ``size`` pixels a side.
    """

    def __init__(self, photos: list[Tensor], size: int):
        self.photos, self.size = [photo for photo in photos if min(photo.shape[1:]) >= size], size
        self.weights = area_weights([photo.shape[1:] for photo in self.photos], len(photos), size)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, size, size) in -1..1, mirrored at random."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        corners = torch.rand(count, 3, generator=generator)
        crops = []
        for index, (down, right, mirror) in zip(chosen.tolist(), corners.tolist(), strict=True):
            photo = self.photos[index]
            top, left = (
                int(c * (side - self.size + 1))
                for c, side in zip((down, right), photo.shape[1:], strict=True)
            )
            crop = photo[:, top : top + self.size, left : left + self.size]
            crops.append(crop.flip(-1) if mirror < 0.5 else crop)
        return to_unit(torch.stack(crops))

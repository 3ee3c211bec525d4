"""Random crops of Vimeo-90k septuplets with their latents, encoded on the way: the paper's training data."""

import torch
from torch import Tensor

from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.datasets.vimeo import FRAMES, HEIGHT, WIDTH, Septuplets
from diffusion_codec.errors import BadInputError
from diffusion_codec.training.photos import to_unit


class SeptupletCropsWithLatents:
    """Random sequence, frame, crop and mirror; latents by the frozen encoder. Draws are a function of the generator.

    Raises:
        BadInputError: a crop is no part of a frame, or smaller than one latent position.
    """

    def __init__(self, septuplets: Septuplets, backbone: Backbone, crop: int = 256):
        if not STRIDE <= crop <= HEIGHT:
            raise BadInputError(
                f"crops of {WIDTH} x {HEIGHT} frames are {STRIDE} to {HEIGHT} a side, not {crop}"
            )
        self.septuplets, self.backbone = septuplets, backbone
        self.crop = crop - crop % STRIDE

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(count, 3, crop, crop) in -1..1 and (count, 4, crop/8, crop/8).

        Raises:
            BrokenSequenceError: a frame cannot be read or has another size.
        """

        def below(limit: int) -> list[int]:
            drawn: list[int] = torch.randint(limit, (count,), generator=generator).tolist()
            return drawn

        sequences, frames = below(len(self.septuplets)), below(FRAMES)
        tops, lefts = below(HEIGHT - self.crop + 1), below(WIDTH - self.crop + 1)
        crops = []
        for sequence, frame, top, left, mirrored in zip(
            sequences, frames, tops, lefts, below(2), strict=True
        ):
            pixels = torch.from_numpy(self.septuplets.frame(sequence, 1 + frame))
            part = pixels[top : top + self.crop, left : left + self.crop].permute(2, 0, 1)
            crops.append(part.flip(2) if mirrored else part)
        x = to_unit(torch.stack(crops)).to(self.backbone.device)
        with torch.no_grad():
            y = self.backbone.encode(x.contiguous(memory_format=torch.channels_last)).float()
        return x, y


def spread_frames(septuplets: Septuplets, count: int) -> list[Tensor]:
    """``count`` frames of every sequence, evenly apart, uint8 (3, 256, 448) each."""
    numbers = torch.linspace(1, FRAMES, count).round().int().tolist()
    return [
        torch.from_numpy(septuplets.frame(sequence, number)).permute(2, 0, 1).contiguous()
        for sequence in range(len(septuplets))
        for number in numbers
    ]

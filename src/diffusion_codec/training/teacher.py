"""The teacher whose latent space ``mini`` learns to speak: TAESD, the published tiny autoencoder of SD-1.x latents."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_codec.errors import BadInputError
from diffusion_codec.training.photos import to_unit


def load_taesd(folder: Path) -> AutoencoderTiny:
    """TAESD from its original two files (``taesd_encoder.safetensors``, ``taesd_decoder.safetensors``).

    Its latents carry SD-1.x's scaling factor already. The original decoder counts its clamp as layer 0, which
    diffusers applies outside the layers, hence the shift by one.
    """
    model = AutoencoderTiny()
    encoder = load_file(folder / "taesd_encoder.safetensors")
    decoder = load_file(folder / "taesd_decoder.safetensors")
    state = {f"encoder.layers.{k}": v for k, v in encoder.items()}
    for key, value in decoder.items():
        index, rest = key.split(".", 1)
        state[f"decoder.layers.{int(index) - 1}.{rest}"] = value
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def teacher_latents(
    photos: list[Tensor], teacher_folder: Path, cache: Path, device: str = "cpu"
) -> list[Tensor]:
    """The teacher's latents of whole photographs, float16 (4, H/8, W/8), computed once and kept in ``cache``."""
    if cache.exists():
        stored = load_file(cache)
        latents = [stored[f"{i:06d}"] for i in range(len(stored))]
        shapes = [(4, p.shape[1] // 8, p.shape[2] // 8) for p in photos]
        if [tuple(y.shape) for y in latents] != shapes:
            raise BadInputError(f"{cache} holds the latents of other photographs; remove it")
        return latents
    teacher = load_taesd(teacher_folder).to(device, memory_format=torch.channels_last)
    latents = []
    for photo in photos:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            encoded = teacher.encode(to_unit(photo[None].to(device))).latents
        latents.append(encoded[0].half().cpu().contiguous())
    part = cache.with_suffix(".part")
    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{i:06d}": y for i, y in enumerate(latents)}, part)
    part.replace(cache)
    return latents

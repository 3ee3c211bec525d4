"""Latents of the training photographs, computed once and cached; and the teacher that makes the first ones.

The teacher is TAESD, the published tiny autoencoder of SD-1.x latents: ``mini`` learns its latent space from it.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.backbone.options import SMALL_NETWORKS, trains_in_bfloat16
from diffusion_codec.errors import BadInputError
from diffusion_codec.fetch import locate
from diffusion_codec.tiling import tiled
from diffusion_codec.training.photos import load_photos, to_unit


def photos_with_latents(
    folder: Path | None, limit: int | None, backbone: Backbone, cache: Path
) -> tuple[list[Tensor], list[Tensor]]:
    """Training photographs (the data set train-photos where no folder is given) and their latents, kept in ``cache``.

    Raises:
        MissingDataError: there are no photographs.
    """
    photos = load_photos(folder or locate("train-photos").path, limit)
    return photos, cached_latents(backbone.encode, photos, cache_file(cache, backbone.vae.encoder, photos))


def load_taesd(folder: Path) -> AutoencoderTiny:
    """TAESD from its original two files (``taesd_encoder.safetensors``, ``taesd_decoder.safetensors``).

    Its latents carry SD-1.x's scaling factor already. The original decoder counts its clamp as layer 0, which
    diffusers applies outside the layers, hence the shift by one.
    """
    model = AutoencoderTiny()
    try:
        encoder, decoder = (
            load_file(folder / f"taesd_{half}.safetensors") for half in ("encoder", "decoder")
        )
        state = {f"encoder.layers.{k}": v for k, v in encoder.items()}
        for key, value in decoder.items():
            index, rest = key.split(".", 1)
            state[f"decoder.layers.{int(index) - 1}.{rest}"] = value
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInputError(f"'{folder}' does not hold TAESD's two files of weights: {error}") from error
    load_weights(model, state, f"'{folder}'")
    return model.eval().requires_grad_(False)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put ``state`` into ``model``. Raises BadInputError, naming ``where`` it is from, if it is of another shape."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise BadInputError(f"{where} holds weights of another shape than this configuration's") from error


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a network's weights, by name, in half precision."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()


def photos_sha256(photos: Iterable[Tensor]) -> str:
    """SHA-256 of the shapes and pixels of photographs."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(repr(tuple(photo.shape)).encode() + photo.numpy().tobytes())
    return digest.hexdigest()


def cache_file(folder: Path, encoder: nn.Module, photos: list[Tensor]) -> Path:
    """Where in ``folder`` the latents of just these photographs by just this encoder are kept.

    Its name has the start of the SHA-256 of the weights, in half precision, and of the pixels.
    """
    weights, pixels = weights_sha256(encoder.state_dict())[:8], photos_sha256(photos)[:16]
    return folder / f"latents-{weights}-{len(photos)}-{pixels}.safetensors"


def in_tiles(autoencoder: AutoencoderTiny) -> Callable[[Tensor], Tensor]:
    """Its encoder, (1, 3, H, W) -> (1, 4, H/8, W/8), in tiles: a large photograph takes no more memory than a tile."""
    tile, overlap = SMALL_NETWORKS.pixels, SMALL_NETWORKS.pixel_overlap

    def encode(x: Tensor) -> Tensor:
        return tiled(
            lambda part: autoencoder.encode(part).latents,
            x,
            tile=tile,
            overlap=overlap,
            scale=1 / STRIDE,
            align=STRIDE,
        )

    return encode


@torch.no_grad()
def cached_latents(
    encode: Callable[[Tensor], Tensor], photos: list[Tensor], cache: Path | None = None, device: str = "cpu"
) -> list[Tensor]:
    """Latents of whole photographs, float16 (4, H/8, W/8) each, computed once and kept in ``cache``.

    A cache that cannot be read is made anew.

    Args:
        encode: (1, 3, H, W) in -1..1 -> (1, 4, H/8, W/8); run in bfloat16 where that is fast.
        cache: of :func:`cache_file`; by itself it does not tell photographs of one size apart.

    Raises:
        BadInputError: the cache is of photographs of other sizes, or of another number.
    """
    if cache is not None and cache.exists():
        try:
            stored = load_file(cache)
        except SafetensorError:
            cache.unlink()
            return cached_latents(encode, photos, cache, device)
        latents = [stored[name] for name in sorted(stored)]
        if [y.shape[1:] for y in latents] != [(p.shape[1] // 8, p.shape[2] // 8) for p in photos]:
            raise BadInputError(f"{cache} holds the latents of other photographs; remove it")
        return latents
    latents, fast = [], trains_in_bfloat16(torch.device(device))
    for photo in photos:
        x = to_unit(photo[None].to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=fast):
            latents.append(encode(x)[0].half().cpu().contiguous())
    if cache is not None:
        part = cache.with_suffix(f".{os.getpid()}.part")  # of two trainings side by side each writes its own
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file({f"{i:06d}": y for i, y in enumerate(latents)}, part)
        part.replace(cache)
    return latents

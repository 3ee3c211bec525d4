"""A short real run of the codec recipe from trained weights: what chapter 2 does in minutes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_codec import codec_weights, datasets
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.datasets import Septuplets
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.training.codec import CodecConfig, CodecRecipe, Crops, warm_start
from diffusion_codec.training.export import export_codec
from diffusion_codec.training.latents import cached_latents
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import LatentCrops
from diffusion_codec.training.septuplets import SeptupletCropsWithLatents

HELD_OUT_FRAME = 4


@dataclass(frozen=True)
class TrainingData:
    """Crops to train on and pictures to look at, with their names and a sentence that says what they are."""

    name: str
    origin: str
    statement: str
    sources: int
    crops: Crops
    held_out: dict[str, np.ndarray]


def training_data(name: str, backbone: Backbone, crop: int) -> TrainingData:
    """Septuplets of the manifest by the official lists; the photographs of ``sample`` where they cannot be had.

    Septuplets: crops of the train list, and the middle frame of each sequence of the test list held out.
    ``sample``: crops of those photographs, which are then *not* held out; the statement says so.

    Raises:
        BadInputError: ``name`` is neither a set of septuplets nor ``sample``.
    """
    if name != "sample":
        try:
            return _septuplets(name, backbone, crop)
        except MissingDataError as error:
            reason = f"{name} cannot be had here ({error}). "
            return _photographs(backbone, crop, reason)
    return _photographs(backbone, crop, "")


def _septuplets(name: str, backbone: Backbone, crop: int) -> TrainingData:
    if not name.startswith("vimeo90k-septuplet"):
        raise BadInputError(
            f"data set {name!r} is unknown; choose vimeo90k-septuplet, vimeo90k-septuplet-48 or sample"
        )
    train_list, test_list = (Septuplets.named(name, split) for split in ("train", "test"))
    shared = set(train_list.names) & set(test_list.names)
    if shared:
        raise BadInputError(f"{name}: {len(shared)} sequences are in both lists, for example {min(shared)}")
    held_out = {test_list.names[i]: test_list.frame(i, HELD_OUT_FRAME) for i in range(min(8, len(test_list)))}
    statement = (
        f"{name}: {len(train_list)} septuplets of sep_trainlist.txt to train on, {len(test_list)} of "
        f"sep_testlist.txt to look at. The whole of Vimeo-90k has 64,612 and 7,824."
    )
    crops = SeptupletCropsWithLatents(train_list, backbone, crop)
    return TrainingData(name, "mirror", statement, len(train_list), crops, held_out)


def _photographs(backbone: Backbone, crop: int, reason: str) -> TrainingData:
    photos = datasets.load("sample")
    pixels = {photo.id: _whole_blocks(photo.pixels()) for photo in photos}
    tensors = [torch.from_numpy(p).permute(2, 0, 1).contiguous() for p in pixels.values()]
    latents = cached_latents(backbone.encode, tensors)
    statement = (
        f"{reason}The {len(photos)} photographs of 'sample' stand in for Vimeo-90k: this run shows that the recipe "
        "works, and what is measured below is measured on the pictures it was trained on."
    )
    crops = LatentCrops(tensors, latents, crop)
    return TrainingData(photos.name, photos.origin, statement, len(photos), crops, pixels)


def _whole_blocks(pixels: np.ndarray) -> np.ndarray:
    height, width = (side - side % 8 for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[:height, :width])


def short_config(weights: CodecWeights, steps: int, batch_size: int, crop: int, seed: int) -> CodecConfig:
    """The recipe's last stage, shaped like ``weights``, at a fifteenth of the CPU recipe's learning rate."""
    shape = weights.latent_coder.model.config
    return CodecConfig(
        steps=steps,
        batch_size=batch_size,
        crop=crop,
        seed=seed,
        learning_rate=1e-4,
        warmup_steps=max(1, steps // 10),
        ema_decay=0.9,
        log_every=1,
        checkpoint_every=steps,
        entropy_width=shape["width"],
        **{name: value for name, value in shape.items() if name != "width"},
        tied=weights.parameter_estimation.tied,
        dithered=weights.dithered,
    )


def short_run(
    config: CodecConfig, backbone: Backbone, crops: Crops, weights: CodecWeights, folder: Path
) -> tuple[Path, CodecWeights]:
    """Train from ``weights`` and write the result.

    Args:
        folder: gets the loop's files (``losses.csv`` among them) and ``codec.safetensors``; a run found there is
            thrown away, not continued.

    Returns:
        The file of codec weights, and those weights as read back from it.
    """
    for name in ("state.safetensors", "losses.csv", "codec.safetensors"):
        (folder / name).unlink(missing_ok=True)
    recipe = CodecRecipe(config, backbone, crops)
    warm_start(recipe, weights)
    train(recipe, folder)
    path = folder / "codec.safetensors"
    export_codec(folder, path)
    return path, codec_weights.load(path)


def gradient_norm(module: torch.nn.Module) -> float:
    """Length of all gradients of a module's parameters, 0 where there are none."""
    gradients: list[Tensor] = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.stack([g.norm() for g in gradients]).norm()) if gradients else 0.0

"""Pickled weights to safetensors, once and on purpose."""

import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion_codec.errors import BadInputError

PARTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "pytorch_model",
}
NAMES = {"pytorch_model": "model"}


def convert(folder: Path) -> list[Path]:
    """Write a safetensors file beside each pickled one of a backbone folder that has none.

    PyTorch reads the pickle with its restricted reader, which builds tensors and runs nothing else.

    Returns:
        What was written.

    Raises:
        BadInputError: nothing to convert, or a file that holds more than tensors.
    """
    written = []
    for part, stem in PARTS.items():
        for pickled in sorted((folder / part).glob(f"{stem}*.bin")):
            target = pickled.with_name(pickled.stem.replace(stem, NAMES.get(stem, stem)) + ".safetensors")
            if not target.exists():
                save_file(_tensors(pickled), target, {"format": "pt"})
                written.append(target)
    if not written:
        raise BadInputError(f"{folder} holds no pickled weights without a safetensors file beside them")
    return written


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(f"{path} holds more than tensors, or is damaged: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInputError(f"{path} is no dictionary of tensors")
    return {name: value.contiguous().clone() for name, value in state.items()}

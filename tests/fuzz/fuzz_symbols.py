"""Coverage-guided fuzzing of decompress up to the symbols, with the golden files' weights: ``make fuzz``."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["diffusion_codec.bitstream", "diffusion_codec.entropy"]):
    from diffusion_codec import bitstream
    from diffusion_codec.codec_weights import load
    from diffusion_codec.entropy.coder import Streams
    from diffusion_codec.entropy.model import SideInformation
    from diffusion_codec.errors import BadInputError
import torch

from tests.fuzz.mutations import with_right_sums

WEIGHTS = Path(__file__).parents[1] / "conformance" / "1.0" / "weights"
CODERS = {name: load(WEIGHTS / f"{name}.safetensors") for name in ("context", "hyperprior", "lattice")}
SMALL = bitstream.Limits(max_side=256, max_pixels=2**12)


def one_input(data: bytes) -> None:
    """A container with right check sums through the entropy decoder its fingerprint names."""
    try:
        file = bitstream.read(with_right_sums(data), SMALL)
        header = file.header
        wanted = [w for w in CODERS.values() if w.fingerprint == header.weights_fingerprint]
        weights = (wanted or [CODERS["context"]])[0]
        size = (-(-header.height // 8), -(-header.width // 8))
        side = SideInformation(torch.tensor([header.alpha]), torch.tensor([header.timestep]))
        z_hat = weights.decode(Streams(file.hyper, file.latent), size, side, torch.zeros(4, *size))
    except BadInputError:
        return
    assert z_hat.shape == (4, *size)


if __name__ == "__main__":
    torch.set_num_threads(1)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

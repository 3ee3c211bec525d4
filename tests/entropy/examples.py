"""Latents and a model made of integers, the same on every machine; imports little, for tests that start processes."""

import hashlib

import torch

from diffusion_codec.entropy.model import Context, EntropyModel, SideInformation, table_indices

SIDE = SideInformation(torch.tensor([[-8, 5, 0, 20]]), torch.tensor([130]))


def random_latent(seed: int, size: tuple[int, int], spread: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # from integers: seeded float generators differ between instruction sets
    return (torch.randint(-1024, 1025, (4, *size), generator=generator) * spread / 512).round().long()


def disturbed_model(
    hyper_channels: int = 0, context: Context = "checkerboard", energy: int = 0
) -> EntropyModel:
    torch.manual_seed(0)
    model = EntropyModel(
        width=8, hyper_channels=hyper_channels, hyper_features=4, context=context, energy=energy
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-1024, 1025, parameter.shape) / 4096)
    return model


@torch.no_grad()
def indices_sha256(threads: int, context: Context = "checkerboard", energy: int = 0) -> str:
    """SHA-256 of all table indices of a known latent, computed with so many threads."""
    torch.set_num_threads(threads)
    model, z = (
        disturbed_model(context=context, energy=energy).double(),
        random_latent(7, (24, 41)).double()[None],
    )
    digest = hashlib.sha256()
    for index, mean, log_scale in model.each_pass(z, SIDE, None):
        _, mask = model.channel_and_mask(index, *z.shape[-2:])
        for part in table_indices(mean[0][mask], log_scale[0][mask]):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()

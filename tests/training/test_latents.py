from pathlib import Path

import pytest
import torch

from diffusion_codec.errors import BadInputError
from diffusion_codec.training.latents import cache_file, cached_latents
from diffusion_codec.training.photos import LatentCrops, PhotoCrops


def photos(count: int = 2) -> list[torch.Tensor]:
    return [torch.full((3, 64, 64 + 8 * i), 10 * i, dtype=torch.uint8) for i in range(count)]


def encode(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(x, 8)[:, [0, 1, 2, 0]]


def test_cache_is_computed_once(tmp_path: Path) -> None:
    cache = tmp_path / "latents.safetensors"
    first = cached_latents(encode, photos(), cache)

    def never(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the cache was there")

    second = cached_latents(never, photos(), cache)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_cache_of_other_photographs_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "latents.safetensors"
    cached_latents(encode, photos(2), cache)
    with pytest.raises(BadInputError, match="other photographs"):
        cached_latents(encode, photos(3), cache)


def test_the_cache_is_named_after_pixels_and_weights(tmp_path: Path) -> None:
    encoder = torch.nn.Conv2d(3, 4, 1)
    name = cache_file(tmp_path, encoder, photos())
    assert cache_file(tmp_path, encoder, photos()) == name
    others = photos()
    others[1][0, 5, 7] += 1
    assert cache_file(tmp_path, encoder, others) != name
    assert cache_file(tmp_path, torch.nn.Conv2d(3, 4, 1), photos()) != name


def test_crops_and_latents_are_of_the_same_place() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8, generator=generator)
    picture = picture.repeat_interleave(8, 1).repeat_interleave(8, 2)  # each latent position has one colour
    latents = encode((picture.float() / 127.5 - 1)[None])[0]
    crops, targets = LatentCrops([picture], [latents], 32).draw(5, torch.Generator().manual_seed(1))
    assert crops is not None
    torch.testing.assert_close(encode(crops), targets)


def test_photographs_smaller_than_a_crop_are_left_out() -> None:
    crops = LatentCrops(None, [torch.zeros(4, 4, 4), torch.ones(4, 8, 8)], 64)
    assert crops.draw(3, torch.Generator().manual_seed(0))[1].min() == 1


def test_photographs_all_smaller_than_a_crop_are_one_line() -> None:
    message = "none of the 2 photographs has the 128 px a side of a crop"
    with pytest.raises(BadInputError, match=message):
        LatentCrops(None, [torch.zeros(4, 8, 8)] * 2, 128)
    with pytest.raises(BadInputError, match=message):
        PhotoCrops(photos(2), 128)

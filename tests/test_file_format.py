"""The page *The file format* is right: a second decoder, written from it alone, reads the package's files.

Its decoding side uses Python integers, NumPy and the weights' file, nothing of ``diffusion_codec.entropy``.
"""

import hashlib
import json
import re
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from diffusion_codec import bitstream
from diffusion_codec.bitstream import DfcFile, Header
from diffusion_codec.quantization import shared_dither

PAGE = Path(__file__).parents[1] / "book" / "file_format.md"
Array = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[np.generic]]


def grid(x: Array) -> Array:
    """Q of the page."""
    return np.floor(64 * np.clip(x, -512, 512) + 0.5) / 64


def active(x: Array) -> Array:
    """A of the page."""
    return grid(np.maximum(x, 0))


def convolve(x: Array, tensors: Tensors, name: str) -> Array:
    """Correlation (C, h, w) -> (C', h, w), zeros around the border, integer weights."""
    weight = tensors[f"{name}.weight"].astype(np.float64) / 2**12
    bias = tensors[f"{name}.bias"].astype(np.float64) / 2**18
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[-2:], axis=(1, 2))
    result: Array = np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]
    return result


class RangeDecoder:
    """The page's three lines of arithmetic."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        raw = self.data[self.position : self.position + 4]
        self.position += 4
        return int.from_bytes(raw.ljust(4, b"\0"), "little")

    def symbol(self, cumulative: list[int]) -> int:
        scale = self.range >> 24
        quantile = (self.point - self.lower) % 2**64 // scale
        assert quantile < 2**24
        found = bisect_right(cumulative, quantile) - 1
        self.lower = (self.lower + scale * cumulative[found]) % 2**64
        self.range = scale * (cumulative[found + 1] - cumulative[found])
        if self.range < 2**32:
            self.range <<= 32
            self.lower = (self.lower << 32) % 2**64
            self.point = (self.point << 32) % 2**64 | self.word()
        return found


def cumulative_numbers(frequencies: npt.NDArray[np.generic]) -> list[int]:
    """G of the page."""
    count = len(frequencies)
    before = np.concatenate([[0], np.cumsum(frequencies.astype(np.int64))])[:-1]
    share = (before / 2**22).astype(np.float32) * np.float32(2**24 - count)
    return [int(value) + index for index, value in enumerate(share)] + [2**24]


def hyper_planes(file: DfcFile, tensors: Tensors, size: tuple[int, int]) -> Array:
    """The hyperprior's planes (F, h, w); none without a hyperprior."""
    if "tables.hyper" not in tensors:
        assert file.hyper == b""
        return np.zeros((0, *size))
    tables = tensors["tables.hyper"]
    decoder = RangeDecoder(file.hyper)
    h, w = (-(-side // 4) for side in size)
    values = [[decoder.symbol(cumulative_numbers(row)) - 15 for _ in range(h * w)] for row in tables]
    x = np.array(values, np.float64).reshape(len(tables), h, w)
    x = active(convolve(x.repeat(2, 1).repeat(2, 2), tensors, "entropy.hyperprior.first"))
    x = grid(convolve(x.repeat(2, 1).repeat(2, 2), tensors, "entropy.hyperprior.second"))
    return x[:, : size[0], : size[1]]


SQUARES = {
    "none": [[(0, 0), (0, 1), (1, 0), (1, 1)]],
    "checkerboard": [[(0, 0), (1, 1)], [(0, 1), (1, 0)]],
    "lattice": [[(0, 0)], [(1, 1)], [(0, 1)], [(1, 0)]],
}


def coded(squares: list[tuple[int, int]], h: int, w: int) -> npt.NDArray[np.bool_]:
    """The positions (h, w) of a pass."""
    mask = np.zeros((h, w), np.bool_)
    for row, column in squares:
        mask[row::2, column::2] = True
    return mask


def energies(u: Array, side: int) -> Array:
    """Energy of the page, (4, h, w)."""
    padded = np.pad(np.abs(u), ((0, 0), *[(side // 2,) * 2] * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    return grid(windows.sum((-1, -2)) / 16)


def decode_symbols(file: DfcFile, tensors: Tensors, about: dict[str, Any]) -> npt.NDArray[np.int64]:
    """z_hat (4, h, w) of a file, by the page."""
    header = file.header
    h, w = -(-header.height // 8), -(-header.width // 8)
    a = np.array(header.alpha) / 16
    k = np.floor(a + 0.5)
    side = grid(np.array([*a, *(a - k), header.timestep / 512, a[0] ** 2 / 4]))[:, None, None]
    seeded = about["dithered"] and header.dither_seed is not None
    d = shared_dither(header.dither_seed or 0, (4, h, w)).astype(np.float64) * seeded
    passes = SQUARES[about["entropy"]["context"]]
    energy, blind = about["entropy"]["energy"], about["entropy"]["context"] == "none"
    done = np.zeros((4, h, w), np.bool_)
    hyper = hyper_planes(file, tensors, (h, w))
    decoder = RangeDecoder(file.latent)
    z = np.zeros((4, h, w), np.int64)
    for index in range(4 * len(passes)):
        channel, number = divmod(index, len(passes))
        u = grid((z - d) * 2.0 ** -k[:, None, None]) * done * (not blind)
        planes = np.concatenate([u, np.ones((1, h, w)), hyper])
        name = f"entropy.passes.{index}"
        hidden = convolve(planes, tensors, f"{name}.spatial") + convolve(side, tensors, f"{name}.side")
        if energy:
            hidden = hidden + convolve(energies(u, energy), tensors, f"{name}.energy")
        hidden = active(convolve(active(hidden), tensors, f"{name}.mix"))
        mean, scale = grid(convolve(hidden, tensors, f"{name}.out"))
        mask = coded(passes[number], h, w)
        tables = tensors["tables.gaussian"]
        m = np.floor(8 * (mean * 2 ** k[channel] + d[channel]) + 0.5).astype(int)[mask]
        s = np.clip(np.floor(6 * (scale + k[channel] + 3.5) + 0.5), 0, len(tables) - 1).astype(int)[mask]
        z[channel][mask] = decode_pass(decoder, tables, m, s)
        done[channel] |= mask
    return z


def decode_pass(
    decoder: RangeDecoder, tables: npt.NDArray[np.generic], m: npt.NDArray[np.int64], s: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    symbols = [
        decoder.symbol(cumulative_numbers(tables[level, mean % 8])) for mean, level in zip(m, s, strict=True)
    ]
    radius = tables.shape[-1] // 2 - 1
    values = np.array(symbols) - radius + m // 8
    for place in np.flatnonzero(np.array(symbols) == 2 * radius + 1):
        values[place] = decoder.symbol([512 * u for u in range(2**15 + 1)]) - 16384
    return values


def fingerprint(weights: Path) -> bytes:
    return hashlib.sha256(weights.read_bytes()).digest()[:4]


def test_the_example_is_what_the_reference_writes() -> None:
    block = re.search(r"```text\n(c4 46 .*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert block
    example = bytes.fromhex("".join(re.split(r"\s{2,}", line)[0] for line in block[1].splitlines()))
    weights = bytes.fromhex("5e1f0c42")
    header = Header(768, 512, weights, timestep=137, alpha=(16, 12, -3, 20), beta=(0, -5, 8, 127))
    expected = DfcFile(header, b"", bytes.fromhex("1020304050"))
    assert bitstream.read(example) == expected
    assert bitstream.write(expected) == example


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"hyper_channels": 2},
        {"context": "none", "hyper_channels": 2},
        {"context": "lattice", "kernel": 7, "energy": 5},
        {"context": "lattice", "energy": 3, "dithered": True},
    ],
)
@pytest.mark.parametrize(("alpha", "timestep", "spread"), [((16, -9, 3, 40), 137, 3), ((0, 0, 0, 0), 0, 190)])
def test_a_second_implementation_decodes_the_same_symbols(
    tmp_path: Path, shape: dict[str, Any], alpha: tuple[int, int, int, int], timestep: int, spread: float
) -> None:
    import torch

    from diffusion_codec import codec_weights
    from diffusion_codec.entropy.model import SideInformation
    from tests.tiny import tiny_weights_file

    path = tiny_weights_file(tmp_path / "codec.safetensors", **shape)
    with safe_open(path, "np") as opened:
        about = json.loads(opened.metadata()["about"])
    weights = codec_weights.load(path)
    assert fingerprint(path) == weights.fingerprint
    z = np.rint(np.random.default_rng(1).normal(0, spread, (4, 6, 9))).astype(np.int64)
    z[2, 3, 4], z[3, 0, 0] = 5000, -16384  # escapes
    side = SideInformation(torch.tensor([alpha]), torch.tensor([timestep]))
    seed = 77 if weights.dithered else None
    dither = torch.from_numpy(shared_dither(seed or 0, z.shape))
    streams = weights.encode(torch.from_numpy(z), side, dither)
    header = Header(66, 48, weights.fingerprint, timestep, alpha, (0, 0, 0, 0), dither_seed=seed)
    data = bitstream.write(DfcFile(header, streams.hyper, streams.latent))
    file = bitstream.read(data)
    assert bool(file.hyper) == ("hyper_channels" in shape)
    np.testing.assert_array_equal(decode_symbols(file, load_file(path), about), z)


def test_dither_is_drawn_as_the_page_says() -> None:
    words = np.random.Philox(4321).random_raw(40)
    r = np.stack([words >> np.uint64(24) & np.uint64(255), words >> np.uint64(56)], -1).ravel()
    expected = (2 * r.astype(np.float32) + 1 - 256) / 512
    np.testing.assert_array_equal(shared_dither(4321, (4, 4, 5)).ravel(), expected)

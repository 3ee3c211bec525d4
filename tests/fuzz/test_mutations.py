"""Damaged and forged .dfc files: refused by name or decoded within the limits, never a crash, never in silence."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_codec import bitstream
from diffusion_codec.bitstream import Limits
from diffusion_codec.conformance import OwnDecoder, read_manifest
from diffusion_codec.errors import BadInputError
from tests.fuzz.mutations import mutations, with_right_sums
from tests.survival import Ended, Row, Tally, amount, in_child

GOLDEN = Path(__file__).parents[1] / "conformance" / "1.0"
FILES = {path.stem: path.read_bytes() for path in sorted((GOLDEN / "good").glob("*.dfc"))}
SEED = 20240408
SMALL = Limits(max_side=512, max_pixels=2**15)
MEMORY = 2**30
SECONDS = 600.0


def refused(data: bytes) -> bool:
    try:
        bitstream.read(data)
    except BadInputError:
        return True
    return False


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> None:
    warnings.simplefilter("error")


def test_every_truncation_of_three_files(tally: Tally) -> None:
    cuts = [FILES[name][:n] for name in ("photo", "hyper-dither", "escapes") for n in range(len(FILES[name]))]
    count = sum(map(refused, cuts))
    tally(Row("Damaged files", "every truncation of 3 golden files", len(cuts), count, refused=count))


@pytest.mark.parametrize("name", ["dither", "hyper"])
def test_every_flip_of_a_bit(name: str, tally: Tally) -> None:
    data = FILES[name]
    flips = [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    ]
    count = sum(map(refused, flips))
    what = f"every flip of a bit of a golden file ({name}, {len(data)} bytes)"
    tally(Row("Damaged files", what, len(flips), count, refused=count))


def test_mutations_and_splices(tally: Tally) -> None:
    """All of them are noticed: a check sum covers every byte."""
    many = 100_000
    accepted = [data for data in mutations(list(FILES.values()), many, SEED) if not refused(data)]
    assert accepted == []
    tally(Row("Damaged files", "seeded mutations and splices", many, many, refused=many))


def test_forged_containers(tally: Tally) -> None:
    """With right check sums, what is read must be written back the same: there is one way to say a thing."""
    many, counts = amount(5_000, 20_000), Counter[bool]()
    for data in mutations(list(FILES.values()), many, SEED + 1):
        forged = with_right_sums(data)
        counts[refused(forged)] += 1
        if not refused(forged):
            file = bitstream.read(forged)
            written = bitstream.write(file)
            assert bitstream.read(written) == file
            if forged[4] == 0x10 and forged[5] & 0xD0 == 0x10:  # no later minor version, no unknown flag
                assert written == forged
    what = "mutations with check sums made right again: the container"
    tally(Row("Forged files", what, many, sum(counts.values()), refused=counts[True], accepted=counts[False]))


def forged_files(count: int, seed: int) -> list[bytes]:
    """Mutations with right check sums that the container's reader accepts, small enough for many of them."""
    found: list[bytes] = []
    for data in mutations(list(FILES.values()), 100 * count, seed):
        forged = with_right_sums(data)
        try:
            bitstream.read(forged, SMALL)
        except BadInputError:
            continue
        found.append(forged)
        if len(found) == count:
            return found
    raise AssertionError("too few forged files")


def outcomes(files: list[bytes], pixels: bool) -> Ended:
    """How the files end in a child under the limits; warnings are errors."""
    manifest = read_manifest(GOLDEN)
    codecs = {
        codec.weights.fingerprint: codec
        for weights in ("context", "hyperprior", "lattice")
        for codec in [
            OwnDecoder._codec(GOLDEN / f"weights/{weights}.safetensors", GOLDEN / manifest.backbone)
        ]
    }
    default = next(iter(codecs.values()))

    def decode() -> dict[str, int]:
        warnings.simplefilter("error")
        torch.set_num_threads(1)
        counts = Counter[str]()
        for data in files:
            file = bitstream.read(data, SMALL)
            codec = codecs.get(file.header.weights_fingerprint, default)
            try:
                if pixels:
                    made = codec.decompress(data, steps=1, limits=SMALL).pixels
                    assert made.shape == (file.header.height, file.header.width, 3)
                    assert made.dtype == np.uint8
                else:
                    z_hat = codec.symbols(file)
                    assert z_hat.shape == (4, -(-file.header.height // 8), -(-file.header.width // 8))
                    assert int(z_hat.abs().max()) < 2**18
                counts["accepted"] += 1
            except BadInputError:
                counts["refused"] += 1
        return dict(counts)

    return in_child(decode, memory=MEMORY, seconds=SECONDS)


@pytest.mark.parametrize(("what", "few", "many"), [("symbols", 150, 1000), ("pixels", 25, 200)])
def test_forged_streams(what: str, few: int, many: int, tally: Tally) -> None:
    count = amount(few, many)
    ended = outcomes(forged_files(count, SEED + 2), pixels=what == "pixels")
    assert ended.value is not None, ended
    row = Row(
        "Forged files",
        f"mutations with check sums made right again: decoded to {what}",
        count,
        sum(ended.value.values()),
        refused=ended.value.get("refused", 0),
        accepted=ended.value.get("accepted", 0),
        note=f"at most {MEMORY // 2**20} MiB and {SECONDS:.0f} s for all of them",
    )
    tally(row)


def test_the_mutator_is_seeded_and_damages() -> None:
    files = list(FILES.values())
    first, again = (list(mutations(files, 300, 5)) for _ in range(2))
    assert first == again
    assert not set(first) & set(files)
    assert len({len(data) for data in first}) > 50
    for data in files:
        assert with_right_sums(data) == data

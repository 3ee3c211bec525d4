"""The file format: round trips, size, and every way a file can be damaged."""

import dataclasses
import subprocess
import sys
from binascii import crc_hqx
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_codec import bitstream
from diffusion_codec.bitstream import (
    MAGIC,
    CorruptFileError,
    DfcFile,
    Header,
    Limits,
    NotADfcFileError,
    TruncatedFileError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
    encode_varint,
    ledger,
    read,
    write,
)
from diffusion_codec.errors import BadInputError, LimitExceededError

DAMAGE = (
    NotADfcFileError,
    UnsupportedVersionError,
    UnsupportedFeatureError,
    TruncatedFileError,
    CorruptFileError,
    LimitExceededError,
)

signed_bytes = st.tuples(*[st.integers(-128, 127)] * 4)
headers = st.builds(
    Header,
    width=st.integers(1, 16384),
    height=st.integers(1, 8192),
    weights_fingerprint=st.binary(min_size=4, max_size=4),
    timestep=st.integers(0, 999),
    alpha=signed_bytes,
    beta=signed_bytes,
    dither_seed=st.none() | st.integers(0, 2**16 - 1),
    grayscale=st.booleans(),
)
files = st.builds(
    DfcFile, header=headers, hyper=st.binary(max_size=300), latent=st.binary(min_size=1, max_size=300)
)


def with_header_crc(head: bytes) -> bytes:
    """A file of the given header bytes and a latent stream of one byte, with the check sums that fit them."""
    data = head + crc_hqx(head, 0).to_bytes(2, "little")
    frames = b"\x00\x01\x00"
    return data + frames + crc32(data + frames).to_bytes(4, "little")


@given(files)
def test_what_is_written_is_read_back(file: DfcFile) -> None:
    data = write(file)
    assert read(data) == file
    assert sum(ledger(file).values()) == len(data)


@given(st.binary(max_size=200))
def test_noise_is_rejected_with_a_typed_error(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, MAGIC + b"\x10\x10" + noise):
        with pytest.raises(DAMAGE):
            read(data)


def test_every_truncation_is_noticed(small_dfc: DfcFile) -> None:
    data = write(small_dfc)
    for length in range(1, len(data)):
        with pytest.raises(TruncatedFileError):
            read(data[:length])
    with pytest.raises(NotADfcFileError, match="empty"):
        read(b"")


@pytest.mark.parametrize("streams", [(b"hyper\r\n\x00", bytes(range(40))), (b"", b"abc"), (b"", b"\0")])
def test_every_change_of_a_byte_is_noticed(small_dfc: DfcFile, streams: tuple[bytes, bytes]) -> None:
    data = write(dataclasses.replace(small_dfc, hyper=streams[0], latent=streams[1]))
    for position in range(len(data)):
        for value in range(256):
            if value != data[position]:
                changed = data[:position] + bytes([value]) + data[position + 1 :]
                with pytest.raises(DAMAGE):
                    read(changed)


def test_every_inserted_or_removed_byte_is_noticed(small_dfc: DfcFile) -> None:
    data = write(small_dfc)
    for position in range(len(data)):
        with pytest.raises(DAMAGE):
            read(data[:position] + data[position + 1 :])
        with pytest.raises(DAMAGE):
            read(data[:position] + b"\x80" + data[position:])
    with pytest.raises(CorruptFileError, match="1 bytes follow"):
        read(data + b"\x00")


def test_a_header_alone_is_no_file(small_dfc: DfcFile) -> None:
    """Only the latent's check sum covers all: a file cut back to its header and closed with zeros must not pass."""
    with pytest.raises(CorruptFileError, match="latent stream is empty"):
        read(write(DfcFile(small_dfc.header, b"", b"")))
    with pytest.raises(CorruptFileError, match="latent stream is empty"):
        read(write(dataclasses.replace(small_dfc, latent=b"")))


def test_streams_of_two_files_do_not_mix(small_dfc: DfcFile) -> None:
    """A CRC over an earlier CRC would forget the bytes that one covered, and accept this."""
    other = dataclasses.replace(small_dfc, hyper=b"HYPER\r\n\x00")
    mine, theirs = write(small_dfc), write(other)
    tail = ledger(small_dfc)["latent"]
    with pytest.raises(CorruptFileError, match="latent"):
        read(mine[:-tail] + theirs[-tail:])


def test_an_ordinary_photo_spends_at_most_32_bytes_before_the_streams(small_dfc: DfcFile) -> None:
    file = dataclasses.replace(small_dfc, hyper=bytes(500), latent=bytes(5000))
    checksums = 8
    assert len(write(file)) - 5500 - checksums == 32
    plain = dataclasses.replace(small_dfc.header, dither_seed=None)
    assert len(write(DfcFile(plain, b"", b""))) == 28


def test_ledger_counts_each_part(small_dfc: DfcFile) -> None:
    assert ledger(small_dfc) == {"header": 16, "side_information": 12, "hyper": 13, "latent": 45}
    assert ledger(dataclasses.replace(small_dfc, hyper=b""))["hyper"] == 1


@pytest.mark.parametrize(
    "mangle",
    [
        lambda data: bytes(byte & 0x7F for byte in data),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.decode("latin-1").encode("utf-8"),
        lambda data: data.decode("utf-8", errors="replace").encode("utf-8"),
    ],
)
def test_text_mode_transfers_are_named(small_dfc: DfcFile, mangle: "object") -> None:
    assert callable(mangle)
    with pytest.raises(NotADfcFileError, match="text mode"):
        read(mangle(write(small_dfc)))


def test_another_kind_of_file_is_named() -> None:
    with pytest.raises(NotADfcFileError, match="89 50 4e 47"):
        read(b"\x89PNG\r\n\x1a\n")


def test_versions(small_dfc: DfcFile) -> None:
    head = write(DfcFile(small_dfc.header, b"", b""))[:-4]
    with pytest.raises(UnsupportedVersionError, match=r"version 2\.0.*reads version 1"):
        read(with_header_crc(head[:4] + b"\x20" + head[5:]))
    later_minor = read(with_header_crc(head[:4] + b"\x1f" + head[5:]))
    assert later_minor.header == small_dfc.header


def test_flags(small_dfc: DfcFile) -> None:
    head = write(DfcFile(small_dfc.header, b"", b""))[:-4]
    assert head[5] == 0x31  # dither, generative, grey
    with pytest.raises(UnsupportedFeatureError, match="0x0c"):
        read(with_header_crc(head[:5] + b"\x3d" + head[6:]))
    unknown_information = read(with_header_crc(head[:5] + b"\xf1" + head[6:]))
    assert unknown_information.header == small_dfc.header


def test_absurd_sizes_are_refused_before_anything_is_read(small_dfc: DfcFile) -> None:
    for width, height in ((16385, 1), (1, 16385), (16384, 16384), (2**32 - 1, 2**32 - 1)):
        header = dataclasses.replace(small_dfc.header, width=width, height=height)
        with pytest.raises(LimitExceededError, match="scale it down"):
            read(write(DfcFile(header, b"", b"")))
    wide = DfcFile(dataclasses.replace(small_dfc.header, width=16385), b"", b"\0")
    assert read(write(wide), Limits(max_side=16385)) == wide
    with pytest.raises(LimitExceededError, match="at most 20 are"):
        read(write(small_dfc), Limits(max_file_bytes=20))
    head = write(DfcFile(small_dfc.header, b"", b""))[:-2]
    with pytest.raises(TruncatedFileError, match="4294967295 bytes, 3 are left"):
        read(head + b"\xff\xff\xff\xff\x0fabc")


@pytest.mark.parametrize("length", [b"\x80\x00", b"\x83\x80\x00", b"\xff\xff\xff\xff\x10", b"\x80" * 6])
def test_numbers_must_be_canonical(small_dfc: DfcFile, length: bytes) -> None:
    head = write(DfcFile(small_dfc.header, b"", b""))[:-2]
    with pytest.raises(CorruptFileError, match="canonical"):
        read(head + length + b"abc")


def test_field_values_no_encoder_writes_are_corrupt(small_dfc: DfcFile) -> None:
    head = write(DfcFile(small_dfc.header, b"", b""))[:-4]
    late = head[:14] + (1000).to_bytes(2, "little") + head[16:]
    with pytest.raises(CorruptFileError, match="timestep is 1000"):
        read(with_header_crc(late))
    flat = head[:6] + b"\x00" + head[8:]
    with pytest.raises(CorruptFileError, match="width is 0"):
        read(with_header_crc(flat))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("height", 2**32),
        ("timestep", 1000),
        ("timestep", -1),
        ("weights_fingerprint", b"abc"),
        ("alpha", (0, 0, 0, 128)),
        ("beta", (-129, 0, 0, 0)),
        ("beta", (0, 0, 0)),
        ("dither_seed", 2**16),
    ],
)
def test_header_refuses_values_outside_the_format(small_dfc: DfcFile, field: str, value: object) -> None:
    with pytest.raises(BadInputError, match=field):
        dataclasses.replace(small_dfc.header, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (768, "8006"), (2**32 - 1, "ffffffff0f")]
)
def test_varint(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded


def test_the_module_needs_the_standard_library_only() -> None:
    code = (
        f"import sys, {bitstream.__name__}; print([m for m in ('numpy', 'torch', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

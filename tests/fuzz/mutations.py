"""Seeded damage to .dfc files: flips, cuts, splices; and the check sums that make damage look sound."""

import random
from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from zlib import crc32

INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


def mutations(files: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """``count`` damaged files, the same for the same seed; each differs from every file it was made from."""
    source, known = random.Random(seed), set(files)
    made = 0
    while made < count:
        data = mutate(source, files)
        if data not in known:
            made += 1
            yield data


def mutate(source: random.Random, files: Sequence[bytes]) -> bytes:
    """One file with one to four kinds of damage."""
    data = bytearray(source.choice(files))
    for _ in range(source.choice((1, 1, 1, 2, 3, 4))):
        source.choice(DAMAGE)(source, data, files)
    return bytes(data)


def _flip(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    if data:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _set(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    if data:
        data[source.randrange(len(data))] = source.choice((*INTERESTING, source.randrange(256)))


def _cut(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    start = source.randrange(len(data) + 1)
    del data[start : start + source.choice((1, 2, 4, 16, len(data)))]


def _repeat(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    start = source.randrange(len(data) + 1)
    data[start:start] = data[start : start + source.randrange(1, 17)]


def _insert(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    start = source.randrange(len(data) + 1)
    data[start:start] = source.randbytes(source.choice((1, 2, 4, 16)))


def _splice(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    """The beginning of one file and the end of another, cut at places of their own."""
    other = source.choice(files)
    here, there = source.randrange(len(data) + 1), source.randrange(len(other) + 1)
    data[here:] = other[there:]


def _swap(source: random.Random, data: bytearray, files: Sequence[bytes]) -> None:
    """A stretch of another file at the same place: headers and streams of two files mixed."""
    other = source.choice(files)
    start = source.randrange(len(data) + 1)
    end = start + source.randrange(1, 65)
    data[start:end] = other[start:end]


DAMAGE = (_flip, _set, _cut, _repeat, _insert, _splice, _swap)


def with_right_sums(data: bytes) -> bytes:
    """The same bytes with the check sums an encoder would give them, as far as there are parts to sum.

    An attacker can do this too; what lies behind the check sums has to stand on its own.
    """
    head = _header_length(data)
    if head is None or len(data) < head + 2:
        return data
    out = bytearray(data)
    out[head : head + 2] = crc_hqx(data[:head], 0).to_bytes(2, "little")
    position, running = head + 2, crc32(out[: head + 2])
    for _ in range(2):
        frame = _varint(data, position)
        if frame is None:
            break
        length, start = frame
        end = start + length
        if end > len(out):
            break
        running = crc32(out[position:end], running)
        position = end
        if length and end + 4 <= len(out):
            out[end : end + 4] = running.to_bytes(4, "little")
            position = end + 4
    return bytes(out)


def _header_length(data: bytes) -> int | None:
    """Bytes before the header's check sum."""
    if len(data) < 6:
        return None
    position = 6
    for _ in range(2):
        number = _varint(data, position)
        if number is None:
            return None
        position = number[1]
    return position + 14 + (2 if data[5] & 1 else 0)


def _varint(data: bytes, position: int) -> tuple[int, int] | None:
    value = 0
    for index in range(5):
        if position + index >= len(data):
            return None
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    return None

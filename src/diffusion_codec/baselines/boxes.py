"""How much of an AVIF or HEIC file is the picture, and how much the container around it."""

from collections.abc import Iterator


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(type, payload bytes) of the top-level boxes of a file of ISO/IEC 14496-12."""
    position = 0
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        size = size or len(data) - position
        if size < head:
            return
        yield kind, size - head
        position += size


def box_parts(data: bytes) -> dict[str, int]:
    """Bytes of the coded picture (the payload of `mdat`) and of the container around it; they add up."""
    picture = sum(size for kind, size in _boxes(data) if kind == b"mdat")
    return {"container": len(data) - picture, "picture": picture}

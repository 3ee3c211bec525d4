"""Made the files in tests/attacks/kept once: ``python -m tests.attacks.make FOLDER``.

They are kept as they are; an attack found later is added by hand, with its line in gallery.json.
"""

import dataclasses
import io
import json
import pickle
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

from PIL import Image

from diffusion_codec import bitstream
from diffusion_codec.bitstream import DfcFile, Header
from tests.fuzz.mutations import with_right_sums

HEADER = Header(768, 512, b"\x01\x23\x45\x67", 137, (16, 12, -3, 20), (0, -5, 8, 127))
HEAD = bitstream.write(DfcFile(HEADER, b"", b""))[:-4]


def sealed(head: bytes, rest: bytes = b"\0\1\0....") -> bytes:
    return with_right_sums(head + b".." + rest)


def containers() -> dict[str, bytes]:
    huge = dataclasses.replace(HEADER, width=65535, height=65535)
    edge = dataclasses.replace(HEADER, width=16385, height=1)
    legal = dataclasses.replace(HEADER, width=16384, height=8192)
    return {
        "huge.dfc": bitstream.write(DfcFile(huge, b"", b"twenty bytes of body")),
        "one-above.dfc": bitstream.write(DfcFile(edge, b"", b"\0")),
        "largest.dfc": bitstream.write(DfcFile(legal, b"", b"\0")),
        "length-4-gib.dfc": sealed(HEAD, b"\xff\xff\xff\xff\x0fabc"),
        "long-number.dfc": sealed(HEAD, b"\x80\x80\x80\x80\x80\x80\x80\x80"),
        "padded-number.dfc": sealed(HEAD, b"\x83\x80\x00abc"),
        "no-side.dfc": sealed(HEAD[:6] + b"\0\0" + HEAD[10:]),
        "timestep.dfc": sealed(HEAD[:14] + b"\xff\xff" + HEAD[16:]),
        "major.dfc": sealed(HEAD[:4] + b"\xf0" + HEAD[5:]),
        "seven-bit.dfc": bytes(byte & 0x7F for byte in sealed(HEAD)),
        "magic-only.dfc": bitstream.MAGIC,
        "header-only.dfc": bitstream.write(DfcFile(HEADER, b"", b"")),
        "two-in-one.dfc": bitstream.write(DfcFile(HEADER, b"", b"abc")) * 2,
    }


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def pictures() -> dict[str, bytes]:
    black = io.BytesIO()
    Image.new("1", (16000, 16000)).save(black, "PNG")
    bomb = zlib.compress(bytes(2**24), 9)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + bytes(3)))
    tiff = io.BytesIO()
    Image.new("RGB", (4, 4)).save(tiff, "TIFF")
    samples = bytes.fromhex("1501 0300 01000000")
    at = tiff.getvalue().index(samples) + len(samples)
    gif = b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;"
    return {
        "header-65535.png": png(65535, 65535),
        "bomb-16000.png": black.getvalue(),
        "no-pixels.png": png(8, 8),
        "zero.png": png(0, 8, pixels),
        "text-bomb.png": png(1, 1, chunk(b"zTXt", b"c\0\0" + bomb), pixels),
        "profile-bomb.png": png(1, 1, chunk(b"iCCP", b"p\0\0" + bomb), pixels),
        "samples-2048.tif": tiff.getvalue()[:at] + b"\0\x08" + tiff.getvalue()[at + 2 :],
        "huge.gif": gif,
        "huge.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 65535, 65535, 1, 24, 0, 0, 0, 0, 0, 0),
        "huge.ppm": b"P6 2000000000 2000000000 255\n",
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(%pipe%id) (w) file\n",
        "huge.webp": b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0\x2f\xff\xff\xff\x0f" + bytes(9),
        "text.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1e9" height="1e9"/>',
        "a-dfc.png": bitstream.write(DfcFile(HEADER, b"", b"abc")),
    }


def safetensors(tensors: dict[str, object], data: bytes = b"", about: object = None) -> bytes:
    header: dict[str, object] = {"__metadata__": {"about": json.dumps(about)}} if about is not None else {}
    text = json.dumps(header | tensors).encode()
    return struct.pack("<Q", len(text)) + text + data


class _Writes:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return print, ("arbitrary code has run",)


ABOUT = {
    "parameter_estimation": {"tied": False},
    "entropy": {"width": 8, "hyper_channels": 0, "hyper_features": 4},
    "latent_space": "stable-diffusion-1",
    "variant": "attack",
}


def weights() -> dict[str, bytes]:
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    wide = ABOUT | {"entropy": {"width": 10**9, "hyper_channels": 0, "hyper_features": 4}}
    return {
        "header-2-exabytes.safetensors": struct.pack("<Q", 2**61) + b"{}",
        "header-beyond-end.safetensors": struct.pack("<Q", 10**6) + b"{}",
        "overlap.safetensors": safetensors(
            {"a": tensor, "b": tensor | {"data_offsets": [8, 24]}}, bytes(24), ABOUT
        ),
        "outside.safetensors": safetensors({"a": tensor | {"data_offsets": [0, 10**9]}}, bytes(16), ABOUT),
        "shape-lies.safetensors": safetensors({"a": tensor | {"shape": [2**40]}}, bytes(16), ABOUT),
        "missing.safetensors": safetensors({"entropy.passes.0.out.weight": tensor}, bytes(16), ABOUT),
        "wide.safetensors": safetensors({"a": tensor}, bytes(16), wide),
        "no-about.safetensors": safetensors({"a": tensor}, bytes(16)),
        "unknown-key.safetensors": safetensors({"a": tensor}, bytes(16), ABOUT | {"run": "this"}),
        "deep.safetensors": struct.pack("<Q", 200000) + b'{"a":' + b"[" * 199995,
        "pickle.safetensors": pickle.dumps(_Writes()),
        "empty.safetensors": b"",
    }


def entry(name: str, mode: int, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, content


def zipped(*items: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for info, content in items:
            package.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("package/w.bin")
        member.type, member.linkname = kind, "../../secret"
        tar.addfile(member)
    return buffer.getvalue()


def archives() -> dict[str, bytes]:
    regular = stat.S_IFREG | 0o644
    return {
        "absolute.zip": zipped(entry("/tmp/a.png", regular, b"A")),
        "parent.zip": zipped(entry("good.png", regular, b"A"), entry("../../a.png", regular, b"A")),
        "backslash.zip": zipped(entry("..\\a.png", regular, b"A")),
        "drive.zip": zipped(entry("C:a.png", regular, b"A")),
        "link.zip": zipped(entry("a.png", stat.S_IFLNK | 0o777, b"/etc/hostname")),
        "device.zip": zipped(entry("a.png", stat.S_IFBLK | 0o644, b"")),
        "bomb.zip": zipped(entry("a.png", regular, bytes(2**24))),
        "twice.zip": zipped(entry("a/x.png", regular, b"A"), entry("b/x.png", regular, b"B")),
        "damaged.zip": zipped(entry("a.png", regular, b"A" * 50))[:-3],
        "link.tar.gz": tarred(tarfile.SYMTYPE),
        "hard-link.tar.gz": tarred(tarfile.LNKTYPE),
        "device.tar.gz": tarred(tarfile.CHRTYPE),
    }


def main(folder: Path) -> None:
    for name, data in {**containers(), **pictures(), **weights(), **archives()}.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A decoder of another hand, as a program: the one of test_file_format, written from the book's page alone.

``python -m tests.conformance.second FILE WEIGHTS SYMBOLS`` writes the integers; status 1 for a file it refuses.
"""

import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file

from diffusion_codec import bitstream
from tests.test_file_format import decode_symbols, fingerprint


def symbols(source: Path, weights: Path) -> bytes:
    """The integers as the manifest hashes them."""
    file = bitstream.read(source.read_bytes())
    assert file.header.weights_fingerprint == fingerprint(weights), "other weights"
    with safe_open(weights, "np") as opened:
        about = json.loads(opened.metadata()["about"])
    return decode_symbols(file, load_file(weights), about).astype("<i4").tobytes()


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(symbols(Path(sys.argv[1]), Path(sys.argv[2])))

"""Memory: what this process has held, and amounts as people write them."""

import math
import re
import sys

from diffusion_codec.errors import BadInputError

BYTES_PER_PIXEL = 24
"""What coding and decoding take at most for each pixel, beside the models and one tile; a test measures it."""

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def held_memory() -> int:
    """The memory this program holds now, in bytes; where the system does not say so, :func:`peak_memory`."""
    now = _of_status("VmRSS")
    return peak_memory() if now is None else now


def peak_memory() -> int:
    """The most memory this program ever held, in bytes.

    Linux keeps it in /proc; elsewhere it is ``getrusage``'s, which may count what the parent process held before it
    started this one. Raises BadInputError on Windows, where all but this works.
    """
    peak = _of_status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError as error:
        raise BadInputError("Windows does not say how much memory a program has held") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _of_status(name: str) -> int | None:
    """Bytes of a line of Linux's /proc/self/status, None where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:")), None)
    except OSError:
        return None


def parse_size(text: str) -> int:
    """Bytes of "700M", "1.5G", "2GiB" or a plain number of bytes; units are powers of 1024.

    Raises:
        BadInputError: it is no amount of memory.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BadInputError(f"{text!r} is no amount of memory; write 700M or 1.5G")
    size = float(match[1]) * UNITS[match[2].upper()]
    if size == math.inf:
        raise BadInputError("no machine has so much memory; write 700M or 1.5G")
    return int(size)

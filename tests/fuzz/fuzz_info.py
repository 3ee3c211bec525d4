"""Coverage-guided fuzzing of what ``diffusion-codec info`` reads: ``make fuzz`` (extra ``fuzz``, Python 3.11 to 3.13).

Any exception but BadInputError, and any file that is read but not written back to the same header, is a finding.
"""

import sys

import atheris

with atheris.instrument_imports(include=["diffusion_codec"]):
    from diffusion_codec import bitstream, cli
    from diffusion_codec.errors import BadInputError
from tests.fuzz.mutations import with_right_sums


def one_input(data: bytes) -> None:
    """The bytes as they are, and with right check sums, so that the fuzzer gets past them."""
    for candidate in (data, with_right_sums(data)):
        try:
            file = bitstream.read(candidate)
        except BadInputError:
            continue
        cli._info_lines("-", candidate, file)
        assert bitstream.read(bitstream.write(file)) == file


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

"""Symbols to bytes and back with the range coder of ``constriction`` and stored integer tables."""

import constriction
import numpy as np

from diffusion_codec.entropy.tables import TOTAL
from diffusion_codec.errors import BadInputError

ESCAPE_LIMIT = 1 << 14
"""Escaped values lie in [-ESCAPE_LIMIT, ESCAPE_LIMIT)."""

CHUNK = 1 << 15

_CATEGORICAL = constriction.stream.model.Categorical(lazy=True, perfect=False)
_ESCAPED = constriction.stream.model.Uniform(2 * ESCAPE_LIMIT)


def _chunks(length: int) -> list[slice]:
    """Slices of at most CHUNK symbols: their rows of probabilities are what takes memory."""
    return [slice(start, start + CHUNK) for start in range(0, length, CHUNK)]


class TableCoder:
    """Turns (table, mean) into rows of probabilities; shared by both directions.

    Tables (levels, fractions, 2 ``radius`` + 2) are for real means: the last symbol announces an escaped value.
    Tables (levels, 2 ``radius`` + 1) are for means of 0, and have no escape.
    """

    def __init__(self, tables: np.ndarray):
        self.radius = (tables.shape[-1] - 1) // 2
        self.fractions = tables.shape[1] if tables.ndim == 3 else 1
        self.escape = 2 * self.radius + 1
        # multiples of 2^-22: exact in float32, so the coder's own arithmetic starts from exact numbers
        self.rows = (tables.reshape(-1, tables.shape[-1]).astype(np.float32) / TOTAL).astype(np.float32)

    def probabilities(self, level: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Rows of probabilities (n, symbols) for table indices (n,); means are given in 1/fractions."""
        rows: np.ndarray = self.rows[level * self.fractions + mean % self.fractions]
        return rows


class Encoder(TableCoder):
    """Writes one stream; call :meth:`put` for each group, then :meth:`finish`."""

    def __init__(self, tables: np.ndarray):
        super().__init__(tables)
        self._coder = constriction.stream.queue.RangeEncoder()

    def put(self, values: np.ndarray, level: np.ndarray, mean: np.ndarray) -> None:
        """Append integers (n,) with their table indices, int64 (n,).

        Raises:
            BadInputError: a value is beyond ESCAPE_LIMIT.
        """
        if not len(values):
            return
        residual = values - mean // self.fractions
        escaped = np.abs(residual) > self.radius
        symbols = np.where(escaped, self.escape, residual + self.radius).astype(np.int32)
        for part in _chunks(len(values)):
            self._coder.encode(symbols[part], _CATEGORICAL, self.probabilities(level[part], mean[part]))
        if escaped.any():
            far = values[escaped] + ESCAPE_LIMIT
            if far.min() < 0 or far.max() >= 2 * ESCAPE_LIMIT:
                raise BadInputError(f"a latent symbol is outside +-{ESCAPE_LIMIT}; use a lower quality")
            self._coder.encode(far.astype(np.int32), _ESCAPED)

    def finish(self) -> bytes:
        """The stream, little-endian."""
        words: np.ndarray = self._coder.get_compressed()
        # trailing zero bytes are implied: the decoder pads
        return words.astype("<u4").tobytes().rstrip(b"\0")


class Decoder(TableCoder):
    """Reads a stream :class:`Encoder` wrote, given the same table indices in the same groups."""

    def __init__(self, tables: np.ndarray, data: bytes):
        super().__init__(tables)
        padded = data + bytes(-len(data) % 4)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))

    def get(self, level: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """The next group of integers, int64 (n,).

        Raises:
            BadInputError: the stream does not hold such symbols.
        """
        if not len(level):
            return np.zeros(0, np.int64)
        symbols = np.empty(len(level), np.int64)
        try:
            for part in _chunks(len(level)):
                symbols[part] = self._coder.decode(_CATEGORICAL, self.probabilities(level[part], mean[part]))
            values: np.ndarray = symbols - self.radius + mean // self.fractions
            escaped = symbols == self.escape
            if escaped.any():
                far = self._coder.decode(_ESCAPED, int(escaped.sum())).astype(np.int64)
                values[escaped] = far - ESCAPE_LIMIT
        except AssertionError as error:
            raise BadInputError(f"the latent stream cannot be decoded: {error}") from None
        return values

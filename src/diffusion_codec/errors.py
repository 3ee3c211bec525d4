"""Errors a user can act on: each message says what was given, what was expected and what to do."""


class DiffusionCodecError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line."""


class BadInputError(DiffusionCodecError, ValueError):
    """The data or the request cannot be used: not an image, damaged file, unreachable rate."""


class LimitExceededError(BadInputError):
    """The input is larger than a declared limit."""


class MissingDataError(DiffusionCodecError, FileNotFoundError):
    """A data set or weight file is neither in the mirror, nor in the cache, nor can be fetched."""

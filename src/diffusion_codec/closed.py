"""Base of what is read from typed files and must say nothing else."""

from pydantic import BaseModel, ConfigDict


class Closed(BaseModel):
    """A record whose unknown keys are errors, and which stays as it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

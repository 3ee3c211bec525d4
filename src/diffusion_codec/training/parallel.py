"""Training on several processes, as ``accelerate launch`` or ``torchrun`` start them: one global batch, each its rows.

Every random number of a step that has the batch as its first dimension is drawn for the whole batch by every process,
from the same generator, and each keeps its own rows. Gradients and losses are averaged. So two processes take the very
steps that one takes on the whole batch; only the order of summation differs, and with it the last digits. Losses that
look at the whole batch are exceptions: the autoencoder's distilling, its discriminator and its perceptual ensemble.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diffusion_codec.backbone.options import checked_device
from diffusion_codec.errors import BadInputError, DiffusionCodecError, how_to_install

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's; alone it is all of it, and nothing is exchanged."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def rows(self, generator: torch.Generator) -> AbstractContextManager[Any]:
        """Inside, draws from ``generator`` give this process's rows of the global batch."""
        return nullcontext() if self.count == 1 else _Rows(self, generator)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The mean of all processes' gradients, in one exchange; parameters without a gradient keep none."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count > 1 and gradients:
            flat = _mean(torch.cat([g.flatten() for g in gradients]))
            for gradient, part in zip(
                gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def average_losses(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The mean of all processes' loss terms, as numbers."""
        if self.count == 1:
            return {name: value.item() for name, value in losses.items()}
        values = _mean(torch.stack([value.detach().double() for value in losses.values()]))
        return dict(zip(losses, values.tolist(), strict=True))


class _Rows(TorchFunctionMode):
    """Turns each draw of this process's rows into a draw of all rows, of which it keeps its own."""

    def __init__(self, share: Share, generator: torch.Generator):
        super().__init__()
        self.share, self.generator = share, generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        draw: Callable[..., Any] = func
        if kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        if func in (torch.rand, torch.randn):
            shape = args if isinstance(args[0], int) else tuple(args[0])
            return self._own(draw((shape[0] * self.share.count, *shape[1:]), **kwargs), shape[0])
        if func is torch.randint and not isinstance(args[-1], int):
            *bounds, shape = args
            return self._own(draw(*bounds, (shape[0] * self.share.count, *shape[1:]), **kwargs), shape[0])
        if func is torch.multinomial:
            weights, rows, *rest = args
            return self._own(draw(weights, rows * self.share.count, *rest, **kwargs), rows)
        raise DiffusionCodecError(f"{func} cannot be drawn on several processes; draw with the batch first")

    def _own(self, drawn: Tensor, rows: int) -> Tensor:
        return drawn.narrow(0, self.share.rank * rows, rows).clone()


def own(config: Config, device: str) -> tuple[Config, str]:
    """This process's batch sizes and device, of those asked for in all.

    Raises:
        BadInputError: a batch size is no multiple of the number of processes, or there is no such device.
    """
    checked_device(device)
    count = _processes()
    if count == 1:
        return config, device
    sizes = {name: getattr(config, name) for name in _batch_sizes(config)}
    for name, size in sizes.items():
        if size % count:
            raise BadInputError(
                f"{name} {size} cannot be shared by {count} processes: make it a multiple of {count}"
            )
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    return config.model_copy(update={name: size // count for name, size in sizes.items()}), device


def whole(config: Config, share: Share) -> Config:
    """The configuration of all processes together, of one's own."""
    return config.model_copy(
        update={name: getattr(config, name) * share.count for name in _batch_sizes(config)}
    )


def share(device: torch.device | str) -> Share:
    """This process's share; joins the others the first time.

    Raises:
        BadInputError: several processes were started and the package accelerate is not installed.
    """
    if _processes() == 1:
        return Share()
    state = _state(device)
    return Share(state.process_index, state.num_processes)


@contextmanager
def main_first(device: torch.device | str) -> Iterator[None]:
    """The main process goes through the block before the others: what it writes, they find."""
    if _processes() == 1:
        yield
    else:
        with _state(device).main_process_first():
            yield


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _batch_sizes(config: BaseModel) -> list[str]:
    return [name for name in type(config).model_fields if name.endswith("batch_size")]


def _state(device: torch.device | str) -> Any:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise BadInputError(
            f"{_processes()} processes were started; training on several needs accelerate: "
            f"{how_to_install('stable-diffusion')}"
        ) from error
    return PartialState(cpu=torch.device(device).type == "cpu")


def _mean(values: Tensor) -> Tensor:
    from accelerate.utils import reduce

    reduced: Tensor = reduce(values, "mean")
    return reduced

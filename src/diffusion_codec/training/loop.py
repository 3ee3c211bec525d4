"""One training loop for the three recipes: deterministic by step, resumable, logged to CSV.

Everything random in step k is drawn from a generator seeded by (seed, k). A run that is stopped and resumed therefore
sees exactly the batches the uninterrupted run sees, with no generator state to save. Several processes share each batch
(:mod:`diffusion_codec.training.parallel`); the main one writes.
"""

import contextlib
import csv
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import torch
from filelock import FileLock, Timeout
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from rich.progress import Progress, TextColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_codec.backbone.options import trains_in_bfloat16
from diffusion_codec.closed import Closed
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.files import OutputError, let_go, write_atomically
from diffusion_codec.training import parallel
from diffusion_codec.training.parallel import Share

Crop = Annotated[int, Field(ge=32, le=4096, multiple_of=8)]
"""Pixels a side, in whole latent positions."""
ALONE = Share()
MAY_CHANGE = ("steps", "log_every", "checkpoint_every")
"""Settings that a run may be continued with at another value."""


class LoopConfig(Closed):
    """What every recipe needs to know.

    ``precision``: ``auto`` is bfloat16 where that is fast (not on a CPU that has to emulate it),
    float32 elsewhere.
    ``optimizer``: SOAP is AdamW in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2024). It learns a
    teacher's features in fewer steps: data/results/training/optimizers.csv.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt = 100
    final_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    optimizer: Literal["adamw", "soap"] = "adamw"
    seed: int = Field(0, ge=0, lt=2**31)
    photos_limit: PositiveInt | None = None
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200


class Recipe(Protocol):
    """What a recipe gives the loop."""

    @property
    def config(self) -> LoopConfig:
        """Length, pace and precision."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss terms of one batch, means over it; the entry ``loss`` is minimised, the others are logged.

        Whatever is drawn from ``generator`` has the batch as its first dimension.
        """


class NotFiniteError(DiffusionCodecError):
    """A loss, a gradient or what a network says became NaN or infinite; the state before the step is saved."""


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a half cosine down to ``final_learning_rate_ratio``."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The only source of randomness of step ``step``."""
    return torch.Generator(device).manual_seed((seed << 32) + step)


def build_optimizer(config: LoopConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The configured optimiser at its first step."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    from pytorch_optimizer import SOAP

    return cast(torch.optim.Optimizer, SOAP(parameters, lr=config.learning_rate, weight_decay=1e-4))


def packed(key: str, value: Any) -> dict[str, Tensor]:
    """An entry of an optimiser's state (tensor, number, or list of tensors, some of them empty lists) as tensors."""
    if isinstance(value, list):
        return {f"{key}/{i}": torch.as_tensor(part).contiguous() for i, part in enumerate(value)}
    if isinstance(value, float):
        return {f"{key}/number": torch.tensor(value, dtype=torch.float64)}
    return {key if isinstance(value, Tensor) else f"{key}/number": torch.as_tensor(value)}


def unpacked(tensors: dict[str, Tensor], parameter: Tensor) -> dict[str, Any]:
    """The state of ``parameter`` that :func:`packed` made tensors of; AdamW's step counter stays on the CPU.

    Averages lie in memory as the parameter does: sums over them are then added up in the same order as without a stop.
    """
    state: dict[str, Any] = {}
    for name in sorted(tensors):
        key, _, part = name.partition("/")
        tensor = tensors[name].to("cpu" if key == "step" else parameter.device)
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter).copy_(tensor)
        if part == "number":
            state[key] = tensor.item()
        elif part:
            state.setdefault(key, []).append(tensor)
        else:
            state[key] = tensor
    return state


class TrainingState:
    """Model, its moving average and the optimiser, saved and read as one safetensors file."""

    def __init__(self, model: nn.Module, config: LoopConfig):
        self.model = model
        self.config = config
        self.step = 0
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.ema = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.optimizer = build_optimizer(config, list(self.parameters.values()))

    def update(self, loss: Tensor, share: Share = ALONE) -> None:
        """One optimiser step, by the gradients of all processes, and one step of the moving average.

        Raises:
            NotFiniteError: a gradient is not finite; nothing has changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        share.average_gradients(self.parameters.values())
        length = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.gradient_clip)
        if not length.isfinite():
            raise NotFiniteError(f"the gradient is not finite (loss {loss.item():.4g})")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config)
        self.optimizer.step()
        if self.config.optimizer == "soap":
            self._settle()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        names = list(self.ema)
        torch._foreach_lerp_(
            [self.ema[n] for n in names], [self.parameters[n].detach() for n in names], 1 - decay
        )

    def _settle(self) -> None:
        """Lay the optimiser's tensors out in memory as after a stop, so that products of matrices round alike."""
        for parameter, state in self.optimizer.state.items():
            tensors = {k: v for key, value in state.items() for k, v in packed(key, value).items()}
            self.optimizer.state[parameter] = unpacked(tensors, parameter)

    def save(self, path: Path) -> None:
        """Write the state under its final name only when it is whole."""
        tensors = {f"model.{n}": p.detach() for n, p in self.parameters.items()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors |= {f"optimizer.{k}.{name}": v for k, v in packed(key, value).items()}
        part = path.with_suffix(".part")
        try:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"step": str(self.step)})
            part.replace(path)
        except (SafetensorError, OSError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(
                f"'{path}' could not be written ({error}); the checkpoint before it is kept"
            ) from error

    def load(self, path: Path) -> None:
        """Continue from a file :meth:`save` wrote for the same model.

        Raises:
            BadInputError: the file is truncated or damaged, or of another model.
        """
        with open_checkpoint(path) as file, torch.no_grad():
            self.step = int((file.metadata() or {})["step"])
            stored: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118
                if key.startswith("optimizer."):
                    _, part, name = key.split(".", 2)
                    stored.setdefault(name, {})[part] = file.get_tensor(key)
            for name, parameter in self.parameters.items():
                parameter.copy_(file.get_tensor(f"model.{name}"))
                self.ema[name].copy_(file.get_tensor(f"ema.{name}"))
                # a parameter that no stage has trained yet has no optimiser state
                if name in stored:
                    self.optimizer.state[parameter] = unpacked(stored[name], parameter)
        if self.config.optimizer == "soap":
            for group in self.optimizer.param_groups:
                group["step"] = self.step


@contextlib.contextmanager
def open_checkpoint(path: Path) -> Iterator[Any]:
    """A file that :meth:`TrainingState.save` wrote, to read tensors from.

    Raises:
        BadInputError: the file, or what is asked of it inside, is not there.
    """
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, KeyError) as error:
        raise BadInputError(
            f"'{path}' is truncated, damaged or of another model ({error}): put a copy of it back, or remove it "
            "and train from the beginning"
        ) from error


class CsvLog:
    """Rows appended to ``losses.csv``; rows past the resumed step are dropped first.

    Raises:
        BadInputError: the file there is another table, or none.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        try:
            rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
            self.rows: list[dict[str, Any]] = [row for row in rows if int(row["step"]) <= step]
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise BadInputError(
                f"'{path}' is damaged or no log of a run: move it, or choose another folder"
            ) from error

    def append(self, row: dict[str, Any]) -> None:
        """Write the table with one row more, whole or not at all."""
        self.rows.append(row)
        columns = dict.fromkeys(name for written in self.rows for name in written)  # each stage has its own
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(columns), restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)


@contextlib.contextmanager
def only_trainer(out: Path) -> Iterator[None]:
    """No other process trains in the folder ``out``, which is made, meanwhile. Raises BadInputError if one does."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadInputError(
            f"another run trains in '{out}': choose another folder, or wait for it"
        ) from error
    try:
        yield
    finally:
        let_go(lock)


def train(
    recipe: Recipe, out: Path, stop_after: int | None = None, origin: Mapping[str, str] | None = None
) -> TrainingState:
    """Run ``recipe`` up to its last step, continuing from ``out`` if a checkpoint lies there.

    With another number of ``steps``, the learning rate follows the new schedule from the checkpoint on; the steps
    before it were taken on the old one.

    Args:
        out: folder for ``state.safetensors``, ``losses.csv``, ``config.json`` and ``origin.json``.
        stop_after: stop (and save) once this many steps are done in all; for tests and time slices.
        origin: what else makes the run what it is, by name: photographs, backbone, ...

    Raises:
        NotFiniteError: a loss or gradient is not finite; the state before that step is saved in ``out``, beside the
            last checkpoint.
        BadInputError: the run in ``out`` was begun with another configuration (:data:`MAY_CHANGE` apart) or another
            origin, its checkpoint cannot be read, or another process trains there. Nothing is overwritten.
    """
    share = parallel.share(next(recipe.model.parameters()).device)
    with only_trainer(out) if share.main else contextlib.nullcontext():
        return _train(recipe, out, stop_after, origin or {}, share)


def _train(
    recipe: Recipe, out: Path, stop_after: int | None, origin: Mapping[str, str], share: Share
) -> TrainingState:
    config = recipe.config
    state = TrainingState(recipe.model, config)
    whole, stored, begun_with = parallel.whole(config, share), out / "config.json", out / "origin.json"
    checkpoint = out / "state.safetensors"
    if checkpoint.exists():
        if begun_with.exists():
            _refuse_another_origin(origin, begun_with)
        if stored.exists():
            _refuse_changes(whole, stored)
        state.load(checkpoint)
    if share.main:
        write_atomically(stored, json.dumps(whole.model_dump(), indent=1).encode(), force=True)
        write_atomically(begun_with, json.dumps(dict(origin), indent=1).encode(), force=True)
    log = CsvLog(out / "losses.csv", state.step)
    last = min(config.steps, stop_after or config.steps)
    window: dict[str, list[float]] = {}
    started = time.monotonic()
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, disable=not share.main) as progress:
        task = progress.add_task("training", total=config.steps, completed=state.step, loss="")
        if state.step >= last:
            told = f"the run in '{out}' has {state.step} steps already: nothing to do"
            progress.console.print(told, markup=False, soft_wrap=True)
        while state.step < last:
            losses = _one_step(recipe, state, checkpoint, share)
            if share.main:
                for name, value in losses.items():
                    window.setdefault(name, []).append(value)
            if share.main and (state.step % config.log_every == 0 or state.step == last):
                row = {name: round(sum(values) / len(values), 6) for name, values in window.items()}
                rate = round(len(window["loss"]) / (time.monotonic() - started), 3)
                log.append({"step": state.step, **row, "steps_per_second": rate})
                progress.update(task, loss=f"loss {row['loss']:.4f}")
                window, started = {}, time.monotonic()
            if share.main and (state.step % config.checkpoint_every == 0 or state.step == last):
                state.save(checkpoint)
            progress.update(task, completed=state.step)
    return state


def _refuse_changes(config: LoopConfig, stored: Path) -> None:
    """Raise BadInputError unless ``config`` goes on with the run whose ``config.json`` is ``stored``."""
    fields = type(config).model_fields
    try:
        values = {name: value for name, value in json.loads(stored.read_text()).items() if name in fields}
        begun = type(config).model_validate(values)  # settings younger than the run have their defaults
    except (ValueError, AttributeError) as error:
        raise BadInputError(f"'{stored}' is damaged or of another recipe: choose another folder") from error
    pairs = {name: (getattr(begun, name), getattr(config, name)) for name in fields if name not in MAY_CHANGE}
    changed = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if changed:
        raise BadInputError(
            f"the run in '{stored.parent}' was begun with other settings ({'; '.join(changed)}): "
            "go on with those, or choose another folder"
        )


def _refuse_another_origin(origin: Mapping[str, str], stored: Path) -> None:
    """Raise BadInputError unless the run whose ``origin.json`` is ``stored`` was begun with just this."""
    try:
        begun = dict(json.loads(stored.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInputError(f"'{stored}' is damaged: choose another folder") from error
    names = [name for name in {**begun, **origin} if begun.get(name) != origin.get(name)]
    if names:
        changed = "; ".join(f"{n}: {begun.get(n, 'none')}, now {origin.get(n, 'none')}" for n in names)
        raise BadInputError(
            f"the run in '{stored.parent}' was begun with something else ({changed}): "
            "go on with that, or choose another folder"
        )


def _one_step(recipe: Recipe, state: TrainingState, checkpoint: Path, share: Share) -> dict[str, float]:
    config = recipe.config
    device = next(iter(state.parameters.values())).device
    generator = step_generator(config.seed, state.step)
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and trains_in_bfloat16(device))
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16), share.rows(generator):
            losses = recipe.losses(state.step, generator)
        values = share.average_losses(losses)
        if not all(math.isfinite(v) for v in values.values()):
            terms = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
            raise NotFiniteError(f"a loss is not finite ({terms})")
        state.update(losses["loss"], share)
    except NotFiniteError as error:
        failed = checkpoint.with_suffix(".failed.safetensors")
        if share.main:
            state.save(failed)
        raise NotFiniteError(
            f"step {state.step}: {error}; the state before the step is in {failed}, the last checkpoint is as it was. "
            f"The batch is reproduced by seed {config.seed} and step {state.step}. Train in another folder with a "
            "lower learning_rate or gradient_clip."
        ) from error
    return values

"""Weights that are nearly right: every tensor of the golden file, damaged in one way, gives a typed error."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion_codec import codec_weights
from diffusion_codec.errors import BadInputError
from tests.survival import Row, Tally

WEIGHTS = Path(__file__).parents[1] / "conformance" / "1.0" / "weights"
Tensors = dict[str, np.ndarray]


def about_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    about: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["about"])
    return about


def load_changed(
    tmp_path: Path, name: str, change: Callable[[Tensors], object], about: dict[str, Any] | None = None
) -> None:
    tensors = load_file(WEIGHTS / f"{name}.safetensors")
    change(tensors)
    path = tmp_path / "changed.safetensors"
    meant = about_of(WEIGHTS / f"{name}.safetensors") if about is None else about
    save_file({k: v.copy(order="C") for k, v in tensors.items()}, path, {"about": json.dumps(meant)})
    codec_weights.load(path)


def test_unchanged_weights_load(tmp_path: Path) -> None:
    for name in ("context", "hyperprior"):
        load_changed(tmp_path, name, lambda tensors: None)


def test_every_tensor_is_needed_in_its_shape_and_type(tmp_path: Path, tally: Tally) -> None:
    tried = refused = 0
    for name in load_file(WEIGHTS / "hyperprior.safetensors"):
        changes: list[Callable[[Tensors], object]] = [
            lambda tensors, name=name: tensors.pop(name),
            lambda tensors, name=name: tensors.update({name: tensors[name][None]}),
            lambda tensors, name=name: tensors.update({name: tensors[name].astype(np.float64)}),
        ]
        for change in changes if tried < 60 else changes[:1]:
            tried += 1
            with pytest.raises(BadInputError, match="does not hold codec weights"):
                load_changed(tmp_path, "hyperprior", change)
            refused += 1
    what = "codec weights with one tensor missing, of another shape or of another type"
    tally(Row("Loading", what, tried, refused, refused=refused))


def spoil(name: str, value: float) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[3] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil("parameter_estimation.layers.0.weight", np.nan), "not finite"),
        (spoil("parameter_estimation.layers.0.weight", np.inf), "not finite"),
        (spoil("tables.gaussian", 0), "positive frequencies"),
        (spoil("tables.gaussian", -5), "positive frequencies"),
        (spoil("tables.hyper", 2**30), "positive frequencies"),
        (lambda tensors: tensors.update(more=np.zeros(1)), None),
        (lambda tensors: tensors.update({"tables.more": np.zeros(1, np.int32)}), "its tables are"),
        (lambda tensors: tensors.update({"entropy.more": np.zeros(1, np.float32)}), "unexpected"),
    ],
)
def test_values_that_no_training_gives(
    tmp_path: Path, change: Callable[[Tensors], object], words: str | None
) -> None:
    if words is None:  # a tensor under no known name is not read at all
        load_changed(tmp_path, "hyperprior", change)
        return
    with pytest.raises(BadInputError, match=words):
        load_changed(tmp_path, "hyperprior", change)


@pytest.mark.parametrize(
    "changes",
    [
        {"entropy": {"width": -1}},
        {"entropy": {"width": "wide"}},
        {"entropy": {"width": 2**62}},
        {"entropy": {"depth": 3}},
        {"entropy": []},
        {"parameter_estimation": {"tied": False, "untied": True}},
        {"latent_space": 1},
        {"variant": None},
        {"run": "rm"},
    ],
)
def test_metadata_that_no_training_writes(tmp_path: Path, changes: dict[str, Any]) -> None:
    about = about_of(WEIGHTS / "context.safetensors") | changes
    with pytest.raises(BadInputError, match="does not hold codec weights"):
        load_changed(tmp_path, "context", lambda tensors: None, about)


def test_a_file_beyond_the_limit_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (WEIGHTS / "context.safetensors").stat().st_size
    monkeypatch.setattr(codec_weights, "MAX_BYTES", size)
    codec_weights.load(WEIGHTS / "context.safetensors")
    monkeypatch.setattr(codec_weights, "MAX_BYTES", size - 1)
    with pytest.raises(BadInputError, match=f"larger than {size - 1} bytes"):
        codec_weights.load(WEIGHTS / "context.safetensors")

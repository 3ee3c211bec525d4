"""What the chapter on the real model says is what is here and what is stored."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_codec.backbone import DEFAULT_RUN
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import real_model


def test_a_model_that_is_not_here_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_CODEC_CACHE", str(tmp_path))
    monkeypatch.setenv("DIFFUSION_CODEC_MIRROR", "")
    table = real_model.whereabouts(["mini", "stable-diffusion-v1-2", "stable-diffusion-v1-5"])
    assert list(table["on this machine"]) == ["yes", "no", "no"]
    assert table["download, GB"].tolist()[2] == pytest.approx(1.886, abs=0.001)
    assert list(tmp_path.iterdir()) == []  # nothing was asked for
    with pytest.raises(
        BadInputError, match="'maxi' is unknown; choose from mini, small, stable-diffusion-v1-2"
    ):
        real_model.whereabouts(["maxi"])


def test_one_file_through_two_backbones_has_one_set_of_symbols() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    made = Codec.from_pretrained("mini").compress(pixels)
    decodings = real_model.decode_by(made.data, ["mini"], 1, "cpu", DEFAULT_RUN)
    assert [d.backbone for d in decodings] == ["mini", real_model.RANDOM]
    assert {d.symbols_sha256 for d in decodings} == {made.symbols_sha256}
    assert decodings[0].pixels is not None
    assert decodings[1].pixels is None  # noise is not shown
    table = real_model.decodings_table(decodings)
    assert list(table["symbols"]) == [made.symbols_sha256[:12]] * 2


def test_stored_measurements_are_read_with_their_machine(tmp_path: Path) -> None:
    assert real_model.stored_stages(tmp_path).empty
    cell = {
        "width": 512,
        "height": 512,
        "precision": "float32",
        "mode": "eager",
        "batch": 1,
        "first": {
            "compress encode": 2.0,
            "compress entropy": 1.0,
            "decompress decode": 4.0,
            "cpu compress": 5.0,
        },
        "peak_memory": 2**32,
    }
    about = {"backbone": "x", "device": "cpu", "threads": 2, "gpu": None}
    (tmp_path / "stages_x.json").write_text(json.dumps({"about": about, "cells": [cell]}))
    (row,) = real_model.stored_stages(tmp_path).to_dict("records")
    assert (row["device"], row["compress, s"], row["decompress, s"]) == ("cpu, 2 threads", 3.0, 4.0)
    assert (row["processor time, s"], row["peak, GiB"]) == (5.0, 4.0)

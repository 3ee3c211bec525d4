"""Backbone weights from foreign files: read as arrays or not at all, and only the right ones."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusion_codec import fetch
from diffusion_codec.metrics import trunks
from diffusion_codec.metrics.backbones import FEATURES


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(FEATURES["alexnet"]().state_dict())


def flax(weights: dict[str, torch.Tensor]) -> dict:
    layers = {}
    for index, name in enumerate(["0", "3", "6", "8", "10"]):
        kernel = weights[f"{name}.weight"].numpy().transpose(2, 3, 1, 0)
        layers[f"Conv_{index}"] = {"kernel": kernel, "bias": weights[f"{name}.bias"].numpy()}
    return {"AlexNet_0": layers}


@pytest.mark.parametrize("kind", ["pth", "prefixed.pth", "layers.pt", "ckpt"])
def test_every_file_kind_gives_the_same_tensors(kind, weights, tmp_path):
    path = tmp_path / f"w.{kind}"
    if kind == "pth":
        torch.save(weights, path)
    elif kind == "prefixed.pth":  # a whole torchvision checkpoint: `features.` and a classifier
        whole = {f"features.{k}": v for k, v in weights.items()} | {"classifier.1.bias": torch.zeros(4096)}
        torch.save(whole, path)
    elif kind == "layers.pt":
        names = ["0", "3", "6", "8", "10"]
        layers = [{"weight": weights[f"{n}.weight"], "bias": weights[f"{n}.bias"]} for n in names]
        torch.save({"trunk": layers, "net": "alex"}, path)
    else:
        path.write_bytes(pickle.dumps(flax(weights)))
    found = trunks._read("alex", path)
    assert trunks.tensors_sha256(found) == trunks.tensors_sha256(weights)


class Mischief:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "x"))


@pytest.mark.parametrize("suffix", ["ckpt", "pth"])
def test_a_file_that_wants_to_run_code_is_refused(suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(pickle.dumps({"AlexNet_0": Mischief(tmp_path / "ran")}, protocol=2))
    with pytest.raises((trunks.WeightsError, pickle.UnpicklingError)):
        trunks._read("alex", path)
    assert not (tmp_path / "ran").exists()


def test_lacking_tensors_are_named(weights, tmp_path):
    del weights["8.bias"]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(trunks.WeightsError, match=r"8\.bias"):
        trunks._read("alex", tmp_path / "w.pth")


def test_wrong_weights_in_the_cache_are_refused(weights, tmp_path):
    store = fetch.Store(fetch.manifest(), None, tmp_path)
    kept = store.cache_folder("lpips-alex-trunk") / "alex_features.safetensors"
    kept.parent.mkdir(parents=True)
    trunks._keep(weights, kept)
    with pytest.raises(trunks.WeightsError, match="tensor hash"):
        trunks.trunk("alex", store)


def test_processes_that_fetch_at_once_find_one_file(weights, tmp_path, monkeypatch):
    fetched = tmp_path / "alex.pth"
    torch.save(weights, fetched)

    class Web(fetch.Store):
        def find(self, name):
            return None

        def locate(self, name):
            time.sleep(0.2)  # long enough for the others to come
            return fetch.Located(name, fetched, "network", "")

    store = Web(fetch.manifest(), None, tmp_path)
    monkeypatch.setattr(trunks, "_keep", lambda tensors, kept: save_file(weights, kept))
    monkeypatch.setattr(
        trunks, "_checked", lambda net, name, tensors, origin, store: trunks.Trunk(tensors, origin, "")
    )
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: trunks.trunk("alex", store), range(3)))
    assert sorted(one.origin for one in found) == ["cache", "cache", "network"]
    assert not fetched.exists()


def test_hash_sees_names_shapes_and_values():
    base = {"a": torch.arange(6.0).reshape(2, 3)}
    others = [{"b": base["a"]}, {"a": base["a"].reshape(3, 2)}, {"a": base["a"] + np.float32(1e-6)}]
    hashes = {trunks.tensors_sha256(t) for t in (base, *others)}
    assert len(hashes) == 4

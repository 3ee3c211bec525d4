"""What the codec costs: parameters, operations and memory by part, seconds by stage."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from diffusion_codec.backbone import STRIDE
from diffusion_codec.codec import DEFAULT_STEPS, Codec
from diffusion_codec.evaluation.records import Results

WIDTH, HEIGHT = 768, 512


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def operations(run: Callable[[], object]) -> int:
    """Operations of the convolutions and matrix products of `run`, two a multiply-add."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        run()
    return int(counter.get_total_flops())


class _Living(TorchDispatchMode):
    """Bytes of the tensors made inside that are alive, and the most there ever were; views count once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):  # made outside
                self._known.setdefault(leaf.untyped_storage(), None)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage() not in self._known:
                self._born(leaf.untyped_storage())
        return out

    def _born(self, storage: Any) -> None:
        size = storage.nbytes()
        self._known[storage] = None
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._died, size)

    def _died(self, size: int) -> None:
        self.now -= size


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes of tensors that `run` has made and holds at once; counted, so the same on every machine.

    Tensors that were there before (weights, the input) do not count, nor does what kernels allocate for themselves.
    """
    counter = _Living()
    with torch.inference_mode(), counter:
        run()
    return counter.most


def parts(codec: Codec, width: int = WIDTH, height: int = HEIGHT, steps: int = DEFAULT_STEPS) -> pd.DataFrame:
    """Parameters and multiply-adds of each part for one picture; columns part, parameters, GMAC, runs.

    Operations of convolutions and matrix products, as torch counts them (two a multiply-add), for the whole picture and
    all `steps`. The entropy model works in fixed point on the latent; its convolutions count like the others.
    """
    backbone, weights = codec.backbone, codec.weights
    x = torch.zeros(1, 3, height, width)
    y = torch.zeros(1, 4, height // STRIDE, width // STRIDE)
    t = torch.tensor([100.0])
    z_hat = torch.zeros(4, height // STRIDE, width // STRIDE, dtype=torch.int64)
    from diffusion_codec.entropy.model import SideInformation

    side = SideInformation(torch.zeros(1, 4, dtype=torch.int64), t)
    decoder, encoder = backbone.vae.decoder, backbone.vae.encoder
    rows = [
        ("autoencoder, analysis E", _count(encoder), operations(lambda: backbone.encode(x)), 1),
        (
            "parameter estimation P_φ",
            _count(weights.parameter_estimation),
            operations(lambda: codec.p_phi(y, torch.tensor([1.0]))),
            1,
        ),
        (
            "entropy model",
            _count(weights.latent_coder.model),
            operations(lambda: weights.latent_coder.encode(z_hat, side)),
            len(weights.latent_coder.model.passes),
        ),
        (
            f"denoiser ε_θ, {steps} steps",
            _count(backbone.unet),
            operations(lambda: backbone.denoise(y, t, steps)),
            steps,
        ),
        ("autoencoder, synthesis D", _count(decoder), operations(lambda: backbone.decode(y)), 1),
    ]
    table = pd.DataFrame(rows, columns=["part", "parameters", "operations", "runs"])
    table["GMAC"] = table.pop("operations") / 2e9
    return table


def seconds(bench: Path) -> pd.DataFrame:
    """Seconds by stage out of the stored benchmark, a column a size; loading apart from the stages."""
    content = json.loads(bench.read_text(encoding="utf-8"))
    columns = {}
    for row in content["measurements"]:
        stages = {"load the models (once)": row["load"]}
        for name in ("compress", "decompress"):
            stages |= {
                name if stage == "total" else f"{name}: {stage}": value for stage, value in row[name].items()
            }
        columns[f"{row['width']} × {row['height']}"] = stages
    return pd.DataFrame(columns).rename_axis("stage").reset_index()


def codec_seconds(results: Results) -> pd.DataFrame:
    """Median seconds to make and to read one file, over images and rates, by codec; columns codec, encode, decode."""
    rows = [
        (record.codec, record.encode_seconds, record.decode_seconds)
        for record in results.records
        if record.value is not None and record.bytes is not None and record.metric == "psnr"
    ]
    table = pd.DataFrame(rows, columns=["codec", "encode", "decode"])
    return table.groupby("codec", as_index=False).median()

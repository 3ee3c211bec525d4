"""Everything that decides a probability is exact: the same for any machine, thread count or batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_codec.entropy import tables
from diffusion_codec.entropy.coder import LatentCoder
from diffusion_codec.entropy.fixed_point import FixedPointConv2d, activation, real_valued
from diffusion_codec.entropy.model import Context, SideInformation, table_indices
from tests.entropy.examples import SIDE, disturbed_model, random_latent
from tests.tiny import tiny_codec


def test_tables_are_whole_and_have_no_zero() -> None:
    stored = tables.gaussian_tables().astype(np.int64)
    assert stored.shape == (tables.SCALE_LEVELS, tables.MEAN_FRACTIONS, 2 * tables.RADIUS + 2)
    assert (stored.sum(-1) == tables.TOTAL).all()
    assert stored.min() >= 1


def test_tables_have_the_mean_and_scale_they_are_named_for() -> None:
    level = 40
    p = tables.gaussian_tables()[level, 2, :-1] / tables.TOTAL
    values = np.arange(-tables.RADIUS, tables.RADIUS + 1)
    mean = (p * values).sum()
    assert mean == pytest.approx(2 / tables.MEAN_FRACTIONS, abs=0.05)
    assert np.sqrt((p * (values - mean) ** 2).sum()) == pytest.approx(tables.scales()[level], rel=0.03)


def test_convolution_is_exact_whatever_the_order_of_summation() -> None:
    torch.manual_seed(1)
    conv = FixedPointConv2d(6, 5, 5).double()
    x = activation(torch.randn(2, 6, 9, 11, dtype=torch.float64) * 100)
    whole = conv(x)
    order = torch.randperm(6)
    shuffled = FixedPointConv2d(6, 5, 5).double()
    shuffled.weight.data, shuffled.bias = conv.weight.data[:, order], conv.bias
    assert torch.equal(whole, shuffled(x[:, order]))
    assert torch.equal(whole[1:], conv(x[1:]))
    assert torch.equal(whole * 2**18, (whole * 2**18).round())


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    conv = FixedPointConv2d(3, 2, 5).double()
    x = activation(torch.randn(1, 3, 40, 11, dtype=torch.float64))
    whole = conv(x)
    monkeypatch.setattr("diffusion_codec.entropy.fixed_point.STRIP_ELEMENTS", 3 * 25 * 11 * 7)
    assert torch.equal(conv(x), whole)


@pytest.mark.parametrize("hyper_channels", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 9)])
@pytest.mark.parametrize(("context", "energy"), [("none", 0), ("checkerboard", 0), ("lattice", 5)])
def test_round_trip(hyper_channels: int, size: tuple[int, int], context: Context, energy: int) -> None:
    model = disturbed_model(hyper_channels, context, energy)
    hyper = None
    if model.hyperprior is not None:
        p = model.hyperprior.logits.detach().double().softmax(-1).numpy()
        hyper = tables.integer_frequencies(p)
    coder = LatentCoder(model, tables.gaussian_tables(), hyper)
    for seed, spread in ((0, 0.3), (1, 3.0), (2, 60.0), (3, 3000.0)):
        z_hat = random_latent(seed, size, spread)
        streams = coder.encode(z_hat, SIDE)
        assert torch.equal(coder.decode(streams, size, SIDE), z_hat)


def test_bytes_are_what_the_model_estimates() -> None:
    model = disturbed_model()
    z_hat = random_latent(5, (64, 64), 1.0)
    bits, _ = model.bits(
        z_hat[None].float(), SideInformation(SIDE.alpha_index.float(), SIDE.timestep.float())
    )
    size = 8 * len(LatentCoder(model, tables.gaussian_tables(), None).encode(z_hat, SIDE).latent)
    assert size == pytest.approx(float(bits.detach()), rel=0.01, abs=64)


@pytest.mark.parametrize("context", ["none", "checkerboard", "lattice"])
def test_a_context_sees_nothing_it_has_not_decoded(context: Context) -> None:
    model = disturbed_model(context=context, energy=5).double()
    unit = model.unit(random_latent(6, (7, 8)).double()[None], SIDE)
    decoded = torch.zeros(4, 7, 8, dtype=torch.bool)
    for index in range(len(model.passes)):
        changed = unit + (~decoded).double()
        assert torch.equal(model.known(unit, index, None), model.known(changed, index, None))
        channel, mask = model.channel_and_mask(index, 7, 8)
        assert not (decoded[channel] & mask).any()
        decoded[channel] |= mask
    assert decoded.all()


@pytest.mark.parametrize("context", ["checkerboard", "lattice"])
def test_a_context_uses_what_it_has_decoded(context: Context) -> None:
    model = disturbed_model(context=context).double()
    unit = model.unit(random_latent(6, (7, 8)).double()[None], SIDE)
    for index in range(1, len(model.passes)):
        channel, mask = model.channel_and_mask(index - 1, 7, 8)
        changed = unit.clone()
        changed[:, channel] += mask
        assert not torch.equal(model.known(unit, index, None), model.known(changed, index, None))


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_table_indices_are_the_same_for_every_instruction_set(capability: str) -> None:
    script = (
        "from tests.entropy.examples import indices_sha256 as sha; "
        "print(sha(1), sha(8), sha(1, 'lattice', 7), sha(8, 'lattice', 7))"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": "SSE41"}
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [KNOWN_INDICES] * 2 + [KNOWN_LATTICE_INDICES] * 2


def test_batch_position_does_not_matter() -> None:
    model = disturbed_model().double()
    z = torch.stack([random_latent(seed, (12, 12)) for seed in range(3)]).double()
    side = SideInformation(SIDE.alpha_index.expand(3, -1), SIDE.timestep.expand(3))
    with torch.no_grad():
        together = [table_indices(m, s) for _, m, s in model.each_pass(z, side, None)]
        alone = [table_indices(m, s) for _, m, s in model.each_pass(z[2:], SIDE, None)]
    for (mean, level), (mean_alone, level_alone) in zip(together, alone, strict=True):
        assert torch.equal(mean[2:], mean_alone)
        assert torch.equal(level[2:], level_alone)


def test_weights_file_keeps_the_model(tmp_path: Path) -> None:
    first = tiny_codec(tmp_path, hyper_channels=2)
    second = tiny_codec(tmp_path, hyper_channels=2)
    assert first.weights.fingerprint == second.weights.fingerprint
    z_hat = random_latent(8, (8, 8))
    assert first.weights.latent_coder.encode(z_hat, SIDE) == second.weights.latent_coder.encode(z_hat, SIDE)


KNOWN_INDICES = "62e39c33fd81b1b9f31bc9a74053be889bce8f5d68746e2b6f80d32abdcda442"
KNOWN_LATTICE_INDICES = "6ce20dbf9c6c8e01e89b5114b6ba6f81bdda4f5d2d1196cf2fb061fde1a212b4"


def test_real_valued_networks_round_nothing_and_only_inside() -> None:
    model = disturbed_model(context="lattice", energy=5)
    z = random_latent(3, (8, 8)).float()[None]
    side = SideInformation(SIDE.alpha_index.float(), SIDE.timestep.float())
    exact, _ = model.bits(z, side)
    with real_valued():
        real, _ = model.bits(z, side)
    again, _ = model.bits(z, side)
    assert torch.equal(exact, again)
    assert not torch.equal(exact, real)
    assert float(real.detach()) == pytest.approx(float(exact.detach()), rel=0.02)

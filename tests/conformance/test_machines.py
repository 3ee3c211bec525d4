"""The golden files on other processors' instructions and with other numbers of threads: symbols never differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "diffusion_codec", "conformance", "tests/conformance/1.0", "--json"]
HAS_AVX512 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="this processor has no AVX-512"
)


@pytest.mark.parametrize(
    ("aten", "onednn", "threads"),
    [
        ("default", "SSE41", 1),
        ("avx2", "AVX2", 2),
        pytest.param("avx512", "AVX512_CORE_BF16", 8, marks=HAS_AVX512),
        ("default", "AVX2", 2),
    ],
)
def test_symbols_are_the_same(aten: str, onednn: str, threads: int) -> None:
    environment = os.environ | {
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "OMP_NUM_THREADS": str(threads),
    }
    done = subprocess.run(
        [sys.executable, *COMMAND], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    symbols = [finding["passed"] for finding in findings if finding["check"] == "symbols"]
    assert len(symbols) > 10
    assert all(symbols)

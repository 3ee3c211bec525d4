import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_codec.workers import processes

PROGRAM = """
import os, sys, time
from pathlib import Path
from diffusion_codec.workers import processes

if __name__ == "__main__":
    with processes(1) as pool:
        Path(sys.argv[1]).write_text(str(pool.submit(os.getpid).result()))
        time.sleep(600)
"""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rsplit(")", 1)[1].split()[0] != "Z"  # a container may have nobody who collects the dead


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_helpers_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    script, told = tmp_path / "program.py", tmp_path / "helper"
    script.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, str(script), str(told)])
    helper = 0
    try:
        while not helper:
            assert program.poll() is None
            time.sleep(0.05)
            helper = int(told.read_text() or 0) if told.exists() else 0
        assert alive(helper)
    finally:
        program.kill()
        program.wait()
    for _ in range(600):
        if not alive(helper):
            return
        time.sleep(0.05)
    os.kill(helper, signal.SIGKILL)
    pytest.fail("the helper outlived the program by half a minute")


def test_helpers_are_prepared_first(tmp_path: Path) -> None:
    with processes(1, os.chdir, tmp_path) as pool:
        assert pool.submit(os.getcwd).result() == str(tmp_path)
    assert os.getcwd() != str(tmp_path)

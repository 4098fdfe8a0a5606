"""What a device can do, and how a server's threads share a CPU."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robviz.models import precision

COMPUTES = """
import os, threading, torch
from robviz.models.devices import openmp_pauses, release_threads

def threads():
    return len(os.listdir("/proc/self/task"))

def compute():
    torch.set_num_threads(3)
    for _ in range(2):
        torch.rand(1_000_000).exp()
        found.append(threads())
        release_threads()
        found.append(threads())

found = []
thread = threading.Thread(target=compute)
thread.start()
thread.join()
print(len(openmp_pauses()), *found)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of a process as Linux lists them")
def test_a_thread_that_has_computed_gives_its_team_back_and_may_compute_again():
    code = [sys.executable, "-c", COMPUTES]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    libraries, busy, after, again, at_last = map(int, done.stdout.split())
    shipped = Path(torch.__file__).parents[1].glob("torch*/**/libgomp*.so*")
    if any(hasattr(ctypes.CDLL(str(path)), "omp_pause_resource_all") for path in shipped):  # not with torch 2.5
        assert libraries > 0
    assert busy - after == (2 if libraries else 0)  # other libraries keep their teams
    assert (again, at_last) == (busy, after)


@pytest.mark.parametrize("supported", ["_is_amx_tile_supported", "_is_avx512_bf16_supported", None])
def test_a_cpu_multiplies_bfloat16_fast_if_it_has_instructions_for_that(monkeypatch, supported):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == supported, raising=False)
    monkeypatch.delenv("ROBVIZ_PRECISION", raising=False)
    cpu = torch.device("cpu")
    assert precision.has_fast_bfloat16(cpu) is bool(supported)
    assert precision.chosen_precision("auto", cpu) == ("bf16" if supported else "fp32")

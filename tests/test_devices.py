"""What a device can do, and how a server's threads share a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from robviz.models import precision

COMPUTES = """
import os, threading, torch
from robviz.models.devices import openmp_pauses, release_threads

def threads():
    return len(os.listdir("/proc/self/task"))

def compute():
    for _ in range(2):
        (torch.rand(400, 400) @ torch.rand(400, 400)).sum()
        found.append(threads())
        release_threads()
        found.append(threads())

found = []
thread = threading.Thread(target=compute)
thread.start()
thread.join()
print(len(openmp_pauses()), *found)
"""


def test_a_thread_that_has_computed_gives_its_team_back_and_may_compute_again():
    done = subprocess.run(
        [sys.executable, "-c", COMPUTES],
        env={**os.environ, "OMP_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    libraries, busy, after, again, at_last = map(int, done.stdout.split())
    if not libraries:
        pytest.skip("torch does not compute with GNU's OpenMP here")
    assert busy > after
    assert (again, at_last) == (busy, after)


@pytest.mark.parametrize("supported", ["_is_amx_tile_supported", "_is_avx512_bf16_supported", None])
def test_a_cpu_multiplies_bfloat16_fast_if_it_has_instructions_for_that(monkeypatch, supported):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == supported, raising=False)
    monkeypatch.delenv("ROBVIZ_PRECISION", raising=False)
    cpu = torch.device("cpu")
    assert precision.has_fast_bfloat16(cpu) is bool(supported)
    assert precision.chosen_precision("auto", cpu) == ("bf16" if supported else "fp32")

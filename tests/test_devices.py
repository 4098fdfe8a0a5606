"""What a device can do, and how a server's threads share a CPU."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from robviz.models import precision
from robviz.models.devices import openmp_pauses, release_threads


def threads_here() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not openmp_pauses(), reason="torch does not compute with GNU's OpenMP here")
@pytest.mark.skipif(torch.get_num_threads() < 2, reason="torch computes with one thread here")
def test_a_thread_that_has_computed_gives_its_team_back_and_may_compute_again():
    found = []

    def compute() -> None:
        for _ in range(2):
            (torch.rand(400, 400) @ torch.rand(400, 400)).sum()
            found.append(threads_here())
            release_threads()
            found.append(threads_here())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    busy, after, again, at_last = found
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

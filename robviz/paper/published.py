"""The published tables of arXiv:2306.12941 (version 2, ECCV 2024) as data; figures in per cent, radii in /255."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robviz.types import InputError

#: number -> what the table shows
TABLES = {
    1: "CosPGD, SegPGD, the paper's three losses and SEA on six models at three radii each",
    2: "robust models under SEA (* = 100 iterations of SegPGD, as their authors reported)",
    3: "adversarial training against PIR-AT, by steps and epochs",
    4: "training settings",
    5: "backbones",
    6: "each loss of SEA alone",
    7: "pairs of losses",
    8: "mean and deviation over three seeds",
    9: "transfer attacks",
}


def table(number: int) -> pd.DataFrame:
    """Return a published table.

    Args:
        number: 1 to 9.

    Returns:
        One row per line of the table; figures in per cent, radii in /255.

    Raises:
        InputError: For any other number.
    """
    if number not in TABLES:
        raise InputError(f"the paper has Tables 1 to {len(TABLES)}, got {number!r}")
    return pd.read_csv(Path(__file__).parent / f"table{number}.csv")

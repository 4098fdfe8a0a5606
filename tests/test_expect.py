"""Odd answers to exercises are explained in one sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robviz.notebook.expect import ODDITIES, NotApplicableError, expect, odd
from robviz.notebook.lesson import Guess, Lesson
from robviz.notebook.runner import is_explained


@pytest.mark.parametrize(
    ("answer", "wanted", "said"),
    [
        (None, {"kind": float}, "Nothing was returned"),
        (torch.tensor(1.0), {"kind": float}, "add `.item()`"),
        ("1", {"kind": float}, "must be a number, and this is a str"),
        (True, {"kind": float}, "must be a number, and this is a bool"),
        (np.zeros(2), {"shape": (2,)}, "`torch.from_numpy`"),
        ([torch.zeros(1)], {"shape": (1,)}, "`torch.stack`"),
        (torch.zeros(1, 2), {"shape": (2,)}, "the shape (2,), and this has (1, 2)"),
        (torch.tensor([math.nan]), {"shape": (1,)}, "contains NaN"),
        ([1.0, math.inf], {"kind": list}, "not finite"),
        ({"a": math.nan}, {"kind": dict}, "contains NaN"),
        (50.0, {"kind": float, "is_share": True}, "is it in per cent"),
        (-0.5, {"kind": float, "is_share": True}, "between 0 and 1, and this is -0.5"),
        (torch.zeros(2), {"dtype": torch.int64}, "must be torch.int64"),
        (torch.zeros(2, device="meta"), {"device": "cpu"}, "lies on meta"),
    ],
)
def test_an_odd_answer_is_told_what_is_odd(answer, wanted, said):
    with pytest.raises(AssertionError) as caught:
        expect(answer, **wanted)
    assert said in str(caught.value)
    assert is_explained(f"AssertionError: {caught.value}")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (0.5, {"kind": float, "is_share": True}),
        (1, {"kind": float}),
        (np.float32(0.5), {"kind": float}),
        (np.bool_(True), {"kind": bool}),
        (torch.zeros(2, 3), {"shape": (2, 3)}),
        (torch.zeros(2, dtype=torch.int64), {"dtype": torch.int64}),
        (["cat"], {"kind": list}),
        ("cat", {"kind": str}),
        (torch.nn.Identity(), {"kind": torch.nn.Module}),
    ],
)
def test_a_right_kind_of_answer_is_handed_on(answer, wanted):
    assert expect(answer, **wanted) is answer


@pytest.mark.parametrize("kind", ODDITIES)
def test_an_oddity_is_odd_or_not_applicable(kind):
    for right in (0.5, torch.full((2,), 0.5), np.zeros(2), [0.5], {"a": 1}):
        try:
            answer = odd(lambda right=right: right, kind)()
        except NotApplicableError:
            continue
        assert type(answer) is not type(right) or not np.array_equal(np.asarray(answer), np.asarray(right))


def test_a_claim_that_does_not_hold_fails_in_quick_mode_and_is_marked_in_full_mode(capsys):
    quick, full = Lesson("x", "quick"), Lesson("x", "full")
    quick.claim("1 is 1.", 1 == 1)
    with pytest.raises(AssertionError, match=r"does not hold: 1 is 2\."):
        quick.claim("1 is 2.", 1 == 2)
    full.claim("1 is 2.", 1 == 2)
    assert capsys.readouterr().out == "✓ 1 is 1.\n✗ not so here: 1 is 2.\n"


def test_a_prediction_is_kept_and_shown_beside_the_answer(capsys):
    guess = Guess(("a", "b"))
    guess.reveal("b")
    guess.widget.value = "a"
    guess.reveal("b")
    assert capsys.readouterr().out == "You said: nothing yet. Measured: b.\nYou said: a. Measured: b.\n"
    assert "a · b" in guess._repr_mimebundle_()["text/html"]

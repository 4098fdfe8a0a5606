"""Records come back as they were written, or not at all."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robviz.results.records import Records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)
KEYS = st.from_regex(r"[0-9]{6}\.[a-z][a-z.-]{0,12}[0-9]", fullmatch=True)
PLANS = st.dictionaries(st.text("abc", min_size=1), st.integers(0, 3) | st.text("xyz"), min_size=1, max_size=4)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(KEYS, RECORDS, max_size=4), PLANS)
@pytest.mark.slow
def test_what_is_written_under_a_key_is_read_there_in_another_process_too(written, plan):
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), plan)
        for key, values in written.items():
            records.write(key, values)
        again = Records(Path(folder), plan)
        assert {key: again.read(key) for key in written} == written
        assert again.read("999999.absent") is None
        begun_anew = Records(Path(folder), plan, resume=False)
        assert {begun_anew.read(key) for key in written} <= {None}


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(RECORDS, st.data())
def test_a_damaged_record_is_dropped_and_never_read_as_another(values, data):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = Records(Path(folder), {"eps": 1})
        records.write("x", values)
        whole = records.path("x").read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
        for damaged in (whole[:place], whole[:place] + bytes([other]) + whole[place + 1 :]):
            records.path("x").write_bytes(damaged)
            assert records.read("x") is None


@settings(deadline=None, max_examples=50)
@given(PLANS, PLANS)
def test_records_of_another_plan_are_refused_by_naming_what_differs(plan, other):
    with tempfile.TemporaryDirectory() as folder:
        Records(Path(folder), plan).write("x", {"a": 1})
        if plan == other:
            assert Records(Path(folder), other).read("x") == {"a": 1}
            return
        with pytest.raises(ValueError, match="holds the records of another run") as refused:
            Records(Path(folder), other)
        for key in plan.keys() | other.keys():
            is_same = plan.get(key) == other.get(key)
            assert (f"{key}: {plan.get(key)!r} there, {other.get(key)!r} asked for" in str(refused.value)) != is_same
        assert json.loads((Path(folder) / "plan.json").read_text()) == plan

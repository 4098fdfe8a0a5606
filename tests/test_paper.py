from __future__ import annotations

import pytest

from robviz import paper


@pytest.mark.parametrize("number", paper.TABLES)
def test_every_published_table_opens(number):
    table = paper.table(number)
    assert len(table) > 0
    assert table.columns.is_unique


def test_table_6_says_what_the_paper_says():
    table = paper.table(6)
    row = table[table.Model.str.startswith("UPerNet ConvNeXt-T") & (table.eps == "8/255")].iloc[0]
    assert row["SEA Acc"] == 71.7
    assert row["SEA mIoU"] == 34.6


def test_a_table_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="Tables 1 to 9, got 10"):
        paper.table(10)

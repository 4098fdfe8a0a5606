"""The published tables and configurations, and our results beside them."""

from __future__ import annotations

from robviz.paper.ours import ours
from robviz.paper.published import TABLES, table
from robviz.paper.side_by_side import SideBySide, beside

__all__ = ["TABLES", "SideBySide", "beside", "ours", "table"]

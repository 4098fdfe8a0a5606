"""Tables written from what was measured, never by hand."""

from __future__ import annotations

from pathlib import Path

from robviz.models import Card, available
from robviz.shipped import shipped

BEGIN, END = "<!-- models: begin -->\n", "<!-- models: end -->"


def model_rows() -> str:
    """One Markdown row a shipped model, from the cards: name, training, mIoU in % clean and attacked."""
    rows = []
    for name in available():
        card = Card.load(shipped("checkpoints") / f"{name}.json")
        recipe, splits = card.training["recipe"], (card.metrics["val"], card.metrics["photographs"])
        eps, minutes = round(recipe["eps"] * 255), card.training["training_seconds"] / 60
        how = f"adversarially, PGD at {eps}/255" if eps else "cleanly"
        start = f" from `{recipe['initial']}`" if recipe["initial"] else ""
        figures = [f"{100 * split[key]:.1f} %" for split in splits for key in ("clean_miou", "attacked_miou")]
        rows.append(f"| `{name}` | {how}{start}, {minutes:.0f} min on a CPU | {' | '.join(figures)} |\n")
    return "".join(rows)


def fill(readme: Path) -> None:
    """Put the model table of a README, between its two markers, up to date."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(before + BEGIN + model_rows() + END + after)

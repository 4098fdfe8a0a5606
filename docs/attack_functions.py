"""A hook of mkdocs: document the functions that `robviz.attacks` makes from its table, which no parser can see."""

from __future__ import annotations

import inspect
import re
from typing import Any

from robviz import attacks


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add these functions to the page about attacks."""
    if page.file.src_uri != "api/attacks.md":
        return markdown
    names = [name for name in attacks.__all__ if name.removesuffix("_steps").replace("_", "-") in attacks.OPTIMISERS]
    return "\n\n".join([markdown, *map(documented, sorted(names))])


def documented(name: str) -> str:
    """Write heading, signature and docstring of one function as Markdown."""
    function = getattr(attacks, name)
    parameters = ",\n    ".join(map(declared, inspect.signature(function).parameters.values()))
    heading = f"## `robviz.attacks.{name}` {{ #robviz.attacks.{name} }}"
    return f"{heading}\n\n```python\n{name}(\n    {parameters},\n)\n```\n\n{listed(inspect.getdoc(function) or '')}"


def declared(parameter: inspect.Parameter) -> str:
    """Write a parameter as in the source."""
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {parameter.annotation}{default}"


def listed(docstring: str) -> str:
    """Turn the sections of a Google-style docstring into headings and lists."""
    text = re.sub(r"\n {8}", " ", docstring)  # items that go on in the next line
    text = re.sub(r"^(Args|Returns|Yields|Raises):\n", r"**\1:**\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^    ([\w*]+): ", r"- **`\1`**: ", text, flags=re.MULTILINE)
    return re.sub(r"^    ", "", text, flags=re.MULTILINE)

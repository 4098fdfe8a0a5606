"""The ES modules of `js/` as one script: no build step lies between what is written and what the browser runs.

The modules keep to what can be joined by text alone: they import names from files beside them, export declarations one
by one, and no two of them declare the same name, as all share one scope in the end.
"""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

from robviz.types import InputError

MODULES = Path(__file__).parent / "js"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) )", re.MULTILINE)
DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
UNREAD = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def sources_of(entry: str, folder: Path) -> dict[str, str]:
    """Read a module and all that it imports, each after those that it needs itself."""
    sources, waiting = dict[str, str](), [entry]
    while waiting:
        name = waiting.pop()
        sources[name] = (folder / name).read_text(encoding="utf-8")
        waiting += set(IMPORT.findall(sources[name])) - set(sources)
    order = TopologicalSorter({name: IMPORT.findall(source) for name, source in sources.items()}).static_order()
    return {name: sources[name] for name in order}


def bundle(entry: str, folder: Path = MODULES) -> str:
    """Join a module and all that it imports into one module, which exports what the entry exports.

    Raises:
        ValueError: Two modules declare the same name or import each other, or one imports or exports in another form.
    """
    owners, parts = dict[str, str](), list[str]()
    for name, source in sources_of(entry, folder).items():
        for declared in DECLARED.findall(source):
            if owners.setdefault(declared, name) != name:
                raise InputError(f"{owners[declared]} and {name} both declare {declared!r}; rename one of them")
        bare = IMPORT.sub("", source)
        if name != entry:
            bare = EXPORT.sub("", bare)
            if unread := UNREAD.search(bare):
                raise InputError(
                    f"{name}: cannot join {unread[0]!r}; expected `import {{ ... }} from` or `export function`"
                )
        parts.append(bare)
    return "\n".join(parts)


def script(entry: str, folder: Path = MODULES) -> str:
    """Join modules as `bundle` does, for a `<script>` of a page; only what the entry sets is seen outside."""
    return f'(() => {{\n"use strict";\n{bundle(entry, folder)}}})();'

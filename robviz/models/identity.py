"""Identify a model beyond its weights: by its settings, its wrapping, and the user's own code.

Together with `fingerprint`, which covers the weights, this distinguishes two models whose figures may differ.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

#: Folders of Python and of installed packages, whose code is identified by their versions.
INSTALLED = tuple({sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
UNKNOWN = object()


def short(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return a value as text if it consists of numbers, names and tensors; `UNKNOWN` otherwise."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {short(value.detach().cpu().double().numpy().tobytes())}"
    if isinstance(value, (list, tuple)):
        parts = [plain(part) for part in value]
    elif isinstance(value, dict):
        parts = [part for item in value.items() for part in map(plain, item)]
    else:
        return UNKNOWN
    return UNKNOWN if UNKNOWN in parts else f"{type(value).__name__}({', '.join(parts)})"


#: The methods that change a list, a dictionary or a set.
CHANGES = {"add", "append", "appendleft", "clear", "extend", "insert", "pop", "popleft", "setdefault", "update"}


def written_in_passes(kind: type) -> set[str]:
    """Return the attributes that a module's own `forward`, or a method it calls, writes: counters, caches, logs.

    They differ from one pass to the next, so they are no settings.
    """
    waiting, seen, written = ["forward"], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        method = inspect.unwrap(getattr(kind, name, None))  # type: ignore[arg-type]
        if name in seen or not isinstance(method, FunctionType) or not is_own(method.__module__):
            continue
        seen.add(name)
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
        except (OSError, TypeError, SyntaxError):  # nobody knows, so a change is refused
            continue
        me = method.__code__.co_varnames[0] if method.__code__.co_argcount else ""
        for node in ast.walk(tree):
            if (attribute := attribute_of(node, me)) is not None and isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
                written.add(attribute)
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                written.update(filter(None, [attribute_of(node.value, me)]))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                waiting.extend(filter(None, [attribute_of(node.func, me)]))
                if node.func.attr in CHANGES:
                    written.update(filter(None, [attribute_of(node.func.value, me)]))
    return written


def attribute_of(node: ast.AST, name: str) -> str | None:
    """Return which attribute of a variable of this name an expression is; None if it is something else."""
    is_one = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    return node.attr if is_one else None  # type: ignore[attr-defined]


def settings_of(module: nn.Module) -> Iterator[str]:
    """Return the settings of a module, such as a stride or a slope, and the buffers that are in no state dict."""
    left_out = {"training", "card"} | written_in_passes(type(module))
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and name not in left_out and plain(value) is not UNKNOWN:
            yield f"{name}={plain(value)}"
    for name in sorted(getattr(module, "_non_persistent_buffers_set", set()) - left_out):
        yield f"{name}={plain(getattr(module, name))}"
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
        yield str(getattr(module, "code", ""))


def is_own(module: str | None) -> bool:
    """Return True if a module, by name, is neither Python's, nor an installed package's, nor robviz's."""
    root = (module or "").partition(".")[0]
    if not root or root in ("robviz", "builtins") or root in sys.stdlib_module_names - {"__main__"}:
        return False
    file = getattr(sys.modules.get(str(module)), "__file__", None)
    return file is None or not str(Path(file).resolve()).startswith(INSTALLED)


def source_of(thing: Any) -> str:
    """Return the source without comments and layout or, if there is none, the byte code."""
    try:
        source = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        codes = [thing.__code__] if isinstance(thing, FunctionType) else [f.__code__ for f in functions_of(thing)]
        return repr([(code.co_code, code.co_names, str(code.co_consts)) for code in codes])
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:  # a lambda in the middle of an expression
        return source


def functions_of(kind: type) -> list[FunctionType]:
    """Return the functions that a class itself defines."""
    members = (
        inspect.unwrap(getattr(member, "__func__", member)) for member in vars(kind).values() if callable(member)
    )
    return [member for member in members if isinstance(member, FunctionType)]


def names_in(code: CodeType) -> set[str]:
    """Return the names that a function's code looks up, with those of the functions inside it."""
    inside = (names_in(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inside)


def add_code(thing: Any, found: dict[str, str], called: str = "") -> None:
    """Add a function or class of the user, and the values, functions and classes that it uses, by name."""
    if isinstance(thing, partial):
        add_code(thing.func, found, called)
        for part in (*thing.args, *thing.keywords.values()):
            add_code(part, found, called)
    elif isinstance(thing, MethodType):
        add_code(thing.__func__, found, called)
    elif isinstance(thing, (FunctionType, type)):
        key = f"{thing.__module__}.{thing.__qualname__}".replace(".<locals>", "")
        if key in found or not is_own(thing.__module__):
            return
        found[key] = short(source_of(thing).encode())
        for base in thing.__mro__[1:] if isinstance(thing, type) else ():
            add_code(base, found)
        for function in functions_of(thing) if isinstance(thing, type) else [inspect.unwrap(thing)]:
            add_names(function, found)
    elif called and (text := plain(thing)) is not UNKNOWN:
        found[called] = short(text.encode())
    elif is_own(type(thing).__module__) and not isinstance(thing, nn.Module):
        add_code(type(thing), found)
        for name, value in getattr(thing, "__dict__", {}).items():
            add_code(value, found, f"{called or type(thing).__qualname__}.{name}")


def add_names(function: FunctionType, found: dict[str, str]) -> None:
    """Add what a function looks up: in its module, in the user's modules, and in the functions around it."""
    names, where = names_in(function.__code__), function.__globals__
    cells = zip(function.__code__.co_freevars, function.__closure__ or ())
    around = {name: cell.cell_contents for name, cell in cells if cell != type(cell)()}
    for name in sorted(names & where.keys()):
        value = where[name]
        if isinstance(value, ModuleType):
            for inner in sorted(names & vars(value).keys()) if is_own(value.__name__) else ():
                add_code(vars(value)[inner], found, f"{value.__name__}.{inner}")
        else:
            add_code(value, found, f"{where.get('__name__')}.{name}")
    for name, value in around.items():
        add_code(value, found, f"{function.__module__}.{function.__qualname__}.{name}".replace(".<locals>", ""))


def identity(model: nn.Module) -> dict[str, Any]:
    """Describe everything besides the weights that influences a model's outputs, ready for JSON.

    Returns:
        settings: A digest of every module's class and settings.
        wrapping: The arguments of `adapt`, if it made the model.
        code: Digests of the user's functions, classes and values that the model uses, by name; installed packages are
            identified by their versions.
        packages: The versions of the packages that the model's classes come from.
    """
    digest, code, packages = hashlib.sha256(), dict[str, str](), dict[str, str]()
    for name, module in model.named_modules():
        kind = type(module)
        digest.update("\n".join((name, kind.__module__, kind.__qualname__, *settings_of(module), "")).encode())
        add_code(kind, code)
        for attribute, value in vars(module).items():
            if not attribute.startswith("_") and callable(value) and not isinstance(value, nn.Module):
                add_code(value, code)
        root = kind.__module__.partition(".")[0]
        if root not in ("robviz", "torch", "timm") and not is_own(kind.__module__) and root not in packages:
            try:
                packages[root] = version(root)
            except PackageNotFoundError:
                continue
    describe = getattr(model, "describe", dict)
    return {"settings": digest.hexdigest(), "wrapping": describe(), "code": code, "packages": packages}

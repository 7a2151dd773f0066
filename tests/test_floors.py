"""The floors of the package: a module imports from its own floor and from those below it.

All imports count, those inside functions and for type checkers too; what may differ is listed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import kvmperf_magic
import kvmperf_widgets

# from the ground up; of folders on one floor none imports another
FLOORS = (
    "errors modes parallel numbering frontend files progress tabletext table cache blob",
    "perfdata symbols",
    "guests sampler",
    "unwinding",
    "profile lost",
    "callchains stacks whose lining decoding remembering source filters",
    "exporting describing contents recording",
    "export",
    "views flamegraphs diffflames reportview diffview dashboard facets heatmap comparison",
    "inventory",
    "recorder history ranking places liveview livenames live",
    "arguments completion magics",
    "demo",
    "cli __main__ __init__",
)
# a recording answers for itself: imported when it is asked to, or to name a type
UPWARD = {
    ("recording", "reportview"),
    ("recording", "flamegraphs"),
    ("recording", "heatmap"),
    ("exporting", "export"),
    ("exporting", "reportview"),
    ("export", "reportview"),
    ("export", "diffview"),
}
PACKAGES = {
    module.__name__: Path(str(module.__file__)).parent
    for module in (kvmperf_magic, kvmperf_widgets)
}


class Import(NamedTuple):
    """`name` of `module` ("" where the module itself is imported), and whether at its start."""

    module: str
    name: str
    at_start: bool


def module_name(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


@cache
def modules(package: str) -> dict[str, list[Import]]:
    """What each module of a package imports of both packages."""
    folder = PACKAGES[package]
    return {
        module_name(package, path): list(imports(ast.parse(path.read_text())))
        for path in sorted(folder.rglob("*.py"))
    }


def imports(tree: ast.Module) -> Iterator[Import]:
    at_start = set(executed(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole module"
            for alias in node.names:
                if str(node.module).split(".")[0] in PACKAGES:
                    yield Import(str(node.module), alias.name, node in at_start)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    yield Import(alias.name, "", node in at_start)


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from executed(child)


def imported(one: Import) -> str:
    """The module that an import is of: `from package import module` is of that module."""
    whole = f"{one.module}.{one.name}"
    known = modules("kvmperf_magic").keys() | modules("kvmperf_widgets").keys()
    return whole if whole in known else one.module


def place(module: str) -> str:
    """What stands on a floor: a folder, or a module beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor(name: str) -> int:
    (number,) = (i for i, names in enumerate(FLOORS) if name in names.split())
    return number


def is_below(importing: str, used: str) -> bool:
    if importing == used or floor(used) < floor(importing):
        return True
    folders = {path.name for path in PACKAGES["kvmperf_magic"].iterdir() if path.is_dir()}
    return floor(used) == floor(importing) and not {importing, used} & folders


def crossings() -> set[tuple[str, str, str]]:
    """(module, its place, the place it imports from), within the package."""
    return {
        (module, place(module), place(imported(one)))
        for module, found in modules("kvmperf_magic").items()
        for one in found
        if one.module.startswith("kvmperf_magic")
        # what the package itself says of itself, its version, is no floor
        and (imported(one) != "kvmperf_magic" or not one.name.startswith("__"))
    }


def test_every_module_has_its_floor() -> None:
    assert {place(module) for module in modules("kvmperf_magic")} == set(" ".join(FLOORS).split())


def test_imports_go_down() -> None:
    upward = {
        (module, used)
        for module, own, used in crossings()
        if not is_below(own, used) and (own, used) not in UPWARD
    }
    assert not upward


def test_no_exception_is_left_over() -> None:
    assert {(own, used) for _, own, used in crossings() if not is_below(own, used)} == UPWARD


def test_pictures_know_nothing_of_recordings() -> None:
    found = modules("kvmperf_widgets")
    assert not {m for m, ones in found.items() for one in ones if "magic" in one.module}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circles(package: str) -> None:
    """Not when modules are imported; what functions import later may look back."""
    graph = {
        module: {imported(one) for one in found if one.at_start} - {package, module}
        for module, found in modules(package).items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_private_names_stay_in_their_module() -> None:
    found = {
        (module, f"{one.module}.{one.name}")
        for package in PACKAGES
        for module, ones in modules(package).items()
        for one in ones
        if one.name.startswith("_") and not one.name.startswith("__")
    }
    assert not found

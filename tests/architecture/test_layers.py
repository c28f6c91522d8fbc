"""Imports point one way: the table of docs/architecture.md, executed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asyncval
import trainer

ROOT = Path(asyncval.__file__).parent
TRAINER = Path(trainer.__file__).parent

VALUES = {"core", "linears", "lookup"}
ADAPTERS = {"checkpoints", "clock", "data", "ledger", "reporters", "retrieval"}
SERVICES = {
    "alarm",
    "daemon",
    "evaluation",
    "keeping",
    "lookout",
    "outputs",
    "reporting",
    "subsets",
    "ui",
    "watcher",
    "worker",
}
EVERYTHING_BELOW = VALUES | ADAPTERS | SERVICES | {"execution"}
MAY_IMPORT = {
    "core": {"core"},
    "linears": set(),
    "lookup": {"core"},
    **{adapter: VALUES | {adapter} for adapter in ADAPTERS},
    "execution": VALUES | {"execution"},
    "config": VALUES,
    "options": VALUES,
    **dict.fromkeys(SERVICES, EVERYTHING_BELOW),
    "commands": EVERYTHING_BELOW | {"commands", "config", "options"},
    "api": EVERYTHING_BELOW | {"commands", "config"},
    "cli": {"core"},  # it imports the others by name, once it is known which command it is
    "__main__": {"cli"},
    "splitter": {"cli"},
    "__init__": set(),
}


def unit_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules(root):
    return sorted(root.rglob("*.py"))


def is_main_block(node):
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def imported(path):
    """Yield the dotted names that a file imports, in functions too, but not as a script."""
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if not is_main_block(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def units_imported(path):
    """Return the units of asyncval that a file imports; names of the package itself are none."""
    names = [name.split(".") for name in imported(path)]
    units = {parts[1] for parts in names if parts[0] == "asyncval" and len(parts) > 1}
    return {unit for unit in units if (ROOT / unit).is_dir() or (ROOT / f"{unit}.py").is_file()}


def test_every_top_level_module_has_its_place_in_the_table():
    there = {unit_of(path) for path in modules(ROOT)}
    assert there - set(MAY_IMPORT) == set()


@pytest.mark.parametrize("path", modules(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_may(path):
    forbidden = units_imported(path) - MAY_IMPORT[unit_of(path)]
    assert not forbidden, f"{path.relative_to(ROOT)} must not import {forbidden}"


def test_the_core_is_standard_library_numpy_and_scipy():
    allowed = {*sys.stdlib_module_names, "numpy", "scipy", "asyncval"}
    for path in modules(ROOT / "core"):
        foreign = {name.split(".")[0] for name in imported(path)} - allowed
        if path.name == "ports.py":
            foreign -= {"torch"}  # for annotations only, which the next test holds it to
        assert not foreign, f"{path.name} imports {foreign}"


def test_the_trainer_uses_the_public_interface_and_nothing_uses_the_trainer():
    for path in modules(ROOT):
        assert not any(name.split(".")[0] == "trainer" for name in imported(path)), path
    for path in modules(TRAINER):
        inside = {name for name in imported(path) if name.split(".")[0] == "asyncval"}
        assert all(name.startswith("asyncval.api.") for name in inside), (path, inside)


def test_the_public_interface_has_what_it_promises_and_loads_nothing_heavy():
    script = (
        "import sys; from asyncval.api import *; import asyncval.api as api; "
        "assert all(hasattr(api, name) for name in api.__all__); "
        "assert not {'torch', 'transformers', 'faiss', 'ranx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


LIGHT = """
import sys
import asyncval.cli, asyncval.config, asyncval.options
import asyncval.commands.watch, asyncval.commands.split
assert asyncval.cli.main(["--help"]) == 0
try:
    asyncval.cli.main([sys.argv[1], "--help"])
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "transformers", "ranx", "numba", "faiss", "tensorboard", "safetensors"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("command", ["watch", "split"])
def test_help_and_the_composition_of_the_program_load_nothing_heavy(command):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, command], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def public_definitions(path):
    """Yield (place, node) of the module and all its public classes, functions and methods."""
    tree = ast.parse(path.read_text("utf-8"))
    yield str(path.relative_to(ROOT)), tree
    stack = [(str(path.relative_to(ROOT)), node) for node in tree.body]
    while stack:
        place, node = stack.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        is_overload = any(ast.unparse(each) == "overload" for each in node.decorator_list)
        if node.name.startswith("_") or is_overload:
            continue
        yield f"{place}:{node.name}", node
        if isinstance(node, ast.ClassDef):
            stack += [(f"{place}:{node.name}", child) for child in node.body]


def test_everything_public_has_a_docstring():
    without = [
        place
        for path in modules(ROOT)
        for place, node in public_definitions(path)
        if not ast.get_docstring(node)
    ]
    assert without == []


def test_every_name_in_the_tables_can_be_imported():
    from asyncval.checkpoints import LAYOUTS
    from asyncval.data import TEXT_FORMATS
    from asyncval.lookup import look_up
    from asyncval.reporters import REPORTERS

    for table in (LAYOUTS, TEXT_FORMATS, REPORTERS):
        for name in table:
            assert isinstance(look_up(name, table, option="table"), type)

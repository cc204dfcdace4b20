"""The shape of the code: imports go down only, and each dependency has one door."""

import ast
from pathlib import Path

import pytest

import persistent_context

PACKAGE = Path(persistent_context.__file__).parent
STOREYS = [
    ["_printable"],
    ["_types", "metrics"],
    ["_errors"],
    ["_values"],
    ["_merge", "_document"],
    ["_live", "_tracking", "_parse"],
    ["_operations"],
    ["_memory"],
    ["_transaction"],
    ["_flock", "_guard", "_worker", "_cancelling", "_request"],
    ["_files"],
    ["_lock"],
    ["_store"],
    ["_group"],
    ["_watch"],
    ["_base"],
    ["_sync", "_context"],
    ["_once", "runtime", "_doctor"],
    ["_demo"],
    ["_cli"],
    ["__main__"],
    ["__init__"],
]
HEIGHT = {module: height for height, storey in enumerate(STOREYS) for module in storey}


def imports(module):
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level and not node.module:
                yield from ("." + alias.name for alias in node.names)
            else:
                yield "." * node.level + (node.module or "")


class TestLayers:
    def test_every_module_has_its_storey(self):
        """A new module must say where it belongs."""
        assert set(HEIGHT) == {path.stem for path in PACKAGE.glob("*.py")}

    @pytest.mark.parametrize("module", sorted(HEIGHT))
    def test_imports_go_down_only(self, module):
        """No module imports one of its own storey or of one above."""
        above = {name for name in imports(module) if name.startswith(".") and HEIGHT[name[1:]] >= HEIGHT[module]}

        assert set() == above

    @pytest.mark.parametrize(
        ("package", "door"), [("filelock", "_flock"), ("anyio", "_cancelling"), ("msgspec", "_values")]
    )
    def test_each_dependency_has_one_door(self, package, door):
        """One module imports filelock, one anyio, one msgspec."""
        importing = {module for module in HEIGHT for name in imports(module) if name.split(".")[0] == package}

        assert {door} == importing

    @pytest.mark.parametrize("module", [m for storey in STOREYS[:9] for m in storey])
    def test_the_pure_storeys_touch_no_file_and_no_loop(self, module):
        """Keys, texts, drafts and memory know neither files nor event loops."""
        assert set() == {"asyncio", "threading", "pathlib", "socket"} & set(imports(module))

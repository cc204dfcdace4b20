"""The structure of the code: imports go down only, and each dependency is imported in one place."""

import ast
from pathlib import Path

import pytest

import persistent_context

PACKAGE = Path(persistent_context.__file__).parent
LAYERS = [
    ["_printable", "_flag"],
    ["types", "metrics"],
    ["errors"],
    ["_model"],
    ["_stores"],
    ["_engine"],
    ["_api"],
    ["runtime", "_cli"],
    ["__main__"],
    ["__init__"],
]
"""The top-level packages and modules, from the lowest layer up."""
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module):
    """Yield what a module imports: absolute names, with a leading dot for modules of the package itself."""
    *folders, _ = module.split("/")
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            place = folders[: len(folders) + 1 - node.level] + (node.module or "").split(".")
            yield "." + ".".join(filter(None, place))


class TestLayers:
    def test_every_module_has_its_layer(self):
        """Every new module or package must be assigned to a layer."""
        assert set(HEIGHT) == {module.split("/")[0] for module in MODULES}

    @pytest.mark.parametrize("module", MODULES)
    def test_imports_go_down_only(self, module):
        """No module imports from a layer above, or from another part of its own layer."""
        layer = module.split("/")[0]
        imported = {name[1:].split(".")[0] for name in imports(module) if name.startswith(".")} - {layer}

        assert set() == {name for name in imported if HEIGHT[name] >= HEIGHT[layer]}

    @pytest.mark.parametrize(
        ("package", "door"),
        [
            ("filelock", "_stores/jsonfile/flock"),
            ("anyio", "_api/cancelling"),
            ("msgspec", "_model/values"),
            ("urllib3", "_stores/etcd/connections"),
        ],
    )
    def test_each_dependency_has_one_door(self, package, door):
        """filelock, anyio, msgspec and urllib3 are each imported by one module only."""
        assert [door] == [module for module in MODULES if package in {name.split(".")[0] for name in imports(module)}]

    @pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("_stores/")])
    def test_only_the_stores_know_of_files(self, module):
        """Apart from the doctor, nothing above the stores imports their parts, or what locks and watches files.

        The module that shows a journal imports the parts of the journal only.
        """
        known = {name for name in imports(module) if name.startswith("._stores.") and name.count(".") > 2}
        if module == "_cli/journal":
            known = {name for name in known if not name.startswith("._stores.journal.")}

        assert module in {"_cli/doctor", "_cli/doctor_etcd", "_cli/doctor_journal"} or set() == known
        assert module in {"_cli/doctor", "_cli/surroundings"} or set() == {"fcntl", "filelock", "watchfiles"} & {
            name.split(".")[0] for name in imports(module)
        }

    @pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("_model/")])
    def test_the_model_is_pure(self, module):
        """The model uses neither the operating system nor threads, event loops or the time."""
        assert set() == {"os", "threading", "asyncio", "time", "pathlib", "socket"} & set(imports(module))

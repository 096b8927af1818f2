"""The house itself: its rooms are ours, its requirements are pinned, its processes exist."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINT_IMPORTS = PROJECT["tool"]["importlinter"]
ROOMS: list[str] = LINT_IMPORTS["root_packages"]
REQUIREMENTS = sorted(ROOT.glob("*.txt"))


def layers() -> list[str]:
    (contract,) = (c for c in LINT_IMPORTS["contracts"] if c["type"] == "layers")
    return [name.strip() for layer in contract["layers"] for name in layer.split("|")]


def processes() -> dict[str, str]:
    """Name and command of each line of the Procfile."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(re.split(r":\s*", line, maxsplit=1) for line in lines if line and line[0] != "#")


def imported_by(path: Path) -> Iterator[str]:
    """The top-level names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", [*ROOMS, "settings"])
def test_a_room_is_ours_and_no_installed_package_of_that_name(room: str) -> None:
    spec = find_spec(room)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve().parent in (ROOT, ROOT / room)


def test_every_room_is_in_the_wheel_and_under_the_import_rules() -> None:
    on_disk = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    in_the_wheel = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    assert on_disk - {"benchmarks"} == set(ROOMS)
    assert in_the_wheel == {*ROOMS, "settings.py", "templates"}


@pytest.mark.parametrize("module", layers())
def test_every_layer_exists(module: str) -> None:
    assert find_spec(module) is not None


@pytest.mark.parametrize("path", sorted((ROOT / "billing").rglob("*.py")), ids=lambda p: p.name)
def test_billing_imports_nothing_but_the_standard_library(path: Path) -> None:
    assert set(imported_by(path)) <= {*sys.stdlib_module_names, "billing"}


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_a_hash_and_names_no_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    requirements = text.replace("\\\n", "").splitlines()
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement)


def test_production_and_development_run_the_same_versions() -> None:
    pins = {
        path.name: set(re.findall(r"^\S+==\S+", path.read_text(), re.MULTILINE))
        for path in REQUIREMENTS
    }
    assert pins["requirements.txt"] <= pins["requirements-dev.txt"]
    assert pins["redis.txt"] <= pins["requirements.txt"]


def test_every_process_of_the_procfile_can_be_run() -> None:
    commands = processes()
    assert set(commands) >= {"release", "web", "scheduler", "dispatcher", "worker"}
    for command in commands.values():
        program, *arguments = command.split()
        assert (Path(sys.executable).parent / program).exists(), command
        modules = [argument.partition(":")[0] for argument in arguments]
        for module in modules:
            if module.split(".")[0] in ROOMS:
                assert find_spec(module) is not None, command

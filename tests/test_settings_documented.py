"""docs/settings.md and the code name the same environment variables, with the same defaults."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import EnvProvider

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "SOURCE_<NAME>_URL"  # the usual name of a source's address, which the datasets file declares


def readers() -> dict[str, bool]:
    """The functions of environment.py that read a variable, and whether they look for its twin NAME_FILE as well."""
    module = ast.parse((ROOT / "exportapp/environment.py").read_text())
    functions = {
        node.name: {called.id for called in ast.walk(node) if isinstance(called, ast.Name)}
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("env_")
    }
    return {name: name == "env_secret" or "env_secret" in calls for name, calls in functions.items()}


READERS = readers()


def modules() -> Iterator[ast.Module]:
    for folder in ("exportapp", "worker", "docker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name != "environment.py":  # it has the functions, and reads nothing of its own
                yield ast.parse(path.read_text(), str(path))


def name_of(node: ast.expr, constants: dict[str, str]) -> str:
    """The variable that an argument names."""
    match node:
        case ast.Constant(value=str(name)):
            return SOURCE if re.fullmatch(r"SOURCE_[A-Z0-9_]+_URL", name) else name
        case ast.Name(id=constant) if constant in constants:
            return name_of(ast.Constant(constants[constant]), {})
        case ast.Attribute(attr="url_env"):
            return SOURCE
        case ast.JoinedStr(values=[ast.Constant(value="SOURCE_"), _, ast.Constant(value="_URL")]):
            return SOURCE
    raise AssertionError(f"which variable is this? {ast.unparse(node)}")


def reads() -> Iterator[tuple[str, str, ast.Call | ast.Subscript]]:
    """Each place that reads a variable: by which function, which variable, and the call itself."""
    for module in modules():
        constants = {
            target.id: statement.value.value
            for statement in module.body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
            for target in statement.targets
            if isinstance(target, ast.Name) and isinstance(statement.value.value, str)
        }
        for node in ast.walk(module):
            match node:
                case ast.Call(func=ast.Name(id=reader), args=[first, *_]) if reader in READERS:
                    yield reader, name_of(first, constants), node
                case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get"), args=[first, *_]):
                    yield "get", name_of(first, constants), node
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=first):
                    yield "get", name_of(first, constants), node


def read_by_the_code() -> set[str]:
    found: set[str] = set()
    for reader, name, _ in reads():
        found |= {name, f"{name}_FILE"} if READERS.get(reader) else {name}
    return found


def documented() -> dict[str, list[str]]:
    """Each variable in the first column of a table, with the cells of its row."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs/settings.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    return {name: row for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def read_by_boto3() -> set[str]:
    found = {EnvProvider.ACCESS_KEY, EnvProvider.SECRET_KEY, *EnvProvider.TOKENS}
    for _, names, _, _ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values():
        found |= {names} if isinstance(names, str) else set(names or ())
    return found


def test_every_variable_that_the_code_reads_is_documented() -> None:
    assert read_by_the_code() - documented().keys() == set()


def test_every_documented_variable_is_read() -> None:
    assert documented().keys() - read_by_the_code() - read_by_boto3() == set()


@pytest.mark.parametrize("path", ["README.md", "docs/operating.md", "docker-compose.yml", ".env.example"])
def test_other_pages_name_no_unknown_variable(path: str) -> None:
    named = set(re.findall(r"\bEXPORTAPP_[A-Z0-9_]+\b", (ROOT / path).read_text()))
    assert named - documented().keys() == set()


def numbers() -> list[tuple[str, float]]:
    return [
        (name, float(ast.literal_eval(call.args[1])))
        for reader, name, call in reads()
        if reader == "env_number" and isinstance(call, ast.Call)
    ]


@pytest.mark.parametrize(("name", "default"), numbers())
def test_documented_default_is_the_one_in_the_code(name: str, default: float) -> None:
    assert float(documented()[name][2]) == default

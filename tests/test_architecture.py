"""What import-linter cannot see. The layers themselves are contracts in pyproject.toml."""

from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src" / "ezmsg"


def test_ezmsg_is_a_namespace_package_that_others_can_extend() -> None:
    assert not (SOURCES / "__init__.py").exists()


def test_every_directory_of_modules_is_a_package() -> None:
    """Without __init__.py a directory would be imported all the same, and import-linter would not see it."""
    directories = {path.parent for path in SOURCES.glob("*/**/*.py")}
    assert [str(directory) for directory in directories if not (directory / "__init__.py").exists()] == []

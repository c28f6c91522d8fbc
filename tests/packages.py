"""Packages with entry points, as pip would leave them."""

from collections.abc import Mapping
from pathlib import Path


def write_package(
    site: Path, name: str, code: str, points: Mapping[str, Mapping[str, str]]
) -> None:
    """Write a module and what tells its entry points: group to name to the module's object."""
    (site / f"{name}.py").write_text(code)
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in points.items():
        lines.append(f"[{group}]\n")
        lines += [f"{key} = {name}:{value}\n" for key, value in entries.items()]
    (about / "entry_points.txt").write_text("".join(lines))

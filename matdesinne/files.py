"""Files that are either whole or not there."""

from __future__ import annotations

__all__ = ["atomic_path", "list_folder", "read_json", "write_json"]

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, renamed to it when the block ends well and removed when it does not.

    Args:
        path: the final name; its folder is made when missing.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: object) -> None:
    """Write plain containers as indented JSON, atomically.

    Raises:
        ValueError: if a number is not finite; JSON has no word for it.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> object:
    """Read what `write_json` wrote; ``None`` where there is no such file or it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def list_folder(folder: Path) -> str:
    """What lies there, as the last line of a command says it; hidden files are left out."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f"Wrote {', '.join(names)} to {folder}"

"""The file of finished designs: one line for each, written to disk as soon as its calculation ends."""

from __future__ import annotations

__all__ = ["Records", "design_id"]

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from matdesinne.errors import ConfigError, DatasetError, LabellingError
from matdesinne.oracles.base import Row


def design_id(design: Mapping[str, float], settings: Mapping[str, object]) -> str:
    """Returns the name of a design under the settings of an oracle; equal values give equal names on every machine."""
    content = json.dumps([dict(design), dict(settings)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Records:
    """An append-only file of JSON lines: first the settings, then one line for each finished design.

    An interrupted write (SIGKILL, a full disk, a power failure) leaves at most a last line without a line break, which the
    next start drops. Of two lines with the same id the later one is used. The file is locked, because two runs in one folder
    would label designs twice.

    Args:
        path: the file; it is made if it does not exist.
        settings: settings of the oracle; a file with other settings is refused.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path, self.settings = path, dict(settings)
        self.rows: dict[str, Row] = {}

    def __enter__(self) -> Records:
        """Lock and read the file.

        Raises:
            LabellingError: if another run has the folder, or the disk is full.
            ConfigError: if the file was written with other settings.
            DatasetError: if a line is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._read()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Unlock and close the file."""
        os.close(self._file)

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows to disk; each has an ``id``.

        Raises:
            LabellingError: if they cannot be written.
        """
        self._write([json.dumps(row, allow_nan=False) for row in rows])
        self.rows.update({str(row["id"]): row for row in rows})

    def _read(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LabellingError(
                f"Expected {self.path} to be unlocked, got the lock of another run: wait until it ends."
            ) from error
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        os.ftruncate(self._file, whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write([json.dumps({"settings": self.settings})])
            return
        entries = [self._parse(number, line) for number, line in enumerate(lines, start=1)]
        if entries[0].get("settings") != json.loads(json.dumps(self.settings)):
            raise ConfigError(f"Expected the settings that {self.path} was started with, got others: take another folder.")
        self.rows = {str(row["id"]): row for row in entries[1:]}

    def _parse(self, number: int, line: bytes) -> Row:
        try:
            entry = json.loads(line)
            entry["settings" if number == 1 else "id"]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"Expected a JSON record in line {number} of {self.path}, got {line[:40]!r}: delete that line."
            ) from error
        return entry

    def _write(self, lines: Sequence[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise LabellingError(
                f"Expected to write {self.path}, got {error.strerror}: make room and start again in this folder; "
                "no finished design is lost."
            ) from error

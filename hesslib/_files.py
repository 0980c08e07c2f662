"""Files that are there whole or not at all, and the checkpoints of long computations."""

from __future__ import annotations

import hashlib
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

STALE = 3600  # seconds after which an unfinished file is taken for what a killed run left


class StorageError(OSError):
    """A file could not be written; the message says which and why."""

    def _render_traceback_(self) -> list[str]:  # Jupyter shows the message, not the way to it
        return [f"StorageError: {self}"]


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a new file that takes the place of ``path`` once it is complete.

    A run killed at any moment leaves at ``path`` what was there before, and beside it a hidden part that nobody
    reads; a later write of the same file removes it. Two writers at a time do not meet: the last one stays.

    Raises:
        StorageError: the disk is full, the folder cannot be written to, or the like.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open(mode) as file:
            yield file
        part.replace(path)
        for left in path.parent.glob(f".{path.name}.*.part"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE:
                    left.unlink()
    except OSError as error:
        raise StorageError(f"{path} could not be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


class Checkpoint:
    """Arrays that a long computation has got so far, in one file that is replaced as a whole.

    Args:
        path: the file.
        run: what is computed and from what; a file of another run is refused.
    """

    def __init__(self, path: str | Path, *run: str | bytes) -> None:
        digest = hashlib.sha256()
        for part in run:
            digest.update(part.encode() if isinstance(part, str) else part)
        self.path, self.run = Path(path), digest.hexdigest()

    def load(self) -> dict[str, np.ndarray] | None:
        """The arrays by name; None if there is no file or, with a warning, if it is damaged.

        Raises:
            ValueError: the file is of another run.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as data:
                found = {name: data[name] for name in data.files}
            run = str(found.pop("run"))
        except Exception as error:  # the archive's own checks find a changed byte, and say so in many ways
            warnings.warn(f"checkpoint {str(self.path)!r} is damaged ({error}): it is computed anew", stacklevel=3)
            return None
        if run != self.run:
            raise ValueError(f"checkpoint={str(self.path)!r} is of another run: give another name or delete it")
        return found

    def save(self, **arrays: np.ndarray | float | str) -> None:
        """Replace the file by these arrays."""
        with replacing(self.path) as file:
            np.savez(file, run=self.run, **arrays)  # type: ignore[arg-type]  # taken for its flag allow_pickle

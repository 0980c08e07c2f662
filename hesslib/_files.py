"""Files that are there whole or not at all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

STALE = 3600  # seconds after which an unfinished file is taken for what a killed run left


class StorageError(OSError):
    """A file could not be written; the message says which and why."""

    def _render_traceback_(self) -> list[str]:  # Jupyter shows the message, not the way to it
        return [f"StorageError: {self}"]


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO]:
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

import os
import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def memory_path():
    """A folder in memory where there is one: on a disk each of the many renames waits for it."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() and os.access(shared, os.W_OK) else None))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

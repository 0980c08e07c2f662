"""No network for the processes that a test starts."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def environment(log, **changes):
    """The environment of a process without network; hosts it asks for appear in the file ``log``."""
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    path = os.pathsep.join([str(FOLDER), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "OFFLINE_LOG": str(log), **changes}

"""Many settings computed on this machine's processes or on a Dask cluster, each failure its own setting's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from .._checks import whole
from .._progress import bar
from .parameters import ParameterError

KILLED = "the process that ran it was killed three times"


def cores(otherwise: int | None = None) -> int:
    """Cores to compute on, told by OMP_NUM_THREADS; without it ``otherwise``, or all."""
    return int(os.environ.get("OMP_NUM_THREADS") or otherwise or os.cpu_count() or 1)


def compute(
    cells: Mapping[Hashable, Any],
    function: Callable[[Any], Any],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    desc: str,
    done: int = 0,
) -> Iterator[tuple[Hashable, Any, str]]:
    """Call ``function(cell)`` for every cell, and yield key, value and error message as they come.

    A call that raises costs its own cell: the value is None and the message says what it raised, as it does when the
    process that computes it is killed three times. A message is empty where there was no error.

    Args:
        cells: what to compute, by keys of the caller's.
        function: what computes one; with several processes it travels to them.
        jobs: cells at a time, the cores of this machine divided between them; with one, they are computed in this
            process.
        scheduler: address of a Dask scheduler, whose workers take the cells instead.
        desc, done: text of the bar, and how many cells beside these it shows as done.

    Raises:
        ParameterError: no Dask, or no scheduler at the address.
        ValueError: ``jobs`` is not a whole number of at least 1.
    """
    whole(1, jobs=jobs)
    missing = dict(cells)
    with _workers(scheduler, jobs) as parallel, bar(desc=desc, total=len(cells) + done, initial=done) as shown:
        idle = 0
        while missing and idle < 3:
            before = len(missing)
            with contextlib.suppress(TerminatedWorkerError):
                for key, value, message in parallel(delayed(_attempt)(function, *item) for item in [*missing.items()]):
                    yield key, value, message
                    del missing[key]
                    shown.update(1)
            idle = 0 if len(missing) < before else idle + 1
    for key in missing:
        yield key, None, KILLED


def _attempt(function: Callable[[Any], Any], key: Hashable, cell: Any) -> tuple[Hashable, Any, str]:
    try:
        return key, function(cell), ""
    except Exception as error:
        return key, None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


@contextlib.contextmanager
def _workers(scheduler: str | None, jobs: int) -> Iterator[Parallel]:
    """A joblib ``Parallel`` on this machine's processes or on a cluster's, that yields results as they come."""
    if scheduler is None:
        with parallel_config("loky", inner_max_num_threads=max(1, cores() // jobs)):
            parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        yield parallel
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ParameterError(f"scheduler = {scheduler!r} needs Dask: pip install -e '.[cluster]'") from error
    try:
        client = Client(scheduler, timeout=20, set_as_default=True)
    except (OSError, ValueError) as error:
        raise ParameterError(f"scheduler = {scheduler!r}: no Dask scheduler answers there ({error})") from error
    with client:
        # a worker's death is not the fault of its cell: try it elsewhere
        client.run_on_scheduler(_forgive)
        with parallel_config("dask", wait_for_workers_timeout=600):
            yield Parallel(n_jobs=-1, return_as="generator_unordered", batch_size=1, pre_dispatch="all")


def _forgive(dask_scheduler) -> None:
    dask_scheduler.allowed_failures = 10**6

"""The built book, a browser, and JupyterLab, for the tests that look at pages."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading

import pytest

from hesslib.book.paths import ROOT


def build(source, out):
    """How the build of a book ended, warnings as errors, and the folder of its pages."""
    program = shutil.which("jupyter-book", path=sys.executable.rpartition("/")[0])
    command = [program, "build", str(source), "--path-output", str(out), "-W", "-n", "--keep-going"]
    return subprocess.run(command, capture_output=True, text=True, timeout=600), out / "_build" / "html"


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The book, built from the committed outputs with warnings as errors."""
    done, pages = build(ROOT, tmp_path_factory.mktemp("book"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return pages


@pytest.fixture(scope="session", params=["file", "http"])
def site(request, html):
    """Where the pages can be opened: as files, and from a server."""
    if request.param == "file":
        yield html.as_uri()
        return
    handler = functools.partial(Quiet, directory=html)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not write a line for each request."""

    def log_message(self, *arguments):
        pass

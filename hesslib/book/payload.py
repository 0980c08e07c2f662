"""What a page shows of a figure and no notebook viewer does: its HTML and its numbers, packed beside the notebook.

A cell keeps the picture, the alt text and a hash of what was taken out, so a pack of another run is noticed.
The standard library alone: the HTML of the book is built without the rest of the package.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

PAGE = "application/vnd.hesslib.page"  # a figure's HTML, under a name at which every viewer takes the PNG instead
NUMBERS = "text/csv"
DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever they are packed


class PackError(ValueError):
    """The figures of a notebook are not where they belong; the message says which and why."""


class Payload(NamedTuple):
    """A figure's HTML and its numbers as CSV."""

    html: str
    csv: str

    def digest(self) -> str:
        """What ties a cell to its payload."""
        return hashlib.sha256("\0".join(self).encode()).hexdigest()[:12]


def name_of(output: Any) -> str | None:
    """The name of the figure that an output shows, if it shows one."""
    return output.get("metadata", {}).get("hesslib", {}).get("figure")


def pack_path(notebook: Path) -> Path:
    """Where the payloads of a notebook lie."""
    return notebook.parent / "figures" / f"{notebook.stem}.zip"


def take_out(cells: list[Any]) -> dict[str, Payload]:
    """Take the payloads out of cells; returns them by the figures' names."""
    taken = {}
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PAGE in data and NUMBERS in data:
                payload = Payload("".join(data.pop(PAGE)), "".join(data.pop(NUMBERS)))
                taken[name_of(output)] = payload
                output["metadata"]["packed"] = payload.digest()
    return taken


def write(file: IO[bytes], payloads: dict[str, Payload]) -> None:
    """Pack payloads, in the same bytes for the same payloads."""
    with zipfile.ZipFile(file, "w") as pack:
        for name, payload in sorted(payloads.items()):
            for part, text in payload._asdict().items():
                member = zipfile.ZipInfo(f"{name}.{part}", DATE)
                member.create_system = 3  # as on Unix, on every system
                pack.writestr(member, text.encode(), zipfile.ZIP_DEFLATED, 9)


def unpack(path: Path, digests: dict[str, str]) -> dict[str, Payload]:
    """The payloads with these digests.

    Raises:
        PackError: the pack is missing, damaged, or of another run.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as pack:
            for name in digests:
                found[name] = Payload(*(pack.read(f"{name}.{part}").decode() for part in Payload._fields))
    except FileNotFoundError as error:
        raise PackError(f"{path} is missing") from error
    except KeyError as error:
        raise PackError(f"{path} lacks {name}, it is of another run than the notebook") from error
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise PackError(f"{path} is damaged: {error}") from error
    other = [name for name, digest in digests.items() if found[name].digest() != digest]
    if other:
        raise PackError(f"{path} holds {', '.join(other)} of another run than the notebook")
    return found


def read(notebook: Path, cells: list[Any]) -> dict[str, tuple[int, Payload]]:
    """The figures of a notebook: name to the index of the cell that made it and its payload.

    A notebook executed by papermill or in Jupyter itself holds its payloads still and needs no pack.

    Raises:
        PackError: as in ``unpack``.
    """
    places, digests, found = {}, {}, {}
    for i, cell in enumerate(cells):
        for output in cell.get("outputs", []):
            data, metadata = output.get("data", {}), output.get("metadata", {})
            name = name_of(output)
            if "packed" in metadata:
                places[name], digests[name] = i, metadata["packed"]
            elif NUMBERS in data:
                page = data[PAGE] if PAGE in data else data["text/html"]
                places[name], found[name] = i, Payload("".join(page), "".join(data[NUMBERS]))
    found |= unpack(pack_path(notebook), digests) if digests else {}
    return {name: (i, found[name]) for name, i in places.items()}


def put_back(cells: list[Any], figures: dict[str, tuple[int, Payload]]) -> None:
    """Give cells back what was taken out of them, as in a notebook that was not packed."""
    for output in (o for cell in cells for o in cell.get("outputs", [])):
        if name_of(output) in figures and output.get("metadata", {}).pop("packed", None):
            output["data"] |= dict(zip((PAGE, NUMBERS), figures[name_of(output)][1], strict=True))

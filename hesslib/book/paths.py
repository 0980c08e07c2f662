"""Where the parts of the book lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

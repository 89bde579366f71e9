"""Fixtures of the tests that drive pages in a browser."""

from chromium import chromium as chromium  # noqa: PLC0414 # handed on
from chromium import page as page  # noqa: PLC0414 # handed on

"""The version of the package, from its metadata."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cockpit-source")
except PackageNotFoundError:
    __version__ = "0"

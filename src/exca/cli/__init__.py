"""The command ``exca``: see and steer what is in a cache folder."""

from .commandline import main as main

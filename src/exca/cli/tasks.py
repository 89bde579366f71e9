"""Which tasks a command line means."""

import argparse

from ..catalog.select import Selection


def selection(options: argparse.Namespace) -> Selection:
    """What the common arguments ask for."""
    return Selection(
        options.names,
        options.folder,
        options.where,
        options.state,
        options.since,
        options.user,
        options.sweep,
        acts=hasattr(options, "yes"),
    )

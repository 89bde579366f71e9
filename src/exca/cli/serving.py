"""The command ui: what is in a folder as a page that keeps itself up to date."""

import argparse
import functools
import os


def ui(options: argparse.Namespace) -> int:
    """Serve the page of a folder until Ctrl-C."""
    from ..pages.serving import serve

    if not os.path.isdir(options.folder):
        raise NotADirectoryError(f"there is no folder {options.folder}: check the path")
    if options.uds is not None and options.port is not None:
        raise ValueError("a server listens at a port or at a path: give --port or --uds")
    serve(
        os.path.abspath(options.folder),
        port=options.port,
        uds=options.uds,
        root_path=options.root_path,
        hosts=options.allow_host,
        actions=options.allow_actions,
        say=functools.partial(print, flush=True),
    )
    return 0

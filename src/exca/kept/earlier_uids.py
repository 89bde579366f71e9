"""From folders named by the first releases to those that are found today.

# kept for dependants: caches of releases before 0.4, whose uids had another text
"""

import logging
import os
import warnings
from pathlib import Path

from ..confdict import ConfDict
from ..identity.uid import earlier_uid

logger: logging.Logger = logging.getLogger("exca")


def update_uids(folder: str | Path, dryrun: bool = True) -> None:
    """Rename the uid folders of the first releases below a folder, so that their results are found again.

    A folder is renamed where its ``uid.yaml`` has the uid that those releases gave it. One whose new name is taken
    stays as it is. Each renaming is logged.

    Parameters
    ----------
    folder: str or Path
        a cache folder
    dryrun: bool
        only log what would be renamed

    Raises
    ------
    FileNotFoundError
        if there is no such folder
    """
    warnings.warn(
        "update_uids is deprecated: folders of releases since 0.4 are found as they are",
        DeprecationWarning,
        stacklevel=2,
    )
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with results to rename")
    for place in [Path(root) for root, _, files in os.walk(folder) if "uid.yaml" in files]:
        _update(place, dryrun)


def _update(place: Path, dryrun: bool) -> None:
    try:
        config = ConfDict.from_yaml(place / "uid.yaml")
        renamed = place.with_name(config.to_uid()) if earlier_uid(config) == place.name else place
    except Exception as error:  # whatever the file holds, the others can still be renamed
        logger.warning("Skipping %s: its uid.yaml cannot be read (%s)", place, error)
        return
    if renamed == place:
        return
    if os.path.lexists(renamed):
        logger.warning("Not renaming %s: %s is there already", place, renamed)
        return
    logger.warning("Renaming %s to %s%s", place, renamed.name, " (dry run)" if dryrun else "")
    if not dryrun:
        place.rename(renamed)

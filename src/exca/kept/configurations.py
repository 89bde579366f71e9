"""What the published releases held about exporting configurations."""

import typing as tp
from pathlib import Path

import pydantic

from .. import identity

DISCRIMINATOR_FIELD = "#infra#pydantic#discriminator"
EXCLUDE_FIELD = "_exclude_from_cls_uid"
FORCE_INCLUDED = "force_included"
UID_EXCLUDED = "excluded"


class DiscrimStatus:
    """What a model knew of the discriminated union it belongs to; today the annotation of its field tells."""

    NONE = "#NONE"
    SUBCHECKED = "#SUBCHECKED"

    @staticmethod
    def is_discriminator(discrim: str) -> bool:
        """Tell whether a text is the name of a discriminator, and none of the marks."""
        return discrim not in (DiscrimStatus.NONE, DiscrimStatus.SUBCHECKED)


def copy_discriminated_status(ref: tp.Any, new: tp.Any) -> None:
    """Do nothing: the annotation of its field tells whether a model belongs to a discriminated union."""


def to_dict(
    model: pydantic.BaseModel, uid: bool = False, exclude_defaults: bool = False
) -> dict[str, tp.Any]:
    """Export the configuration of a model, in JSON types.

    Parameters
    ----------
    model: pydantic.BaseModel
        the model
    uid: bool
        keep only what makes its uid
    exclude_defaults: bool
        leave out what equals its default
    """
    return identity.export(model, uid=uid, exclude_defaults=exclude_defaults)


def recursive_freeze(obj: tp.Any) -> None:
    """Have the models in an object refuse changes of their fields.

    Parameters
    ----------
    obj: Any
        a model, or a list, tuple, set or dict of them
    """
    if isinstance(obj, pydantic.BaseModel):
        identity.freeze(obj)
    elif isinstance(obj, dict):
        for value in obj.values():
            recursive_freeze(value)
    elif isinstance(obj, list | tuple | set | frozenset):
        for value in obj:
            recursive_freeze(value)


class ConfigDump:
    """The configuration files of a model, to be checked in a folder or written into it.

    Parameters
    ----------
    model: pydantic.BaseModel
        the model
    uid, full_uid, config: Any, optional
        what the files hold, where it is not what the model exports
    """

    def __init__(
        self, model: tp.Any, *, uid: tp.Any = None, full_uid: tp.Any = None, config: tp.Any = None
    ) -> None:
        self.model = model
        self.uid: dict[str, tp.Any] = to_dict(model, uid=True, exclude_defaults=True) if uid is None else uid
        self.full_uid: dict[str, tp.Any] = to_dict(model, uid=True) if full_uid is None else full_uid
        self.config: dict[str, tp.Any] = to_dict(model) if config is None else config

    def check_and_write(self, folder: Path, *, write: bool = True) -> None:
        """Check the files in a folder, and write those that are missing.

        Parameters
        ----------
        folder: Path
            the folder
        write: bool
            write what is missing; otherwise nothing is written

        Raises
        ------
        RuntimeError
            if the folder holds another configuration, or a default changed
        """
        from ..identity import configfolder

        configfolder.ensure_config_folder(
            Path(folder),
            uid_config=self.uid,
            full_uid_config=lambda: self.full_uid,
            config=lambda: (self.config, {}),
            create=write,
        )

"""Names that users of joblib and submitit know, and what to write in their place here."""

import typing as tp


def attribute(obj: object, name: str, library: str, known: tp.Mapping[str, str]) -> tp.Any:
    """Raise the error for an attribute that an object does not have, with the remedy for a name of another library.

    Parameters
    ----------
    obj: object
        what was asked
    name: str
        the attribute
    library: str
        the library whose names are known
    known: mapping
        from each name of that library to what to write here

    Raises
    ------
    AttributeError
        in any case; that of a property where the object has one of this name
    """
    try:
        return object.__getattribute__(obj, name)  # a property that failed does so again, with its own error
    except AttributeError as e:
        if name not in known or hasattr(type(obj), name):
            raise
        text = f"{e}, which is a name of {library}: {known[name]}"
        raise AttributeError(text, name=name, obj=obj) from None

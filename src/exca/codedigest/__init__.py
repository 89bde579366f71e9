"""Digests of code: whether a result was computed by the code that would compute it now.

It knows nothing of infras: it is given a class and a function of it. `digest_of` gives a `CodeDigest`, whose text is
compared; `write_code` and `read_code` keep what it was made of beside the results; `diff` shows what has changed.
All but what finds a digest again is loaded when first touched.
"""

import typing as tp

from .digest import CodeDigest as CodeDigest
from .digest import comparable as comparable
from .finding import digest_of as digest_of

if tp.TYPE_CHECKING:
    from .record import Content as Content
    from .record import changed_parts as changed_parts
    from .record import diff as diff
    from .record import read_code as read_code
    from .record import write_code as write_code


def __getattr__(name: str) -> tp.Any:
    if name not in ("Content", "changed_parts", "diff", "read_code", "write_code"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import record

    return getattr(record, name)

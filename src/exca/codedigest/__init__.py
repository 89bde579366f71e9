"""Digests of code: whether a result was computed by the code that would compute it now.

It knows nothing of infras: it is given a class and a function of it. `digest_of` gives a `CodeDigest`, whose text is
compared; `write_code` and `read_code` keep what it was made of beside the results; `diff` shows what has changed.
"""

from .digests import digest_of as digest_of
from .record import CodeDigest as CodeDigest
from .record import Content as Content
from .record import changed_parts as changed_parts
from .record import comparable as comparable
from .record import diff as diff
from .record import read_code as read_code
from .record import write_code as write_code

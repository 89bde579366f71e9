"""The digest of the code of a method, as it is compared."""

import typing as tp
from collections.abc import Callable

if tp.TYPE_CHECKING:
    from .record import Content


SCHEME: tp.Final = 1  # as `normal.SCHEME`, which is too heavy to import for a number


class CodeDigest:
    """The digest of the code of a method; what it was made of is read when it is asked for.

    Attributes
    ----------
    digest
        text to compare; see `comparable`
    method
        name of the part at which it starts
    """

    __slots__ = ("_content", "_load", "digest", "method")

    def __init__(
        self,
        digest: str,
        method: str,
        load: "Callable[[], Content] | None" = None,
        content: "Content | None" = None,
    ) -> None:
        self.digest: str = digest
        self.method: str = method
        self._load: Callable[[], Content] | None = load
        self._content: Content | None = content

    @property
    def content(self) -> "Content":
        """What the digest was made of."""
        if self._content is None:
            assert self._load is not None
            self._content = self._load()
        return self._content

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, CodeDigest) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"CodeDigest({self.digest!r}, {self.method!r})"

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return CodeDigest, (self.digest, self.method, None, self.content)


def comparable(one: str, other: str) -> bool:
    """Whether two digests that differ mean that the code differs.

    Where the source of a part is not found, what is digested is the code as this version of Python compiled it; the
    digest begins with the version, and tells nothing beside one of source, or of another version.
    """
    return tag_of(one) == tag_of(other)


def tag_of(digest: str) -> str:
    """The version of Python that compiled what a digest is of; "" where it is of source."""
    tag, dash, _ = digest.partition("-")
    return tag if dash else ""

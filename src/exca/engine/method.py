"""What the engine knows of an infra."""

import contextvars
import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    from ..claims import FirstClaim
    from ..jobs.backends import Request
    from ..jobs.resources import Resources
    from .code import Code

Status = tp.Literal["not submitted", "running", "completed", "failed"]  # of a task
Kind = tp.Literal["task", "items", "call"]


class Computed(tp.Protocol):
    """What a computation in progress is asked about by the method that it runs (`exca.current`)."""

    obj: tp.Any  # the configuration

    @property
    def uid(self) -> str:
        """The address of the results."""
        ...

    @property
    def folder(self) -> Path:
        """Folder of the results, None where nothing is kept."""
        ...

    def full_config(self) -> dict[str, tp.Any]:
        """All of the configuration, defaults included, in JSON types."""
        ...


# of tests, called before something is computed or submitted
observers: list[tp.Callable[[Computed], None]] = []
# what this thread computes (or what makes it, if asked), its attempt where that is not the claim's, and its kind
running: contextvars.ContextVar[tuple[Computed | tp.Callable[[], Computed], str, Kind] | None] = (
    contextvars.ContextVar("exca_running", default=None)
)


class Method(tp.Protocol):
    """A method of a configuration: what to call, where it runs, and where results go. Travels to jobs."""

    obj: tp.Any  # the configuration
    resources: "Resources"  # what it asks of the machine it runs on

    @property
    def name(self) -> str:
        """Class and method, for messages."""
        ...

    @property
    def family(self) -> str:
        """Module, class, method and version: the address of the results of all configurations."""
        ...

    @property
    def uid(self) -> str:
        """The address of the results of this configuration."""
        ...

    @property
    def title(self) -> str:
        """The same without the module, as a name for its job."""
        ...

    @property
    def config(self) -> dict[str, tp.Any]:
        """What the uid was computed from, once it was."""
        ...

    @property
    def digest(self) -> str | None:
        """The digest of its code, to be compared with that of its results; None where it is not to be."""
        ...

    @property
    def policy(self) -> str:
        """What a result of other code means: "warn", "strict" or "off"."""
        ...

    @property
    def code(self) -> "Code | None":
        """What judges results by the code of the method; None where code is not to be compared."""
        ...

    @property
    def infra_name(self) -> str:
        """The attribute of the configuration that is the infra."""
        ...

    @property
    def mode(self) -> str:
        """Which results that are there count."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether results are kept, on disk or in memory."""
        ...

    @property
    def folder(self) -> Path:
        """Folder of the results of this configuration."""
        ...

    def full_config(self) -> dict[str, tp.Any]:
        """All of the configuration, defaults included, in JSON types."""
        ...

    def class_names(self) -> dict[str, list[str]]:
        """The whole names of the classes of which the address has the bare names, by these."""
        ...

    @property
    def home(self) -> Path:
        """Folder of the results of all configurations."""
        ...

    @property
    def logs(self) -> Path:
        """Folder of a job's logs, with ``%j`` for its id."""
        ...

    def call(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        """Call the undecorated method."""

    def freeze(self) -> None:
        """Have every later change of the configuration refused, or seen by `require_unchanged`."""

    def make_folder(self, first_claim: "FirstClaim | None" = None) -> Path:
        """Make the folder of the results, if there is none, with its configuration and a claim in it."""
        ...

    def require_unchanged(self) -> None:
        """Raise a ChangedConfigError where the configuration is no more what its uid was computed from."""

    def request(
        self,
        calls: list[tp.Callable[[], tp.Any]],
        *,
        max_workers: int,
        resources: "Resources | None" = None,
        name: str = "",
        tag: str = "",
        workdir: Path | None = None,
    ) -> "Request":
        """Make the request for jobs, copying the working directory where it has one that is not copied yet.

        They are named after the method, unless its resources or the caller name them.
        """
        ...

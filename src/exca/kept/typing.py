"""Type variables and aliases that the modules of the published releases held."""

import typing as tp

C = tp.TypeVar("C", bound=tp.Callable[..., tp.Any])
T = tp.TypeVar("T")
X = tp.TypeVar("X")
Y = tp.TypeVar("Y")

ExcludeCallable = tp.Callable[[tp.Any], tp.Iterable[str]]
TaskFunc = tp.Callable[[], tp.Any]
MapFunc = tp.Callable[[tp.Sequence[tp.Any]], tp.Iterator[tp.Any]]
TaskMode = tp.Literal["cached", "retry", "force", "read-only"]
MapMode = tp.Literal["cached", "force", "read-only"]
StepMode = tp.Literal["cached", "force", "read-only", "retry"]
CacheStatus = tp.Literal["success", "error"] | None
LookupStatus = tp.Literal["success", "error", "running"] | None
SUBMITIT_EXECUTORS = ("auto", "local", "slurm", "debug")

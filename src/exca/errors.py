"""The error classes of exca, each deriving from the builtin that a caller would catch anyway."""


class RefusalWarning(UserWarning):
    """What this release refuses was let pass, since it is allowed (``exca.settings``)."""

    code: str = ""


class UncachedOverrideWarning(UserWarning):
    """A child class overrides a method with an infra by one without, which is called as a plain method."""


class GoneFieldWarning(UserWarning):
    """Results were computed with a field that the configuration no longer has."""


class InfraError(RuntimeError):
    """An infra is placed, applied or used in a way that cannot work."""

    code: str = ""  # of a refusal that can be allowed (``exca.settings``)


class ReadOnlyError(RuntimeError):
    """A result was asked for in read-only mode and is not in the cache."""


class JobError(RuntimeError):
    """A job ended without a result: killed, timed out, out of memory, or its error could not be carried."""


class EarlierTaskError(JobError):
    """A task was not computed, since one that it was to come after has failed, or has no result."""


class UnknownClusterError(LookupError, ValueError):
    """A cluster has a name that no backend has."""


class SubmissionError(RuntimeError):
    """A computation could not be handed to the backend.

    ``passing`` tells that the backend took none of it, or can't tell, and may well take the very same in a while.
    """

    passing: bool = False


class SchedulerError(TimeoutError):
    """The scheduler gave no answer for so long that what became of a job is unknown; nothing was written about it."""


class ResultError(TypeError):
    """A result cannot be stored."""


class WorkDirError(RuntimeError):
    """A working directory has nothing to copy, or cannot be copied as it is."""


class UncommittedChangesError(WorkDirError):
    """Code that was to be recorded by its commit holds changes that no commit holds."""


class IdentityError(RuntimeError):
    """A configuration has no trustworthy uid as it is written."""

    culprit: object = None  # what is at fault, by which the field that holds it is found
    code: str = ""  # of a refusal that can be allowed (``exca.settings``)


class ExtraFieldsError(IdentityError):
    """A model does not say what becomes of unknown fields, so that a typing error would go unseen."""


class BareModelError(IdentityError):
    """A plain `pydantic.BaseModel`, which has no fields, is where a configuration was meant."""


class DiscriminatorError(IdentityError):
    """Nothing tells which of several models was meant."""


class LookAlikeError(IdentityError):
    """A field holds a model of a child class that nothing in the uid tells from the class that it is declared with."""


class OtherClassError(RuntimeError):
    """What is cached is of another class of the same bare name, with other code."""


class ExportError(ValueError):
    """A value has no form in a configuration."""

    culprit: object = None


class ContentError(TypeError):
    """An argument of a function holds nothing by which its result could be found again."""


class MaskedSecretError(ValueError):
    """An object holds the mask that stands for a secret in ``config.yaml``, and was to be computed with."""


class ExclusionError(ValueError, TypeError):
    """What a model excludes from its uid is no collection of names of its fields."""


class FrozenError(RuntimeError):
    """A field was set on an object whose uid is already in use."""


class ClaimLostError(RuntimeError):
    """Another process took over what this process, or its job, was to compute."""


class ReentrantClaimError(RuntimeError):
    """A computation asked for its own result while computing it."""


class UntrustedFileError(PermissionError):
    """A pickled file belongs to a user whose code this one has not agreed to run."""


class OddFileError(OSError):
    """There is a folder, a FIFO or a device where a file should be, or a file larger than any of its kind."""


class DamagedEntryError(ValueError):
    """What a cache entry names is not there whole: missing, of another size, or with another checksum."""


class StoredValueError(RuntimeError):
    """A stored value is whole, but cannot be made again: its class has changed, or its handler failed."""


class HandlerError(TypeError):
    """No storage handler takes a value, or a handler is not what it must be."""


class UnknownHandlerError(LookupError):
    """A cache entry names a storage handler that is not registered."""


class MissingPackageError(ImportError):
    """A storage handler needs a package that is not installed."""


class CacheWriteError(OSError):
    """A cache entry could not be written: the disk is full, or the folder cannot be written to."""


class InconsistentConfigError(RuntimeError):
    """A folder holds another configuration than the one it is named after."""


class ChangedDefaultError(RuntimeError):
    """A default changed under results that were computed with the old one."""


class FolderNotWritableError(PermissionError):
    """A cache folder cannot be written to."""


class UnknownVersionError(RuntimeError):
    """A file of a cache has a format of a later release, so it is left alone and nothing is computed over it."""


class NotComputingError(RuntimeError, LookupError):
    """What is computed was asked for where nothing is."""


class CodeChangedWarning(UserWarning):
    """A cached result was computed by other code than would compute it now."""


class NothingToDeleteError(FileNotFoundError, ValueError):
    """A file that was to be deleted is not there."""


class AmbiguousItemError(ValueError):
    """Two different items of one call have the same uid."""


class ChangedConfigError(RuntimeError):
    """A configuration was changed, in a list or dict of it, after its uid was in use."""


class BatchProtocolError(RuntimeError):
    """A batch of a step yielded too few or too many results, which cannot be matched to its items."""


class ResolutionError(RuntimeError):
    """A step resolves to itself, directly or through others."""


class ModeError(ValueError):
    """The modes of a pipeline contradict each other."""


class NoResultError(RuntimeError, LookupError):
    """A result was asked for that is not in the cache, without leave to compute it."""


class LostInputError(RuntimeError):
    """The result of an earlier stage was damaged or removed just when a later one needed it."""


class FilterError(ValueError):
    """A filter over the tasks of a folder cannot be read."""


class NoSuchTaskError(LookupError):
    """A name on the command line stands for no task, or for several where one is asked for."""


class OverrideError(ValueError):
    """An override on the command line, or a configuration file, cannot be read or does not fit."""


class TargetError(ValueError):
    """What is to be run cannot be imported, or is nothing that can be run."""


class SweepError(ValueError):
    """A sweep cannot be read, has a point that is not valid, or bears the name of another."""


class SearchError(ValueError):
    """A search cannot be read, its space does not define what to draw, or its results are not numbers."""


class ArchiveError(ValueError):
    """An archive of results cannot be read, is damaged, or leads out of the folder."""

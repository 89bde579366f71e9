"""Names that the published releases had and that nothing here uses: kept for packages that import them.

A module whose name they were importable from asks `lookup` for what it does not hold itself. What they do is done by
the parts that took their place; those that stand for something that no longer exists say so when they are used.
"""

import importlib
import typing as tp

__all__ = ["lookup"]

# by module: the name, and where it is now (":" before the attribute, where it has another name there)
_NAMES: dict[str, dict[str, str]] = {
    "exca.base": {
        "BaseInfraMethod": "kept.infras",
        "C": "kept.typing",
        "ConfDict": "confdict",
        "ExcludeCallable": "kept.typing",
        "InfraMethod": "kept.infras",
        "Sentinel": "kept.infras",
        "WorkDir": "workdir",
        "model_with_infra_validator_after": "kept.infras",
        "model_with_infra_validator_before": "kept.infras",
    },
    "exca.cachedict": {"DumpInfo": "kept.cachedict"},
    "exca.cachedict.core": {
        "DumpInfo": "kept.cachedict",
        "JsonlReader": "kept.cachedict",
        "LAST_USE_NAME": "kept.cachedict",
    },
    "exca.cachedict.dumpcontext": {"string_uid": "kept.cachedict"},
    "exca.cachedict.handlers": {
        "ContiguousMemmap": "cachedict.contiguous",
        "DumpContext": "cachedict.dumpcontext",
        "KeyFileHandler": "kept.cachedict",
        "is_torch_view": "kept.cachedict",
    },
    "exca.cachedict.registry": {
        "AdvisoryRegistry": "kept.registries",
        "QUERY_BATCH_SIZE": "kept.registries",
        "T": "kept.typing",
        "select_in_chunks": "kept.registries",
    },
    "exca.confdict": {"ConfDictOps": "identity.nesting:Ops", "UNSAFE_TABLE": "kept.cachedict"},
    "exca.helpers": {"ConfDict": "confdict", "update_uids": "kept.earlier_uids"},
    "exca.map": {
        "C": "kept.typing",
        "CacheDict": "cachedict",
        "CachedMethod": "kept.infras",
        "MapFunc": "kept.typing",
        "MapInfraMethod": "kept.infras",
        "Mode": "kept.typing:MapMode",
        "X": "kept.typing",
        "Y": "kept.typing",
    },
    "exca.slurm": {"SUBMITIT_EXECUTORS": "kept.typing", "WorkDir": "workdir"},
    "exca.steps.backends": {
        "CacheDispatch": "kept.steps",
        "CacheStatus": "kept.typing",
        "LookupHandle": "steps.inquiry",
        "LookupStatus": "kept.typing",
        "StepPaths": "steps.inquiry",
        "Submission": "kept.steps",
        "SubmissionSource": "kept.steps",
        "WriteTask": "kept.steps",
    },
    "exca.steps.base": {
        "NoValue": "kept.step_identity",
        "Runner": "kept.steps",
    },
    "exca.steps.conftest": dict.fromkeys(
        ("Add", "AddWithTransforms", "Mult", "PureResolver", "RandomGenerator", "RecordingStep"),
        "kept.recording_steps",  # made when asked for: others may have steps of such names
    ),
    "exca.task": {
        "C": "kept.typing",
        "CachedMethod": "kept.infras",
        "LocalJob": "kept.infras",
        "Mode": "kept.typing:TaskMode",
        "SubmitInfra": "submit",
        "TaskFunc": "kept.typing",
        "X": "kept.typing",
    },
    "exca.utils": {
        "ConfigDump": "kept.configurations",
        "DISCRIMINATOR_FIELD": "kept.configurations",
        "DiscrimStatus": "kept.configurations",
        "EXCLUDE_FIELD": "kept.configurations",
        "FORCE_INCLUDED": "kept.configurations",
        "UID_EXCLUDED": "kept.configurations",
        "best_effort_utime": "kept.folders",
        "copy_discriminated_status": "kept.configurations",
        "make_pool_executor": "kept.folders",
        "recursive_freeze": "kept.configurations",
        "setup_shared_folder": "kept.folders",
        "to_dict": "kept.configurations",
        "widen_to_umask": "kept.folders",
    },
    "exca.workdir": {"Ignore": "kept.folders", "chdir": "kept.folders"},
}


def lookup(module: str, name: str) -> tp.Any:
    """Find a name that a module had in a published release.

    Parameters
    ----------
    module: str
        full name of the module that was asked
    name: str
        what it was asked for

    Raises
    ------
    AttributeError
        if no release had it there
    """
    place = _NAMES.get(module, {}).get(name)
    if place is None:
        if name == "logger" and module in _LOGGERS:
            import logging

            return logging.getLogger(module)
        from .queued import answer

        return answer(module, name)
    home, _, attribute = place.partition(":")
    return getattr(importlib.import_module(f"exca.{home}"), attribute or name)


_LOGGERS = {
    "exca.base",
    "exca.cachedict.core",
    "exca.cachedict.dumpcontext",
    "exca.cachedict.registry",
    "exca.confdict",
    "exca.helpers",
    "exca.map",
    "exca.slurm",
    "exca.steps.backends",
    "exca.steps.base",
    "exca.task",
    "exca.utils",
    "exca.workdir",
}

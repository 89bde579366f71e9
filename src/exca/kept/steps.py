"""Parts of how earlier releases ran steps. Nothing took their place one by one: using them says what did."""

import typing as tp


def _gone(name: str, advice: str) -> type:
    """Make a class that can be imported and named in annotations; making an object of it says what to do instead."""

    def refuse(self: object, *args: tp.Any, **kwargs: tp.Any) -> None:
        raise NotImplementedError(f"{name} was part of how exca 0.6 ran steps and is gone: {advice}")

    return type(name, (), {"__init__": refuse, "__module__": __name__, "__doc__": f"Gone: {advice}."})


_RUN = "use step.run(value) or step.run_many(values), which claim, submit and store by themselves"
_JOBS = "use step.lookup(value).job()"

CacheDispatch: type = _gone("CacheDispatch", _RUN)
ErrorRegistry: type = _gone(
    "ErrorRegistry", "step.lookup(value).status and .result() tell of errors, clear_cache() removes them"
)
JobInfo: type = _gone("JobInfo", _JOBS)
JobRegistry: type = _gone("JobRegistry", _JOBS)
Runner: type = _gone("Runner", _RUN)
Submission: type = _gone("Submission", _JOBS)
SubmissionSource: type = _gone("SubmissionSource", _JOBS)
WriteTask: type = _gone("WriteTask", _RUN)

"""One row per configuration: what its files tell of it."""

import json
import re
import typing as tp

STATES = ("completed", "failed", "running", "interrupted", "stored", "damaged", "unknown", "empty")
_HASH = re.compile(r"(?:^|-)([0-9a-f]{8,32})$")


class Row:
    """What is known of one configuration of a method.

    Parameters
    ----------
    method: str
        folder of the method, within the folder that was listed: ``train.Train.loss,1``
    uid: str
        its own folder in that one
    state: str
        ``completed`` or ``failed`` (a task's outcome), ``running``, ``interrupted`` (what computed it has died),
        ``stored`` (items of a map or of a step, or the outcome of a task of an earlier release, which only a pickle
        tells), ``damaged``, ``unknown`` (of a later release), or ``empty``
    when: float
        when that was written, in seconds since the epoch
    config: dict
        what its uid was computed from, by dotted name
    facts: dict
        what else is known: ``seconds``, ``started``, ``finished``, ``host``, ``user``, ``job_id``, ``cluster``,
        ``value`` (a result that is one number or text), ``error``, ``items`` (how many a map has)...
    """

    __slots__ = (
        "_full",
        "_parts",
        "_text",
        "changed",
        "inode",
        "method",
        "nested",
        "state",
        "top",
        "uid",
        "when",
    )

    def __init__(
        self, method: str, uid: str, state: str = "empty", when: float = 0.0, text: bytes = b""
    ) -> None:
        self.method: str = method
        self.uid: str = uid
        self.state: str = state
        self.when: float = when
        self._full: dict[str, tp.Any] | None = None
        self.top: str = ""  # the folder that was listed
        self.nested: bool = False  # whether stages of a pipeline are below it
        self.changed: int = 0  # time of its folder in ns when it was looked at, and its inode
        self.inode: int = 0
        self._text = text  # of its parts, which are parsed when first asked for
        self._parts: tuple[dict[str, tp.Any], dict[str, tp.Any]] | None = None if text else ({}, {})

    def _parsed(self) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
        if self._parts is None:
            import orjson

            config, facts = orjson.loads(self._text)
            self._parts = config, facts
        return self._parts

    @property
    def config(self) -> dict[str, tp.Any]:
        """What its uid was computed from, by dotted name."""
        return self._parsed()[0]

    @property
    def facts(self) -> dict[str, tp.Any]:
        """What else is known of it, by name."""
        return self._parsed()[1]

    @property
    def full(self) -> dict[str, tp.Any]:
        """The configuration with its defaults, as ``full-uid.yaml`` has it; read when first asked for."""
        if self._full is None:
            from pathlib import Path

            from ..identity import configfolder

            try:
                config, _ = configfolder.load(Path(self.folder) / configfolder.FULL)
                self._full = {**flat(config), **self.config} if isinstance(config, dict) else self.config
            except Exception:  # of whatever reads YAML that may be anything
                self._full = self.config
        return self._full

    @property
    def text(self) -> bytes:
        """Configuration and facts as JSON."""
        if not self._text:
            import orjson

            self._text = orjson.dumps(self._parts, default=str, option=orjson.OPT_NON_STR_KEYS)
        return self._text

    @property
    def address(self) -> str:
        """Its folder, within the one that was listed."""
        return f"{self.method}/{self.uid}" if self.method else self.uid

    @property
    def folder(self) -> str:
        """Its folder, with the path of the one that was listed."""
        return f"{self.top}/{self.address}" if self.top else self.address

    @property
    def id(self) -> str:
        """The hash at the end of its uid, by which it can be named; its whole uid where there is none."""
        found = _HASH.search(self.uid)
        return found[1] if found else self.uid

    def value(self, name: str) -> tp.Any:
        """What a name stands for: a field of the configuration, be it at its default, or with ``_`` what else is known.

        Raises KeyError where there is none.
        """
        if name in self.config:
            return self.config[name]
        if name == "_state":
            return self.state
        if name == "_id":
            return self.id
        if name == "_method":
            return self.method
        if name.startswith("_") and name[1:] in self.facts:
            return self.facts[name[1:]]
        return self.full[name]

    def to_json(self) -> dict[str, tp.Any]:
        """All of it, as JSON types."""
        return {
            "id": self.id,
            "method": self.method,
            "uid": self.uid,
            "state": self.state,
            "config": self.config,
            **self.facts,
        }


def flat(config: tp.Any, prefix: str = "") -> dict[str, tp.Any]:
    """A configuration by dotted names; lists and empty dicts are values."""
    if not isinstance(config, dict):
        return {prefix.removesuffix(".") or "value": config}
    found: dict[str, tp.Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def text_of(value: tp.Any) -> str:
    """A value in one line, for people: nothing in it moves a terminal's cursor."""
    if isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, str):
        text = value
    elif value is None:
        text = "-"
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")

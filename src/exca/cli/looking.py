"""The commands that only read: ls, show, diff, logs, table, du, verify."""

import argparse
import collections
import os
import sys
import typing as tp
from collections.abc import Sequence

from ..catalog.rows import Row, ago, amount, differing, flat, text_of
from ..catalog.select import one
from ..errors import NoSuchTaskError
from .commandline import FAILED
from .output import Column, Output, as_csv, as_json, as_markdown, as_text, config_column, shortened
from .tasks import selection

if tp.TYPE_CHECKING:
    import pandas as pd

_LONGEST = 1000  # characters of a value that is shown in full; --json shows all
_FACTS = ("seconds", "value", "items", "host")


def ls(options: argparse.Namespace) -> int:
    """List tasks and caches, the latest of each method."""
    rows = selection(options).rows()
    rows = _sorted(rows, options.sort, reverse=options.reverse)
    _tell_unknown(rows, options)
    if options.format is not None:
        print(_formatted(options.format, rows, columns_of(rows, options, everything=True)))
        return 0
    out = Output()
    by_method = collections.defaultdict(list)
    for row in rows:
        by_method[row.method].append(row)
    lines: list[str] = []
    for method, group in by_method.items():
        shown = group if options.all or options.sort else sorted(group, key=lambda row: row.when)
        if not options.all and len(shown) > options.n:
            shown = shown[: options.n] if options.sort else shown[-options.n :]
        shared, _ = _differing(shown)
        said = (
            ", ".join(f"{shortened(name)}={shortened(text_of(value))}" for name, value in shared.items())
            if len(shown) > 1
            else ""
        )
        head = f"{shortened(method or '.', _LONGEST)}   {_counted(group)}"
        if said and not options.all_cols:
            head += f"   all: {said}" if len(shown) == len(group) else f"   all shown: {said}"
        lines.append(head)
        lines += out.table(shown, columns_of(shown, options))
        if len(shown) < len(group):
            lines.append(f"  ...  --all for {len(group) - len(shown)} more")
        lines.append("")
    if not rows:
        where = ", ".join(options.names) or options.folder
        filters = (options.where, options.state, options.since, options.sweep, options.user)
        lines = [
            f"nothing in {where} fits these filters" if any(filters) else f"nothing is cached in {where}",
            "",
        ]
    out.write(lines[:-1])
    return 0


def _differing(rows: Sequence[Row]) -> tuple[dict[str, tp.Any], list[str]]:
    """What rows share, defaults included, and the names of what differs."""
    shared, names = differing(rows)
    alike = []
    for name in names:
        given = [row.config[name] for row in rows if name in row.config]
        # files with defaults are read only where what is given is one value
        if all(value == given[0] for value in given) and all(row.full.get(name) == given[0] for row in rows):
            alike.append(name)
            shared[name] = given[0]
    return shared, [name for name in names if name not in alike]


def _counted(rows: Sequence[Row]) -> str:
    states = collections.Counter(row.state for row in rows)
    if len(rows) == 1:
        return f"1 {'cache' if rows[0].state == 'stored' else 'task'}"
    return f"{len(rows)} tasks: " + ", ".join(f"{count} {state}" for state, count in states.most_common())


def _sorted(rows: list[Row], name: str | None, *, reverse: bool) -> list[Row]:
    if not name:
        return rows[::-1] if reverse else rows

    def key(row: Row) -> tuple[bool, str, tp.Any]:
        try:
            value = row.value(name)
        except KeyError:
            return (True, "", 0)
        kind = "number" if isinstance(value, (int, float)) else "text"
        return (False, kind, value if kind == "number" else text_of(value))

    there = [row for row in rows if not key(row)[0]]
    return sorted(there, key=key, reverse=reverse) + [row for row in rows if key(row)[0]]


def columns_of(
    rows: Sequence[Row], options: argparse.Namespace | None = None, *, everything: bool = False
) -> list[Column]:
    """The columns of a table: what differs, what is known of the results, and when."""
    wanted = getattr(options, "cols", None)
    if wanted:
        return [_named_column(name) for name in wanted.split(",")]
    shared, names = differing(rows) if everything else _differing(rows)
    if everything or getattr(options, "all_cols", False) or len(rows) == 1:
        names = [*names, *shared]
    columns = [Column("id", lambda row: row.id), Column("state", lambda row: row.state)]
    columns += map(config_column, names)
    present = {name for row in rows for name in row.facts}
    values = sorted(name for name in present if name.startswith("value."))
    columns += [_fact(name) for name in (*_FACTS, *values) if name in present]
    columns.append(
        Column("finished", lambda row: row.facts.get("finished"))
        if everything
        else Column("when", lambda row: row.when, ago)
    )
    if "error" in present:
        columns.append(_fact("error"))
    return columns


def _tell_unknown(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Tell names of columns that nothing has, on stderr, since the output may be read by a program."""
    asked = [*(options.cols or "").split(","), options.sort or ""]
    for name in dict.fromkeys(filter(None, asked)):
        if rows and not any(_has(row, name) for row in rows):
            from .configuring import near

            facts = {f"_{fact}" for row in rows for fact in row.facts} | {"_state", "_id", "_method", "_uid"}
            known = [*sorted({field for row in rows for field in row.config}), *sorted(facts)]
            Output(sys.stderr).write([f"exca: no row has {name!r}{near(name, known)}"])


def _has(row: Row, name: str) -> bool:
    try:
        row.value(name)
    except KeyError:
        return False
    return True


def _fact(name: str) -> Column:
    return Column(name, lambda row: row.facts.get(name))


def _named_column(name: str) -> Column:
    def value(row: Row) -> tp.Any:
        try:
            return row.value(name)
        except KeyError:
            return None

    return Column(name, value)


def _formatted(kind: str, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    return {
        "json": lambda: as_json(rows),
        "csv": lambda: as_csv(rows, columns),
        "md": lambda: as_markdown(rows, columns),
    }[kind]()


def table(options: argparse.Namespace) -> int:
    """Print parameters and results."""
    rows = _sorted(selection(options).rows(), options.sort, reverse=options.reverse)
    _tell_unknown(rows, options)
    columns = columns_of(rows, options, everything=True)
    if options.output is None:
        if options.format is not None:
            print(_formatted(options.format, rows, columns))
        else:
            out = Output()
            out.write(out.table(rows, columns, indent=""))
        return 0
    kind = os.path.splitext(options.output)[1].removeprefix(".")
    if kind == "parquet":
        from ..catalog.frames import table as frame

        _of_one_type(frame(rows)).to_parquet(options.output)
    elif kind in ("csv", "json", "md"):
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(_formatted(kind, rows, columns) + "\n")
    else:
        raise ValueError(
            f"{options.output} has no ending that is known: name it .csv, .json, .md or .parquet"
        )
    return 0


def _of_one_type(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A table that Parquet can hold: columns with values of several types, or of none that it knows, become texts."""
    for name in frame.columns:
        kinds = {type(value) for value in frame[name].dropna()} if frame[name].dtype == object else set()
        if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
            frame[name] = [None if value is None else text_of(value) for value in frame[name]]
    return frame


def show(options: argparse.Namespace) -> int:
    """Show one task."""
    row = one(selection(options))
    if options.format is not None:
        known = {**row.to_json(), "folder": row.folder}
        print(as_text(options.format, [{"name": n, "value": v} for n, v in flat(known).items()], known))
        return 0
    out, facts = Output(), row.facts
    config = ", ".join(f"{shortened(name)}={_value(value)}" for name, value in row.config.items())
    lines = [f"{row.method or '.'}   {config or 'all defaults'}   {row.id}"]
    if facts.get("kind") == "items":
        lines.append(f"  {out.coloured(f'{row.state:<9}', row.state)} {facts.get('items')} items")
    else:
        lines.append(f"  {out.coloured(f'{row.state:<9}', row.state)} {_how(row)}")
    asked = [
        f"{name.removeprefix('resources.')} {text_of(v)}"
        for name, v in facts.items()
        if name.startswith("resources.")
    ]
    used = [
        text
        for name, text in (("used.cpu_seconds", "cpu {} s"), ("used.max_rss_mb", "max {} MiB"))
        if name in facts
        for text in [text.format(text_of(facts[name]))]
    ]
    for title, parts in (("asked", asked), ("used", used)):
        if parts:
            lines.append(f"  {title:<9} {', '.join(parts)}")
    if "git.commit" in facts:
        lines.append(
            f"  code      git {str(facts['git.commit'])[:8]}{' (dirty)' if facts.get('git.dirty') else ''}"
        )
    if "value" in facts:
        lines.append(f"  value     {text_of(facts['value'])}")
    lines += [f"  {name:<9} {text_of(v)}" for name, v in facts.items() if name.startswith("value.")]
    if "error" in facts:
        hint = f"   (exca logs {row.id} --err)" if facts.get("job_id") else ""
        lines.append(f"  error     {text_of(facts['error'])}{hint}")
    lines.append(f"  folder    {row.folder}")
    out.write(lines)
    return 0


def _value(value: tp.Any) -> str:
    return shortened(text_of(value), _LONGEST)


def _how(row: Row) -> str:
    facts = row.facts
    parts = []
    if "finished" in facts:
        parts.append(f"{facts['finished'][:19].replace('T', ' ')}, {text_of(facts.get('seconds'))} s")
    if "user" in facts:
        parts.append(f"{facts['user']}@{facts.get('host', '?')}")
    if "pid" in facts:
        parts.append(f"pid {facts['pid']}")
    if facts.get("job_id"):
        parts.append(f"{facts.get('cluster')} job {facts['job_id']}")
    if facts.get("attempts", 1) > 1:
        parts.append(f"attempt {facts['attempts']}")
    parts += [f"{name} {facts[name]}" for name in ("python", "exca") if name in facts]
    return ", ".join(map(text_of, parts))


def diff(options: argparse.Namespace) -> int:
    """Show what differs between two tasks."""
    rows = selection(options).rows()
    if len(rows) != 2:
        raise NoSuchTaskError(
            f"two tasks are compared, and {len(rows)} fit: name two, as in `exca diff 0d35 b1db`"
        )
    old, new = (
        {
            **row.full,
            **{k: row.facts[k] for k in ("git.commit", "code.digest", "python", "exca") if k in row.facts},
        }
        for row in rows
    )
    changes = {
        name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)
    }
    if options.format is not None:
        records = [{"name": name, "before": a, "after": b} for name, (a, b) in changes.items()]
        print(as_text(options.format, records, changes))
        return 0
    width = max((len(shortened(name)) for name in changes), default=0)
    Output().write(
        f"{shortened(name):<{width}}  {_value(a)} -> {_value(b)}" for name, (a, b) in changes.items()
    )
    return 0


def logs(options: argparse.Namespace) -> int:
    """Print the log of a job."""
    from ..catalog.logs import log_of
    from .following import print_log

    row = one(selection(options))
    path = log_of(row, err=options.err, rank=options.rank)
    return print_log(row, path, follow=options.follow, lines=options.n)


def du(options: argparse.Namespace) -> int:
    """Show how much is stored."""
    from ..catalog.scan import walk_files

    sizes: dict[tuple[str, str], list[float]] = {}
    for row in selection(options).rows():
        own = [0, 0.0, 0.0]
        for _, status in walk_files(row.folder):
            own[0] += status.st_size
            own[2] = max(own[2], status.st_atime)
        total = sizes.setdefault((row.method, str(row.facts.get("user", "?"))), [0.0, 0.0, 0.0])
        total[0] += own[0]
        total[1] += 1
        total[2] = max(total[2], own[2])
    found = sorted(sizes.items(), key=lambda item: -item[1][0])
    if options.format is not None:
        keys = ("bytes", "tasks", "last_read")
        records = [{"method": m, "user": u, **dict(zip(keys, v, strict=True))} for (m, u), v in found]
        print(as_text(options.format, records))
        return 0
    lines = [
        f"{amount(v[0]):>10}  {m or '.'}   {v[1]:.0f} task{'s' if v[1] != 1 else ''}   {u}   last read {ago(v[2])} ago"
        for (m, u), v in found
    ]
    lines.append(f"{amount(sum(v[0] for _, v in found)):>10}  in all")
    Output().write(lines)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Verify a folder, and repair it."""
    from .. import repair
    from .. import verify as check

    if options.repair:
        repairs = repair(options.folder)
        report, said = repairs.before, repairs.to_json()
        text = f"{report}\n{repairs}"
    else:
        report = check(options.folder)
        said, text = report.to_json(), str(report)
    if options.format is not None:
        print(as_text(options.format, report.to_json()["folders"], said))
    else:
        Output().write(text.splitlines())
    return 0 if report.sound else FAILED

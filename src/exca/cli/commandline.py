"""What can be written on the command line, and which function answers it."""

import argparse
import importlib
import io
import os
import sys
import typing as tp
from collections.abc import Sequence

FAILED, USAGE = 1, 2  # exit codes: something has failed or is damaged; the command cannot be understood

_NAMES = "hashes (four digits or more), paths, ids of jobs, Class.method, or - for the latest"


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="exca",
        description="Show and manage what is in a cache folder.",
        epilog="Identify tasks by " + _NAMES + ". `exca COMMAND --help` shows its options.",
    )
    top.add_argument("--version", action="store_true", help="print the version, and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    _looking(commands)
    _acting(commands)
    _computing(commands)
    return top


def _looking(commands: tp.Any) -> None:  # noqa: PLR0915 # one statement per option
    """Commands that only read."""
    ls = _command(commands, "ls", "looking:ls", "list what is there: states, parameters that differ, results")
    _selection(ls)
    _formats(ls)
    ls.add_argument(
        "-n", type=int, default=20, metavar="N", help="show the latest N of each method (default 20)"
    )
    ls.add_argument("--all", action="store_true", help="show all")
    _columns(ls)
    ls.add_argument("--all-cols", action="store_true", help="also show values that all tasks share")

    show = _command(commands, "show", "looking:show", "show all that is known of one task")
    _selection(show)
    _formats(show)

    diff = _command(commands, "diff", "looking:diff", "show what differs between two tasks")
    _selection(diff)
    _formats(diff)

    logs = _command(commands, "logs", "looking:logs", "print what the job of a task printed")
    _selection(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="follow until the job ends")
    logs.add_argument("--err", action="store_true", help="show stderr instead of stdout")
    logs.add_argument("--rank", type=int, default=0, metavar="R", help="process of the job (default 0)")
    logs.add_argument("-n", type=int, metavar="N", help="only the last N lines")

    table = _command(commands, "table", "looking:table", "print parameters and results as one table")
    _selection(table)
    _formats(table)
    _columns(table)
    table.add_argument(
        "-o", "--output", metavar="FILE", help="write it to a file: .csv, .json, .md or .parquet"
    )

    plot = _command(
        commands, "plot", "reporting:plot", "draw results against parameters into a PNG or SVG file"
    )
    _selection(plot)
    plot.add_argument(
        "-o", "--output", default="plot.png", metavar="FILE", help="the file (default plot.png)"
    )
    plot.add_argument("--result", metavar="A,B", help="only these results (default: all that are numbers)")
    plot.add_argument("--against", metavar="A,B", help="only these parameters (default: all that vary)")

    report = _command(
        commands, "report", "reporting:report", "write all that is there as one HTML file to look at"
    )
    report.add_argument(
        "report_folder",
        nargs="?",
        metavar="FOLDER",
        default=os.environ.get("EXCA_FOLDER", "."),
        help="cache folder (default: $EXCA_FOLDER, or here)",
    )
    _conditions(report)
    report.add_argument(
        "-o",
        "--output",
        default="report.html",
        metavar="FILE",
        help="the file (default report.html; - for stdout)",
    )
    report.add_argument("--title", help="its heading (default: the name of the folder)")
    report.add_argument(
        "--details", type=int, default=200, metavar="N", help="show full details of N runs (default 200)"
    )
    report.add_argument("--no-logs", action="store_true", help="leave out the ends of logs")

    du = _command(commands, "du", "looking:du", "show how much is stored, by method, version and user")
    _selection(du)
    _formats(du)

    eff = _command(
        commands, "eff", "efficiency:eff", "show what jobs requested and used, and what would be enough"
    )
    _selection(eff)
    _formats(eff)

    watch = _command(
        commands, "watch", "watching:watch", "show tasks on one screen, with keys to cancel, log and retry"
    )
    _selection(watch)
    watch.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="seconds between updates (default 2)"
    )

    _serving(commands)

    export = _command(
        commands,
        "export",
        "archiving:export",
        "write chosen entries to an archive, or to an experiment tracker",
    )
    _selection(export)
    export.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the archive: results.tar.gz; of a tracker its folder or database",
    )
    export.add_argument(
        "--to",
        choices=("mlflow", "wandb", "trackio", "tensorboard"),
        help="write runs of this tracker, offline",
    )
    export.add_argument(
        "--project", default="", metavar="NAME", help="the project or experiment of the tracker"
    )

    doctor = _command(
        commands, "doctor", "doctoring:doctor", "look whether what the guarantees rest on holds here"
    )
    _folder(doctor)
    doctor.add_argument(
        "--bundle", metavar="FILE", help="write an archive for a bug report, without your values"
    )
    doctor.add_argument(
        "--strict",
        action="store_true",
        help="import the modules of your tasks here, and show what a strict setting would refuse or compute again",
    )
    doctor.add_argument("--task", metavar="TASK", help="include this task in the bundle")
    _formats(doctor)

    verify = _command(
        commands, "verify", "looking:verify", "compare all results with their sizes and checksums"
    )
    verify.add_argument("folder", nargs="?", default=".", help="cache folder (default: here)")
    verify.add_argument("--repair", action="store_true", help="set damaged data aside, to be computed again")
    _formats(verify)


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folder", nargs="?", default=os.environ.get("EXCA_FOLDER", "."), help="cache folder (default: here)"
    )


def _serving(commands: tp.Any) -> None:
    ui = _command(
        commands, "ui", "serving:ui", "serve a page that shows what is there, and keeps itself up to date"
    )
    _folder(ui)
    ui.add_argument(
        "--allow-actions", action="store_true", help="let the page cancel tasks and compute them again"
    )
    ui.add_argument(
        "--port", type=int, metavar="N", help="port of this host (default: 8411, or any where that is taken)"
    )
    ui.add_argument(
        "--uds",
        metavar="PATH",
        help="a socket at this path, which only you can open, instead of a port: on shared hosts",
    )
    ui.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="what a proxy puts in front of all paths: /user/ada/exca",
    )
    ui.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which a proxy asks for the page",
    )


def _acting(commands: tp.Any) -> None:
    """Commands that change what there is."""
    cancel = _command(commands, "cancel", "acting:cancel", "end the jobs of tasks that wait or run")
    _selection(cancel)
    cancel.add_argument(
        "-y", "--yes", action="store_true", help="do it (default: only show what would be done)"
    )

    rm = _command(commands, "rm", "acting:rm", "move tasks into the trash of their folder")
    _selection(rm)
    rm.add_argument("-y", "--yes", action="store_true", help="do it (default: only show what would be done)")

    gc = _command(
        commands, "gc", "acting:gc", "move what is not wanted any more into the trash, or empty the trash"
    )
    _selection(gc)
    gc.add_argument("--older", metavar="AGE", help="what was written before: 90d")
    gc.add_argument(
        "--unread", metavar="AGE", help="what was last read before: 180d (by the times of the file system)"
    )
    gc.add_argument("--failed", action="store_true", help="failed tasks")
    gc.add_argument(
        "--version-below", type=int, metavar="N", help="results of earlier versions of their method"
    )
    gc.add_argument(
        "--keep", action="append", default=[], metavar="SWEEP", help="but keep the points of this sweep"
    )
    gc.add_argument(
        "--trash", action="store_true", help="delete what is in the trash (with --older: since then)"
    )
    gc.add_argument(
        "--apply", dest="yes", action="store_true", help="do it (default: only show what would be done)"
    )

    restore = _command(commands, "restore", "acting:restore", "bring back what was moved into the trash")
    restore.add_argument(
        "places", nargs="*", metavar="PLACE", help="folders of the trash (default: the latest)"
    )
    restore.add_argument(
        "-C", "--folder", default=os.environ.get("EXCA_FOLDER", "."), help="cache folder (default: here)"
    )

    bring_in = _command(
        commands, "import", "archiving:bring_in", "unpack an archive of `exca export` into a folder"
    )
    bring_in.add_argument("archive", metavar="FILE", help="the archive")
    bring_in.add_argument(
        "-C", "--folder", default=os.environ.get("EXCA_FOLDER", "."), help="cache folder (default: here)"
    )
    bring_in.add_argument(
        "--trust",
        action="store_true",
        help="also take data that may run code when loaded (pickles...), and config.yaml: you become its owner",
    )
    bring_in.add_argument("--strict", action="store_true", help="exit with 1 if an entry already exists")


def _computing(commands: tp.Any) -> None:
    """Commands that import the user's code."""
    run = _command(
        commands,
        "run",
        "running:run",
        "compute a method for a configuration, or for each of several",
        add_help=False,
    )
    _target(run)
    run.add_argument(
        "--dry-run", action="store_true", help="only show what is cached and what would be computed"
    )
    run.add_argument("-h", "--help", action="store_true", help="show what can be set, and exit")

    why = _command(commands, "why", "running:why", "say whether a call would be a hit, and why")
    _target(why)
    _formats(why)

    sweep = _command(
        commands, "sweep", "sweeping:sweep", "compute what is missing of many points; again: go on"
    )
    sweep.add_argument("file", metavar="FILE", help="a YAML file, or grids.py:function that yields points")
    sweep.add_argument("--name", help="name of the sweep, for later commands (default: that of the file)")
    sweep.add_argument(
        "--dry-run", action="store_true", help="only show what is cached and what would be computed"
    )
    sweep.add_argument("--wait", action="store_true", help="wait until all jobs are done")
    sweep.add_argument("--retry", action="append", metavar="STATE", help="compute these again: failed")
    sweep.add_argument(
        "--cancel-removed", action="store_true", help="end the jobs of points that are no longer in it"
    )

    _searching(commands)

    retry = _command(commands, "retry", "again:retry", "compute again what failed or was lost")
    _selection(retry)
    retry.add_argument(
        "--lost", action="store_true", help="only tasks whose job was lost, not errors of the method itself"
    )
    retry.add_argument(
        "--time", metavar="MIN|xF", help="another time limit: 60 minutes, or x2 of the earlier limit"
    )
    retry.add_argument("--mem", metavar="GB|xF", help="other memory: 32, or x1.5 of the earlier request")
    retry.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="another field of the infra: cluster=slurm"
    )
    retry.add_argument(
        "--task", metavar="MODULE:CLASS.METHOD", help="what to import (default: what the folder names)"
    )
    retry.add_argument("--wait", action="store_true", help="wait until all jobs are done")
    retry.add_argument("--dry-run", action="store_true", help="only show what would be computed again")

    accept = _command(
        commands, "accept", "again:accept", "declare that a change of code is harmless for the results"
    )
    _selection(accept)
    accept.add_argument("--why", metavar="TEXT", help="the reason, for people")
    accept.add_argument("--part", metavar="NAME", help="only the change of this function, class or constant")
    accept.add_argument("--list", action="store_true", help="list what was accepted")
    accept.add_argument(
        "--task", metavar="MODULE:CLASS.METHOD", help="what to import (default: what the folder names)"
    )

    completion = _command(
        commands,
        "completion",
        "completing:completion",
        "print a script with which a shell completes commands",
    )
    completion.add_argument(
        "what",
        choices=("bash", "zsh", "fish", "tasks", "sweeps", "states"),
        help="the shell; or the names that its script asks for",
    )
    completion.add_argument(
        "-C", "--folder", default=os.environ.get("EXCA_FOLDER", "."), help="cache folder (default: here)"
    )

    shell = _command(
        commands, "shell", "again:shell", "start Python with the object of a task and its result"
    )
    _selection(shell)
    shell.add_argument(
        "--task", metavar="MODULE:CLASS.METHOD", help="what to import (default: what the folder names)"
    )


def _searching(commands: tp.Any) -> None:
    search = _command(
        commands, "search", "searching:search", "search for the best point with Optuna; again: go on"
    )
    search.add_argument(
        "what", metavar="FILE|MODULE:CLASS[.METHOD]", help="a YAML file with a section search, or what to run"
    )
    search.add_argument(
        "arguments",
        nargs="*",
        metavar="FILE|NAME=VALUE",
        help="overrides; what is searched: rate=interval(0,1) rate=tag(log,interval(1e-4,1)) model.layers=2,4,8",
    )
    search.add_argument(
        "--space", action="append", default=[], metavar="NAME", help="search this field as its type allows"
    )
    goal = search.add_mutually_exclusive_group()
    goal.add_argument("--minimize", metavar="KEY", help="the key of the result; . for the result itself")
    goal.add_argument("--maximize", metavar="KEY", help="the same, to be maximized")
    search.add_argument("-n", type=int, metavar="N", help="number of trials (default 100)")
    search.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default 1)")
    search.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same points")
    search.add_argument("--sampler", metavar="CLASS", help="of optuna.samplers (default TPESampler)")
    search.add_argument("--prune", metavar="METRIC", help="end trials early by what they give to log_metrics")
    search.add_argument("--name", help="name of the sweep, for later commands (default: that of the file)")
    search.add_argument("--dry-run", action="store_true", help="only show what would be searched")


def _target(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "target", metavar="MODULE:CLASS[.METHOD]", help="what to run; the module is imported"
    )
    command.add_argument(
        "arguments",
        nargs="*",
        metavar="FILE|NAME=VALUE",
        help="a YAML file, and overrides: rate=0.1,0.2 model.layers=4",
    )


def _command(
    commands: tp.Any, name: str, answered_by: str, text: str, **options: tp.Any
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options
    )
    made.set_defaults(answered_by=answered_by)
    return made


def _selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", nargs="*", metavar="TASK", help=_NAMES)
    command.add_argument(
        "-C",
        "--folder",
        default=os.environ.get("EXCA_FOLDER", "."),
        help="where to look (default: $EXCA_FOLDER, or here)",
    )
    _conditions(command)


def _conditions(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-w",
        "--where",
        metavar="EXPR",
        help="only where this holds: -w 'rate > 5 and model.layers in [4, 8]'",
    )
    command.add_argument(
        "--state", action="append", default=[], metavar="S", help="only these: completed, failed, running..."
    )
    command.add_argument(
        "--since", metavar="AGE", help="only what was written since then: 2d, 90min, 2026-11-24"
    )
    command.add_argument("--sweep", metavar="NAME", help="only the points of this sweep")
    command.add_argument("--user", metavar="NAME", help="only what this user computed")


def _columns(command: argparse.ArgumentParser) -> None:
    command.add_argument("--sort", metavar="COLUMN", help="sort by a field, _seconds, _state...")
    command.add_argument("-r", "--reverse", action="store_true", help="reverse the order")
    command.add_argument("--cols", metavar="A,B", help="show these columns")


def _formats(command: argparse.ArgumentParser) -> None:
    formats = command.add_mutually_exclusive_group()
    for name, text in (("json", "as JSON"), ("csv", "as CSV"), ("md", "as a Markdown table")):
        formats.add_argument(f"--{name}", dest="format", action="store_const", const=name, help=text)


# options of hydra, and what to write here
_OF_HYDRA = {
    **dict.fromkeys(
        ("-m", "--multirun"),
        "give a field several values, as in rate=0.1,0.2, or write a file for `exca sweep`",
    ),
    **dict.fromkeys(
        ("-cp", "-cn", "--config-path", "--config-name", "--config-dir"),
        "give the YAML file as an argument, as in exca run train:Train base.yaml",
    ),
    **dict.fromkeys(("-c", "--cfg", "--resolve"), "use --dry-run, which shows what would be computed"),
}


def _remedy(options: argparse.Namespace, rest: Sequence[str]) -> str:
    """What to write instead of an option that a command does not have, where it sets fields of a configuration."""
    if not hasattr(options, "arguments"):
        return ""
    option, _, value = next(text for text in rest if text.startswith("-")).partition("=")
    if option in _OF_HYDRA:
        return f"\n{option} is an option of hydra: {_OF_HYDRA[option]}"
    if not option.startswith("--") or len(option) == 2:
        return ""
    return f"\nto set a field, write it without dashes: {option[2:].replace('-', '_')}={value or 'VALUE'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a command line.

    Parameters
    ----------
    argv: sequence of str, optional
        the arguments (default: those of this process)

    Returns
    -------
    int
        0; 1 if something has failed or is damaged; 2 if the command cannot be understood
    """
    for stream in (sys.stdout, sys.stderr):  # names of files and values may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options, rest = parser().parse_known_args(argv)
    # what follows an option, as in `exca run train:Train --dry-run rate=1`
    for several in ("arguments", "names"):
        if hasattr(options, several) and not any(text.startswith("-") for text in rest):
            getattr(options, several).extend(rest)
            rest = []
    if rest:
        parser().error(f"unrecognized arguments: {' '.join(rest)}{_remedy(options, rest)}")
    if options.version:
        from .. import __version__

        print(f"exca {__version__}")
        return 0
    if options.command is None:
        parser().print_help()
        return 0
    module, _, function = options.answered_by.partition(":")
    try:
        code = getattr(importlib.import_module(f"{__package__}.{module}"), function)(options)
        sys.stdout.flush()
        return int(code or 0)
    except BrokenPipeError:  # as `exca ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (LookupError, ValueError, OSError, RuntimeError, ImportError) as e:
        from ..catalog.rows import printable

        for k, line in enumerate(str(e).splitlines() or [type(e).__name__]):
            print(printable(line if k else f"exca {options.command}: {line}"), file=sys.stderr)
        return FAILED if isinstance(e, RuntimeError) else USAGE

"""The server of the live page: on this host alone, or on a socket in a folder that only its user may enter."""

import contextlib
import os
import shlex
import socket
import stat
import typing as tp
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from .. import _files
from ..errors import MissingPackageError
from .gate import Gate, Keys

USUAL_PORT = 8411  # where it is free, so that a line for ssh can be kept
_HOST = "127.0.0.1"


def serve(
    folder: str,
    *,
    port: int | None = None,
    uds: str | None = None,
    root_path: str = "",
    hosts: Sequence[str] = (),
    actions: bool = False,
    say: Callable[[str], None],
) -> None:
    """Serve the page of a folder until the process is interrupted.

    Parameters
    ----------
    folder: str
        the cache folder
    port: int, optional
        of this host (default: 8411, or any where that is taken)
    uds: str, optional
        a path for a socket instead of a port
    root_path: str
        what a proxy puts in front of all paths
    hosts: sequence of str
        names by which a proxy asks for it
    actions: bool
        whether tasks can be cancelled and tried again
    say: callable
        called once with the lines that tell where the page is

    Raises
    ------
    MissingPackageError
        if the packages for it are not installed
    OSError
        if the port is taken, or the socket may not be where it was asked for
    """
    try:
        import jinja2  # noqa: F401 # to say so before anything is done
        import uvicorn

        from .live import make_app
    except ImportError as e:
        raise MissingPackageError(f'exca ui needs {e.name}: pip install "exca[ui]"') from e
    with listening(port, uds) as (listener, place):
        ending = False
        keys = Keys()
        app = make_app(folder, keys, actions=actions, root_path=root_path, ending=lambda: ending)
        gate = Gate(app, keys, hosts=hosts, root_path=root_path, actions=actions)
        say("\n".join(lines_to_print(gate, place, hosts)))

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: tp.Any) -> None:
                nonlocal ending
                ending = True  # streams end by themselves
                super().handle_exit(sig, frame)

        config = uvicorn.Config(
            tp.cast("tp.Any", gate),  # its types are those of the specification, not of a package
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=2,
        )
        with contextlib.suppress(KeyboardInterrupt):
            Server(config).run(sockets=[listener])


def lines_to_print(gate: Gate, place: int | str, hosts: Sequence[str]) -> list[str]:
    """The address with the token, and the line for ssh that makes it work from elsewhere."""
    port = place if isinstance(place, int) else USUAL_PORT
    path = f"{gate.root_path}/?token={gate.keys.token}"
    target = f"localhost:{port}" if isinstance(place, int) else place
    user, host = quote(_files.user_name(), safe=""), _files.host_name() or "HOST"
    lines = [f"http://localhost:{port}{path}"]
    if hosts:
        lines = [f"https://{name}{path}" for name in hosts]
    shown = "nothing on this page changes anything (--allow-actions)"
    if gate.actions:
        shown = "tasks can be cancelled and tried again"
    return [
        *(f"  {line}" for line in lines),
        f"  from another machine first: {shlex.join(['ssh', '-N', '-L', f'{port}:{target}', f'{user}@{host}'])}",
        f"  {shown}; Ctrl-C ends it",
    ]


@contextlib.contextmanager
def listening(port: int | None, uds: str | None) -> Iterator[tuple[socket.socket, int | str]]:
    """An open socket, and its port or path."""
    if uds is None:
        with _on_port(port) as listener:
            yield listener, listener.getsockname()[1]
        return
    path = os.path.abspath(uds)
    with _on_path(path) as listener:
        inode = os.lstat(path).st_ino
        try:
            yield listener, path
        finally:
            with contextlib.suppress(OSError):
                if os.lstat(path).st_ino == inode:
                    os.unlink(path)


def _on_port(port: int | None) -> socket.socket:
    if port is None:
        try:
            return _on_port(USUAL_PORT)
        except OSError:
            port = 0  # any
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as e:
        listener.close()
        reason = getattr(e, "strerror", None) or e
        raise OSError(f"port {port} cannot be listened at ({reason}): give another --port") from e
    return listener


def _on_path(path: str) -> socket.socket:
    """A socket at a path, of mode 0600; refused where another user could put another one in its place."""
    folder = os.path.dirname(path)
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this platform has no sockets with a path: leave --uds out")
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"there is no folder {folder} for the socket: mkdir -m 700 {shlex.quote(folder)}"
        )
    if not _files.is_ours_alone(path):
        raise PermissionError(
            f"another user could put another socket at {path}: give a path in a folder that only you may write to, as "
            f"after mkdir -m 700 {shlex.quote(os.path.join(folder, 'exca-ui'))}"
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(128)
    except OSError as e:
        listener.close()
        raise OSError(e.errno, f"no socket can be made at {path}: {e.strerror or e}") from e
    finally:
        os.umask(before)
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that has died."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(f"{path} is there and is no socket: give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as e:
            raise FileExistsError(f"{path} is there, and does not answer: {e}") from e
    raise FileExistsError(f"another server answers at {path}: open its address, or give another path")

"""The heartbeat process: beats for the claims of another process, also while that one is stopped.

Runs as a script of its own (``python -I -S heartbeat_process.py SECONDS``), with the standard library only. Lines
on stdin: ``+ <pid> <start> <path>`` to beat for a claim file as long as this process lives, ``- <path>`` to stop,
``x <path>`` to stop and remove the file, which could not be removed a moment ago: that is tried at each beat.
A beat writes a new number over the old one in the claim file: a counter, since clocks may be wrong.
"""

import os
import select
import stat
import sys
import time

BEAT_OFFSET = 25  # of the digits in a claim file
BEAT_DIGITS = 10
MAX_WAKEUPS = 50  # per second, however many claims come and go


class Beats:
    """The claims to beat for."""

    def __init__(self) -> None:
        self.paths: dict[str, tuple[int, str]] = {}
        self.unwanted: set[str] = set()
        self.count: int = time.time_ns() // 100_000_000  # another one of the same claim starts elsewhere

    def order(self, line: str) -> None:
        """Take one line of orders."""
        if line.startswith("+ "):
            _, pid, start, path = line.split(" ", 3)
            self.paths[path] = (int(pid), start)
        elif line.startswith("- "):
            self.paths.pop(line[2:], None)
        elif line.startswith("x "):
            self.paths.pop(line[2:], None)
            self.unwanted.add(line[2:])

    def beat(self, *, last: bool = False) -> None:
        """Beat once for every claim whose process lives, and forget the others.

        The `last` time no process gives orders any more: a file that is gone will not come.
        """
        alive = {who: _lives(*who) for who in set(self.paths.values())}
        self.paths = {path: who for path, who in self.paths.items() if alive[who]}
        self.count += 1
        digits = self.digits()
        for path in list(self.paths):
            if not beat_file(path, digits) and last:
                del self.paths[path]
        self.remove()

    def digits(self) -> bytes:
        """The number as it is written into a claim file."""
        return b"%0*d" % (BEAT_DIGITS, self.count % 10**BEAT_DIGITS)

    def remove(self) -> None:
        """Try once more to remove the claim files that are given up."""
        for path in list(self.unwanted):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError:
                continue
            self.unwanted.discard(path)


def beat_file(path: str, digits: bytes) -> bool:
    """Write the digits into a claim file; False when it is not there (yet, or any more)."""
    try:
        fd = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        status = os.fstat(fd)
        # else it is another user's link to a file of ours
        if status.st_nlink == 1 and stat.S_ISREG(status.st_mode):
            os.lseek(fd, BEAT_OFFSET, os.SEEK_SET)
            os.write(fd, digits)
    except OSError:
        pass  # disk full or server away: the next beat may get through
    finally:
        try:
            os.close(fd)  # on NFS the beat travels now, and may fail now
        except OSError:
            pass
    return True


def _lives(pid: int, start: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            text = f.read()
    except OSError:
        return False
    fields = text[text.rfind(b")") + 2 :].split(b" ", 20)
    return fields[0] not in b"ZXx" and fields[19].decode() == start


def main(every: float, owner: tuple[int, str], *, shared: bool = False) -> None:
    """Beat until the owner (pid, start time) is dead and no other process is left to beat for.

    Of one that is ``shared`` with processes forked from the owner, these give orders, too.
    """
    beats, rest, open_ = Beats(), b"", True
    due = time.monotonic() + every
    while True:
        wait = max(0.0, due - time.monotonic())
        if open_ and select.select([0], [], [], wait)[0]:
            chunk = os.read(0, 1 << 16)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                beats.order(os.fsdecode(line))
            open_ = bool(chunk)
            # at the end of the orders, too: a dying owner closes the pipe a little early
            time.sleep(1 / MAX_WAKEUPS)
        elif not open_:
            time.sleep(wait)
        if time.monotonic() >= due or not open_:
            alive = _lives(*owner)
            beats.beat(last=not (open_ if shared else alive))
            due = time.monotonic() + every
            if not beats.paths and (not open_ or not alive):
                return


def beat_from_stdin(every: float, owner: tuple[int, str], *, shared: bool = False) -> None:
    """Beat as a process of its own, which signals and folders of the owner do not concern."""
    import signal

    # these are meant for the owner: the heartbeat process goes when the owner is gone
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.chdir("/")  # keep no folder busy
    main(every, owner, shared=shared)


if __name__ == "__main__":
    beat_from_stdin(float(sys.argv[1]), (int(sys.argv[2]), sys.argv[3]))

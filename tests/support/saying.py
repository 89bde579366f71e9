"""What the command line says."""

import pytest

from exca.cli import main


def say(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    found = capsys.readouterr()
    return found.out if code == 0 else found.out + found.err

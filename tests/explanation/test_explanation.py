"""Every Python block of the explanation runs as it is written."""

import dataclasses
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TEXT = (HERE / "explanation.md").read_text(encoding="utf-8")
STAND_INS = (HERE / "stand_ins.py").read_text(encoding="utf-8")
SHA256 = "f51c9c36f6f640a49c6e3f27da6696d3ce770084fdac17286fe804fbbbd0ce70"
FENCE = re.compile(r"^```(?P<info>[^\n]+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

ONE_JOB = """
assert obj.infra.status() == "completed"
print("JOB", obj.infra.job().job_id)
"""
ARRAY = """
jobs = [trainer.infra.job() for trainer in array]
assert [job.result() for job in jobs] == [accuracy] * 3
assert [trainer.infra.status() for trainer in array] == ["completed"] * 3
assert [trainer.run() for trainer in array] == [accuracy] * 3
assert len({job.job_id for job in jobs}) == 3
for trainer in array:
    [copy] = (trainer.infra.uid_folder() / "code").resolve().rglob("block.py")
    assert copy.read_text() == Path(__file__).read_text()
for job in jobs:
    print("JOB", job.job_id)
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of the text: the words behind its fence, its code, the line it starts at, what it continues."""

    info: tuple[str, ...]
    code: str
    line: int
    before: "Block | None"

    @property
    def on_slurm(self) -> bool:
        return "cluster: slurm" in self.code

    def full_code(self) -> str:
        """Return the code of the blocks that this one continues, and its own."""
        return (self.before.full_code() if self.before else "") + self.code + "\n"


def python_blocks() -> list[Block]:
    """Return the Python blocks of the text in their order."""
    blocks: list[Block] = []
    for match in FENCE.finditer(TEXT):
        language, *info = match["info"].split()
        if language == "python" and "notest" not in info:
            before = blocks[-1] if "continuation" in info else None
            line = TEXT.count("\n", 0, match.start("code")) + 1
            blocks.append(Block(tuple(info), match["code"], line, before))
    return blocks


BLOCKS = python_blocks()


def name(block: Block) -> str:
    return f"line{block.line}"


def run_script(block: Block, folder: Path, after: str = "") -> str:
    """Run a block the way its reader would: as a script, in a folder of its own; return what it printed.

    Before it come the stand-ins and the blocks that it continues, after it what must hold then.
    """
    pytest.importorskip("torch", reason="the models of the explanation are torch modules: pip install torch")
    here = folder / "here"  # the working directory, which the last block copies
    here.mkdir()
    script = STAND_INS
    if "fixture:tmp_path" in block.info:
        script += f"\nfrom pathlib import Path\n\ntmp_path = Path({str(folder / 'cache')!r})\n"
    (here / "block.py").write_text(script + block.full_code() + after, encoding="utf-8")
    command = [sys.executable, "block.py"]
    ran = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def scheduler_view(printed: str) -> list[str]:
    """Return what the scheduler says of each job whose id a block printed."""
    job_ids = re.findall(r"^JOB (\S+)$", printed, re.MULTILINE)
    command = ["scontrol", "show", "job"]
    return [subprocess.check_output([*command, job_id], text=True, timeout=30) for job_id in job_ids]


def test_text_is_the_original() -> None:
    """The text is the original to the byte: no formatter and no editor has been at its blocks."""
    assert hashlib.sha256((HERE / "explanation.md").read_bytes()).hexdigest() == SHA256


def test_all_blocks_are_found() -> None:
    """The text holds ten Python blocks; the last of each of two series goes to Slurm and gets a folder."""
    assert len(BLOCKS) == 10 == TEXT.count("```python")
    assert [block.info for block in BLOCKS if block.on_slurm] == [("continuation", "fixture:tmp_path")] * 2


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.on_slurm], ids=name)
def test_block_runs_as_written(block: Block, tmp_path: Path) -> None:
    """A block that needs no cluster runs to its end."""
    run_script(block, tmp_path)


@pytest.mark.slurm
@pytest.mark.timeout(120)
def test_method_runs_in_a_slurm_job(tmp_path: Path) -> None:
    """The first Slurm block gets its result from a job with the CPUs that it asks for."""
    block = next(block for block in BLOCKS if block.on_slurm)
    [job] = scheduler_view(run_script(block, tmp_path, after=ONE_JOB))
    assert "JobState=COMPLETED" in job
    assert "CPUs/Task=4" in job


@pytest.mark.slurm
@pytest.mark.timeout(120)
def test_grid_runs_as_a_slurm_array(tmp_path: Path) -> None:
    """The last block runs three trainings as one array, with all its resources, on a copy of the code."""
    jobs = scheduler_view(run_script(BLOCKS[-1], tmp_path, after=ARRAY))
    assert len(jobs) == 3
    assert len(set(re.findall(r"ArrayJobId=(\d+)", "".join(jobs)))) == 1
    for job in jobs:
        assert "JobState=COMPLETED" in job
        assert "Partition=learnfair" in job
        assert "Features=volta32gb" in job
        assert "CPUs/Task=80" in job
        assert "gres/gpu=8" in job or "gres:gpu:8" in job

"""Make docs/images/live-run.png: the live page of a run while its job computes, as Chromium shows it.

python scripts/docs/picture.py    # needs the extra dev, and Chromium (Debian: apt install chromium)
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).parents[2] / "docs" / "images" / "live-run.png"
STUDY = '''
import time
import typing as tp
from pathlib import Path

import pydantic

import exca


class Train(pydantic.BaseModel):
    """A training, which waits near its end until a file is there."""

    rate: float = 0.1
    optimizer: tp.Literal["adam", "sgd"] = "adam"
    layers: int = 2
    epochs: int = 40
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def fit(self) -> dict[str, float]:
        print("12,288 samples, 2.1 M parameters")
        loss = 1.05
        for epoch in range(self.epochs):
            loss *= 1 - 0.07 * (1 + 0.4 * ((epoch * 7) % 5 - 2) / 2)
            exca.log_metrics(epoch, loss=loss, accuracy=1 - loss / 2)
            if epoch % 4 == 0:
                print(f"epoch {epoch:3}   loss {loss:.4f}   accuracy {1 - loss / 2:.4f}", flush=True)
            while epoch == 23 and self.optimizer == "sgd" and not Path("go").exists():
                time.sleep(0.05)
        return {"loss": loss, "accuracy": 1 - loss / 2}


def train(cluster: str | None, **fields: tp.Any) -> Train:
    return Train.model_validate({**fields, "infra": {"folder": "results", "cluster": cluster}})


if __name__ == "__main__":
    import live

    for rate in (0.1, 0.3):
        live.train(None, rate=rate, layers=4).fit()
    live.train("local", rate=0.3, optimizer="sgd").infra.job()
'''


def picture(address: str, target: Path) -> None:
    """Open the page of the run that computes, and take a picture of it once its logs are there."""
    from playwright.sync_api import expect, sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(address)
        page.get_by_role("link", name="live.Train.fit").click()
        page.locator("table.list > tbody > tr", has_text="running").locator("a").first.click()
        expect(page.get_by_text("epoch  20")).to_be_visible()
        expect(page.locator("body")).to_contain_text("accuracy by step")
        page.screenshot(path=target, full_page=True)
        browser.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "live.py").write_text(STUDY, encoding="utf-8")
        env = os.environ | {"PYTHONPATH": folder, "PYTHONUNBUFFERED": "1"}
        subprocess.run([sys.executable, "live.py"], cwd=here, env=env, check=True)
        command = [sys.executable, "-m", "exca", "ui", "results", "--port", "0", "--allow-actions"]
        served = subprocess.Popen(command, cwd=here, env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert served.stdout is not None
            found = re.search(r"http://localhost:\S+", served.stdout.readline())
            assert found is not None, "exca ui has printed no address"
            picture(found[0], TARGET)
        finally:
            (here / "go").touch()
            served.send_signal(signal.SIGINT)
            served.wait()
            env_wait = [
                sys.executable,
                "-c",
                "import live; live.train('local', rate=0.3, optimizer='sgd').fit()",
            ]
            subprocess.run(env_wait, cwd=here, env=env, check=True)
    print(TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET)


if __name__ == "__main__":
    main()

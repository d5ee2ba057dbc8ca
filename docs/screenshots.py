"""Makes the pictures of dashboard and report in README.md from the demo: `make screenshots`. Needs Chromium."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import running_browser, served_dashboard, visiting

DASHBOARD = ROOT / "docs" / "dashboard.png"
REPORT = ROOT / "docs" / "report.png"
MAX_BYTES = 200_000
WIDTH, HEIGHT = 1280, 860


def main() -> None:
    """Run a demo of ten days in a folder of its own, and keep what overview and report look like."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "demo"
        command = [sys.executable, "-m", "cockpit_source.cli", "demo", "--days", "10", "--folder", str(demo)]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with running_browser() as browser:
            with (
                served_dashboard(demo / "cockpit_demo.duckdb") as served,
                visiting(browser, served.address, width=WIDTH, height=HEIGHT) as visit,
            ):
                visit.page.locator("canvas, svg.marks").nth(1).wait_for()
                visit.settle()
                visit.page.screenshot(path=DASHBOARD)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto((demo / "report.html").as_uri())
            page.screenshot(path=REPORT)
    for picture in (DASHBOARD, REPORT):
        size = picture.stat().st_size
        if size > MAX_BYTES:
            sys.exit(f"{picture} has {size:,} bytes, more than {MAX_BYTES:,}")
        print(f"{picture.relative_to(ROOT)}: {size:,} bytes")


if __name__ == "__main__":
    main()

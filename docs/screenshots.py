"""Makes the picture of the dashboard in README.md from the demo: `make screenshots`. Needs Chromium."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import running_browser, served_dashboard, visiting

PICTURE = ROOT / "docs" / "dashboard.png"
MAX_BYTES = 200_000


def main() -> None:
    """Run the demo in a folder of its own, serve it, and keep what the overview looks like."""
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, "-m", "cockpit_source.cli", "demo", "--folder", f"{folder}/demo"]
        subprocess.run(demo, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        database = Path(folder) / "demo" / "cockpit_demo.duckdb"
        with (
            served_dashboard(database) as served,
            running_browser() as browser,
            visiting(browser, served.address, width=1280, height=860) as visit,
        ):
            visit.page.locator("canvas, svg.marks").nth(1).wait_for()
            visit.settle()
            visit.page.screenshot(path=PICTURE)
    size = PICTURE.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{PICTURE} has {size:,} bytes, more than {MAX_BYTES:,}")
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}: {size:,} bytes\n")


if __name__ == "__main__":
    main()

from __future__ import annotations

import subprocess
import sys


def test_pages_are_made_without_loading_what_draws() -> None:
    code = "from hilum.report import page_blocks; page_blocks.ReportPage; import sys; "
    code += "print({'matplotlib', 'pandas', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

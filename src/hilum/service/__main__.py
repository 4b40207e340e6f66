"""The entry of a node's processes."""

import sys

from hilum.service import _process

sys.exit(_process.run_process())

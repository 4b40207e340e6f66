"""The entry of a node's processes."""

import sys

from isocenter.service.process import main

sys.exit(main())

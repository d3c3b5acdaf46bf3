"""`python -m dlgpu`: the command `dlgpu`."""

import sys

from dlgpu.cli import main

sys.exit(main())

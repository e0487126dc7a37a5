"""``python -m rlgan`` is the command line."""

import sys

from rlgan.cli.main import main

sys.exit(main())

"""`python -m kvmperf_magic`: the magics as commands."""

import sys

from kvmperf_magic.cli import main

sys.exit(main())

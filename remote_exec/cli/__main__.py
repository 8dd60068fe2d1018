"""``python -m remote_exec.cli`` is `remote-exec`."""

import sys

from . import main

sys.exit(main())

"""`python -m examples.microservices`: see demo.py."""
from __future__ import annotations

import signal
import sys

# Until the demo says otherwise, Ctrl-C ends it without a word: there is nothing to clear up while modules are being imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from examples.microservices.demo import main  # noqa: E402

sys.exit(main())

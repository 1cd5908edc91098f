"""What starts in the container: the supervised run, from the code and packages of the image."""

import sys
from importlib import import_module

sys.path[:0] = ["/opt/auditkit/code", "/opt/auditkit/packages"]
# By name: here, at the bottom of the image, nothing of it can be imported before the line above.
sys.exit(import_module("auditkit.cli.contained").main())

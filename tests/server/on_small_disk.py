"""The real server, whose home lies on a disk of its own that is soon full.

Run as `python on_small_disk.py --home HOME --port 0`. Nobody else sees the disk, but through
`/proc/PID/root`.
"""

import os
import sys

MEGABYTES = 8
SCRIPT = f"""
set -e
home=$1; shift
cp --archive "$home" "$home.before"
mount -t tmpfs -o size={MEGABYTES}m tmpfs "$home"
cp --archive "$home.before/." "$home"
exec "$@"
"""
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")

if __name__ == "__main__":
    home = sys.argv[sys.argv.index("--home") + 1]
    server = (sys.executable, "-m", "auditor_server", *sys.argv[1:])
    os.execvp(NAMESPACES[0], [*NAMESPACES, "sh", "-c", SCRIPT, "sh", home, *server])

"""kazoo_candidate.py HOSTS lock|election PATH COMMAND…: runs COMMAND under Kazoo's Lock or Election of PATH. It knows nothing of elect-run."""

import subprocess
import sys

from kazoo.client import KazooClient

hosts, kind, path, *command = sys.argv[1:]
client = KazooClient(hosts=hosts)
client.start()
print("waits", flush=True)
if kind == "lock":
    with client.Lock(path, "a native candidate"):
        subprocess.run(command, check=False)
else:
    client.Election(path, "a native candidate").run(subprocess.run, command, check=False)
client.stop()

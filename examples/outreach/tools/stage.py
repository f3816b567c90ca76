#!/usr/bin/env python3
"""Notes that somebody is at another stage: {"consumer": "c-1", "stage": "introduced"} in, what is so now out.

Changes are lines of data/stages.jsonl, each with the key of the call that made it: a call that is made again
finds its line there. The file is written beside itself and renamed, so it is whole at every moment, and
locked, because many may write at once.
"""

import fcntl
import json
import os
import sys

FILE = "data/stages.jsonl"

asked = json.load(sys.stdin)
key = os.environ["CHARGEHAND_IDEMPOTENCY_KEY"]
with open("data/stages.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open(FILE) as file:
        lines = file.readlines()
    changed = all(json.loads(line)["key"] != key for line in lines)
    if changed:
        change = {"consumer": asked["consumer"], "stage": asked["stage"], "key": key}
        with open(FILE + ".new", "w") as file:
            file.writelines([*lines, json.dumps(change) + "\n"])
            file.flush()
            os.fsync(file.fileno())
        os.rename(FILE + ".new", FILE)
print(json.dumps({"success": True, "consumer": asked["consumer"], "stage": asked["stage"]}))

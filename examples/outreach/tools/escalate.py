#!/usr/bin/env python3
"""Hands something to people: {"consumer", "reason", "message"} in, the thread that was opened out.

The desk is told by one request to DESK_URL. A person who is called twice about one thing trusts no third
call: so nobody makes this call again by itself, and a desk that is told anyway knows it by its key.
"""

import json
import os
import sys
import urllib.error
import urllib.request

asked = json.load(sys.stdin)
request = urllib.request.Request(
    os.environ["DESK_URL"],
    data=json.dumps(asked).encode(),
    headers={"Content-Type": "application/json", "Idempotency-Key": os.environ["CHARGEHAND_IDEMPOTENCY_KEY"]},
)
try:
    with urllib.request.urlopen(request, timeout=14) as answer:
        thread = json.load(answer)["thread_id"]
except (OSError, ValueError, KeyError) as fault:
    sys.exit(f"the desk did not take it: {fault}")
print(json.dumps({"success": True, "thread_id": thread}))

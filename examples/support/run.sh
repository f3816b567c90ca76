#!/bin/sh
# A support desk of agents, without a key: a supervisor plans a brief per letter, a clerk looks the
# orders up with a real tool, one claim without a receipt is refused, and the answer cites what it
# rests on. Answers come from transcript.json; crew.yaml says how to ask a model instead.
#
#     examples/support/run.sh
#
# It needs `chargehand` on the path, or CHARGEHAND=path/to/chargehand, and leaves nothing behind.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
chargehand=${CHARGEHAND:-chargehand}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CHARGEHAND_STORE="$work/store"

"$chargehand" run "Answer the open letters" --crew "$here/crew.yaml" \
    --input "$here/tickets.jsonl" 2>"$work/progress" || { cat "$work/progress" >&2; exit 1; }

echo
echo "== The replies"
"$chargehand" tasks list --output json | sed -n 's/^ *"output": {"agent".*"result":"\([^"]*\)".*/\1/p'

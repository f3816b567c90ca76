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

# What a run printed, without what to look at next: its store is gone when this ends.
result() { sed '/^next /,$d' "$work/out"; }

"$chargehand" run "Answer the open letters" --crew "$here/crew.yaml" \
    --input "$here/tickets.jsonl" >"$work/out" 2>"$work/progress" || { cat "$work/progress" >&2; exit 1; }
result

echo
echo "== The replies"
"$chargehand" tasks list --output json | sed -n 's/^ *"output": {"agent".*"result":"\([^"]*\)".*/\1/p'

echo
echo "== Letter T-2: what was claimed first had no receipt; it was refused, and looked up"
"$chargehand" tasks list --output json | sed -n 's/^ *"task_id": "\(task_[0-9a-z]*\)".*/\1/p' >"$work/tasks"
while read -r task; do
    "$chargehand" tasks show "$task" >"$work/task"
    grep -q '^    brief: b2$' "$work/task" || continue
    sed -n -E -e 's/^  step +(turn_[0-9]+)_.*"text":"([^"{]+)".*/\1: \2/p' \
        -e 's/^  step +(call_[0-9]+)_.*"tool":"([^"]*)".*/\1: \2 (the receipt)/p' "$work/task"
done <"$work/tasks"

#!/bin/sh
# Batch after batch (S1-04), with live numbers of each while it runs (S1-90).
#
# Three batches of different size, a task per job, five workers. Beside the run another process looks
# at the same store and prints how many jobs are done and how many are not; it only reads. Offline,
# without a key or a service:
#
#     examples/batches/run.sh
#
# It needs `chargehand` on the path, or CHARGEHAND=path/to/chargehand, and leaves nothing behind.
set -eu

chargehand=${CHARGEHAND:-chargehand}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for batch in 1 2 3; do
    # A store for each batch, so that its numbers are its own.
    export CHARGEHAND_STORE="$work/store-$batch"
    jobs=$((batch * 15))
    job=0
    while [ "$job" -lt "$jobs" ]; do
        job=$((job + 1))
        echo "{\"job\": \"$batch-$job\"}"
    done >"$work/jobs.jsonl"

    "$chargehand" run "Process batch $batch" --input "$work/jobs.jsonl" \
        --worker-command 'sleep 0.1; echo true' --workers 5 >/dev/null 2>&1 &
    running=$!
    shown=
    while kill -0 "$running" 2>/dev/null; do
        # The store may not be there yet.
        numbers=$("$chargehand" status 2>/dev/null |
            sed -n 's/^tasks *\([0-9]*\) pending.* \([0-9]*\) completed.*/\2 completed, \1 pending/p') || numbers=
        if [ -n "$numbers" ] && [ "$numbers" != "$shown" ]; then
            echo "batch $batch: $numbers"
            shown=$numbers
        fi
        sleep 0.1
    done
    wait "$running"
    "$chargehand" status |
        sed -n "s/^tasks *\([0-9]*\) pending.* \([0-9]*\) completed.*/batch $batch is done: \2 completed, \1 pending/p"
done

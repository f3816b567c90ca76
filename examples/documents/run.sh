#!/bin/sh
# The supervisor-worker pattern (S1-01, S1-04): many documents, read in parallel.
#
# A hundred reviews in a hundred tasks for five workers, then the ten they were made of, summarized.
# Offline, without a key or a service. Run it from anywhere:
#
#     examples/documents/run.sh
#
# It needs `chargehand` on the path, or CHARGEHAND=path/to/chargehand, and leaves nothing behind.
set -eu

reviews=$(cd "$(dirname "$0")/../reviews" && pwd)
chargehand=${CHARGEHAND:-chargehand}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CHARGEHAND_STORE="$work/store"

# What a run printed, without what to look at next: its store is gone when this ends.
result() { sed '/^next /,$d' "$work/out"; }

mkdir "$work/reviews"
for copy in 0 1 2 3 4 5 6 7 8 9; do
    for review in "$reviews"/*.txt; do
        cp "$review" "$work/reviews/$copy-${review##*/}"
    done
done

echo "== The sentiment of 100 reviews"
"$chargehand" run "Analyze the sentiment of 100 customer reviews" \
    --input "$work/reviews" --workers 5 --tasks 100 >"$work/out" 2>/dev/null
result

echo
echo "== A summary of each document"
"$chargehand" run "Summarize these documents" --input "$reviews" --workers 3 >"$work/out" 2>/dev/null
result

echo
echo "== What the crew did"
"$chargehand" status

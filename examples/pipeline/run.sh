#!/bin/sh
# A data pipeline in two stages (S1-04, S1-86): stage 2 works on what stage 1 found (S1-87).
#
# Stage 1 extracts the amounts and dates from 10 sources, with 3 workers in 10 tasks. Its results, a
# JSON array, are the input of stage 2: 2 workers in 5 tasks make a table of them and sum it up by
# currency. Offline, without a key or a service:
#
#     examples/pipeline/run.sh
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

echo "== Stage 1: extract"
"$chargehand" run "Extract data from 10 sources" --input "$here/sources" \
    --workers 3 --tasks 10 --output json >"$work/stage1.json"

# The part from `"results": [` to its end is the array; with jq it would be `jq .results`.
sed -n '/^  "results": \[$/,/^  \],\{0,1\}$/p' "$work/stage1.json" |
    sed -e '1s/.*/[/' -e '$s/.*/]/' >"$work/extracted.json"
echo "$(grep -c '"source": {' "$work/extracted.json") results"

echo
echo "== Stage 2: transform"
"$chargehand" run "Transform the extracted data" --input "$work/extracted.json" \
    --workers 2 --tasks 5 --skill json.shape --options '{
        "filter": "item.output.amounts.size() > 0",
        "select": {
            "source": "item.source.file",
            "date": "item.output.dates[0].date",
            "amount": "item.output.amounts[0].value"
        },
        "group": "item.output.amounts[0].currency"
    }' >"$work/out" 2>/dev/null
result

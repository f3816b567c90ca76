#!/bin/sh
# The support desk, without a key: a supervisor plans, clerks look orders up, everything has a receipt.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
"${CHARGEHAND:-chargehand}" --store "$store/store" run "Answer the open letters" \
    --crew "$here/crew.yaml" --input "$here/tickets.jsonl" 2>/dev/null

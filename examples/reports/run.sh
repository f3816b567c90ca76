#!/bin/sh
# Work that fails at first (S1-04, S1-88): 50 department reports by 10 workers.
#
# Each report is made by a program, report.sh, which needs the department's figures. Those of every
# seventh department come late. So 7 tasks fail, the rest is done and kept; when the figures are there
# the failed tasks are listed and given to another worker (S1-89), and the run ends whole. No report
# that was made is made again. Offline, without a key or a service:
#
#     examples/reports/run.sh
#
# It needs `chargehand` on the path, or CHARGEHAND=path/to/chargehand, and leaves nothing behind.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
chargehand=${CHARGEHAND:-chargehand}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CHARGEHAND_STORE="$work/store"
export FIGURES="$work/figures" MADE="$work/made"

mkdir "$FIGURES"
echo department >"$work/departments.csv"
n=1
while [ "$n" -le 50 ]; do
    echo "department-$n" >>"$work/departments.csv"
    [ $((n % 7)) -eq 0 ] || echo "$((n * 1000))" >"$FIGURES/department-$n"
    n=$((n + 1))
done

echo "== First try"
"$chargehand" run "Generate reports for 50 departments" --input "$work/departments.csv" \
    --worker-command "sh '$here/report.sh'" --workers 10 --tasks 50 --attempts 1 \
    >/dev/null 2>&1 || echo "the run failed (exit code $?), as it should"
"$chargehand" status | grep '^tasks'

echo
echo "== The figures arrive; what failed goes to another worker"
for n in 7 14 21 28 35 42 49; do
    echo "$((n * 1000))" >"$FIGURES/department-$n"
done
"$chargehand" tasks list --status failed --limit 1000 --output json |
    sed -n 's/^ *"task_id": "\(task_[0-9a-z]*\)".*/\1/p' >"$work/failed"
echo "$(grep -c . "$work/failed") failed"
while read -r task; do
    "$chargehand" tasks reassign "$task" worker_10 >/dev/null
done <"$work/failed"
"$chargehand" resume >/dev/null 2>&1
"$chargehand" status | grep '^tasks'

echo
echo "$(sort -u "$MADE" | grep -c .) departments, $(grep -c . "$MADE") reports made"

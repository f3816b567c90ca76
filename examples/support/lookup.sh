#!/bin/sh
# Looks an order up: {"order": "4711"} in, what is known of it out.
set -eu
order=$(sed -n 's/.*"order" *: *"\([0-9]*\)".*/\1/p')
line=$(grep "^$order," orders.csv) || { echo "there is no order $order" >&2; exit 1; }
echo "$line" | awk -F, '{printf "{\"order\": \"%s\", \"state\": \"%s\", \"since\": \"%s\", \"note\": \"%s\"}\n", $1, $2, $3, $4}'

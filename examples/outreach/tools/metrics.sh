#!/bin/sh
# How the campaign does: {"channel": "email"} in, counts and rates out.
set -eu
channel=$(sed -n 's/.*"channel" *: *"\([a-z]*\)".*/\1/p')
awk -F, -v channel="$channel" '
    $2 == channel { count[$3]++ }
    function rate(event) { return count["sent"] ? count[event] / count["sent"] : 0 }
    END {
        printf "{\"channel\": \"%s\", \"sent\": %d, \"opened\": %d, \"clicked\": %d, \"replied\": %d, ", \
            channel, count["sent"], count["opened"], count["clicked"], count["replied"]
        printf "\"open_rate\": %.2f, \"click_rate\": %.2f}\n", rate("opened"), rate("clicked")
    }' data/events.csv

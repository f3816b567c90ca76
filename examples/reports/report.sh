#!/bin/sh
# A worker program: the brief as JSON on standard input, the result as JSON on standard output.
set -eu

department=$(tr ',{}' '\n\n\n' | sed -n 's/^ *"department" *: *"\([^"]*\)".*/\1/p')
if ! figures=$(cat "$FIGURES/$department" 2>/dev/null); then
    echo "the figures of $department are not there yet" >&2
    exit 1
fi
echo "$department" >>"$MADE"
echo "{\"department\": \"$department\", \"revenue\": $figures}"

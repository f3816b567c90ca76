#!/bin/sh
# What is known of somebody: {"consumer": "c-1"} in, the profile and the stage it is at out.
set -eu
who=$(sed -n 's/.*"consumer" *: *"\(c-[0-9]*\)".*/\1/p')
profile=$(grep -F "\"id\": \"$who\"" data/consumers.jsonl) || { echo "nobody is called $who" >&2; exit 1; }
stage=$(grep -F "\"consumer\": \"$who\"" data/stages.jsonl | tail -n 1 | sed -n 's/.*"stage": "\([a-z_]*\)".*/\1/p')
printf '{"consumer": "%s", "stage": "%s", "profile": %s}\n' "$who" "${stage:-new}" "$profile"

#!/bin/sh
# A campaign by a crew of three kinds of workers, without a key: e-mails, WhatsApp messages and an SMS are
# written, sent by real tools and noted; replies are answered, or handed to people; what came of it is counted.
# Answers come from transcript.json; crew.yaml says how to ask a model instead, and how to send for real.
#
#     examples/outreach/run.sh
#
# Nothing leaves the machine: a mail server, Twilio and the people's desk are receiver.py, on free ports of
# 127.0.0.1, with made-up accounts. It needs python3, and `chargehand` on the path, or
# CHARGEHAND=path/to/chargehand, and leaves nothing behind.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
chargehand=${CHARGEHAND:-chargehand}
work=$(mktemp -d)
receiver=
trap '[ -z "$receiver" ] || { kill "$receiver" && wait "$receiver" || :; } 2>/dev/null; rm -rf "$work"' EXIT
export CHARGEHAND_STORE="$work/store"

# What a run printed, without what to look at next: its store is gone when this ends.
result() { sed '/^next /,$d' "$work/out"; }

# The crew's data changes as it works: so it works on a copy.
cp -R "$here" "$work/crew"
python3 "$here/receiver.py" "$work" &
receiver=$!
until [ -e "$work/ports" ]; do
    kill -0 "$receiver" || exit 1
    sleep 0.05
done
read -r mail web <"$work/ports"
sed -e "s|SMTP_URL: smtp://email.*|SMTP_URL: smtp://127.0.0.1:$mail|" \
    -e "s|https://api.twilio.com|http://127.0.0.1:$web|" \
    -e "s|https://desk.example.org|http://127.0.0.1:$web|" \
    "$here/crew.yaml" >"$work/crew/crew.yaml"
export CHARGEHAND_SECRET_AWS_ACCESS_KEY_ID=demo CHARGEHAND_SECRET_AWS_SECRET_ACCESS_KEY=made-up-secret
export CHARGEHAND_SECRET_TWILIO_ACCOUNT_SID=AC00000000000000000000000000000000
export CHARGEHAND_SECRET_TWILIO_AUTH_TOKEN=made-up-token

"$chargehand" run "Open the enrollment week" --crew "$work/crew/crew.yaml" \
    --input "$here/inbox.jsonl" >"$work/out" 2>"$work/progress" || { cat "$work/progress" >&2; exit 1; }
result

echo
echo "== What was sent (to receiver.py, on this machine)"
sort "$work/received.jsonl"
echo
echo "== Who is where now"
sed 's/, "key".*//; s/^{//' "$work/crew/data/stages.jsonl"
echo
echo "== What the crew wanted and did not have"
"$chargehand" tools missing

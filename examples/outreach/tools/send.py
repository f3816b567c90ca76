#!/usr/bin/env python3
"""Sends one message to somebody on the list: send.py email|whatsapp|sms.

{"consumer": "c-1", "subject": …, "body": …} in (only e-mail has a subject), {"success": true, "message_id": …}
out. Agents name a person of the list, never an address: nobody who writes to them can choose where mail goes.

A call is known by its key, and sent once. What was sent has a receipt in data/sent. A call that broke off
before its receipt was written may have been sent: a mail has a Message-ID made of the key, by which mailboxes
know it again; Twilio is asked whether it has sent these words to this number since the call was begun. (Two
calls with the same words to the same number within a minute, one of which broke off, may count as one.) Keys
and passwords go over TLS, or to this very machine, and into no message.
"""

import base64
import email.message
import email.utils
import hashlib
import hmac
import http.client
import json
import os
import re
import smtplib
import ssl
import sys
import time
import urllib.parse

SENT = "data/sent"
# A clock elsewhere may be so many seconds behind ours.
SKEW = 60
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Less than the tool's own time, so that what went wrong can be told.
PATIENCE = 25

HIDDEN = []


def hide(secret):
    """What others say of it is not told on. (What Chargehand itself handed over, it hides by itself.)"""
    HIDDEN.append(secret)


def refuse(why):
    """Ends with a word about why, in which nothing is that only the provider may know."""
    for secret in HIDDEN:
        why = why.replace(secret, "…")
    sys.exit(why)


def setting(name, form):
    """A variable that must have this form: told before anything is sent."""
    value = os.environ.get(name, "")
    if not re.fullmatch(form, value):
        refuse(f"{name} is “{value}”, which is not of the form it must have")
    return value


def written(name, content):
    """A file that is there whole, or not at all."""
    with open(name + ".new", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(name + ".new", name)


# --- e-mail ------------------------------------------------------------------------------------------------


def ses_password(secret, region):
    """The password of Amazon SES's SMTP interface, which is made of the secret access key."""
    signature = ("AWS4" + secret).encode()
    for part in ("11111111", region, "ses", "aws4_request", "SendRawEmail"):
        signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
    return base64.b64encode(b"\x04" + signature).decode()


def send_email(person, asked, key, _begun):
    sender = setting("SES_SENDER_EMAIL", r"[^@\s<>,;]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
    region = setting("AWS_REGION", r"[a-z]{2}(-[a-z]+)+-\d")
    try:
        at = urllib.parse.urlsplit(os.environ["SMTP_URL"].replace("{AWS_REGION}", region))
        port = at.port or (465 if at.scheme == "smtps" else 587)
    except ValueError:
        # Its own words have a part of the address in them.
        refuse("SMTP_URL is no address; what is special in its password must be written like %2F")
    user, password = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if user and password:
        password = ses_password(password, region)
    else:
        # Another provider: its user and its password are in the address.
        user, password = urllib.parse.unquote(at.username or ""), urllib.parse.unquote(at.password or "")
    if password:
        hide(base64.b64encode(f"\0{user}\0{password}".encode()).decode())
        hide(base64.b64encode(password.encode()).decode())
        hide(password)

    mail = email.message.EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, person["email"], asked["subject"]
    mail["Date"] = email.utils.formatdate()
    mail["Message-ID"] = f"<{key}@{sender.split('@')[1]}>"
    mail.set_content(asked["body"])

    try:
        server = smtplib.SMTP_SSL if at.scheme == "smtps" else smtplib.SMTP
        with server(at.hostname, port, timeout=PATIENCE) as smtp:
            smtp.ehlo()
            if at.scheme != "smtps" and smtp.has_extn("starttls"):
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            elif at.scheme != "smtps" and at.hostname not in LOOPBACK:
                refuse(f"the mail server {at.hostname} offers no TLS: nothing was sent")
            if password:
                smtp.login(user, password)
            smtp.send_message(mail)
    except (OSError, UnicodeError, smtplib.SMTPException) as fault:
        refuse(f"the mail server {at.hostname} did not take it: {fault}")
    return mail["Message-ID"]


# --- WhatsApp and SMS ---------------------------------------------------------------------------------------


def twilio(method, path, form):
    """One request, which is followed nowhere else."""
    base = urllib.parse.urlsplit(os.environ["TWILIO_BASE_URL"])
    account, token = setting("TWILIO_ACCOUNT_SID", r"AC[0-9a-f]{32}"), os.environ["TWILIO_AUTH_TOKEN"]
    basic = base64.b64encode(f"{account}:{token}".encode()).decode()
    hide(basic)
    if base.scheme == "https":
        to = http.client.HTTPSConnection(base.netloc, timeout=PATIENCE)
    elif base.hostname in LOOPBACK:
        to = http.client.HTTPConnection(base.netloc, timeout=PATIENCE)
    else:
        refuse("TWILIO_BASE_URL is not https: nothing was sent")
    form = urllib.parse.urlencode(form)
    path = f"{base.path}/2010-04-01/Accounts/{account}/{path}"
    headers = {"Authorization": "Basic " + basic}
    try:
        if method == "GET":
            to.request("GET", f"{path}?{form}", headers=headers)
        else:
            to.request("POST", path, form, {**headers, "Content-Type": "application/x-www-form-urlencoded"})
        answer = to.getresponse()
        said = json.loads(answer.read(1 << 20) or b"null")
    except (OSError, http.client.HTTPException, ValueError) as fault:
        refuse(f"Twilio did not answer: {fault or type(fault).__name__}")
    if answer.status >= 300 or not isinstance(said, dict):
        said = said.get("message", "") if isinstance(said, dict) else ""
        refuse(f"Twilio refused it with {answer.status}: {said}")
    return said


def send_phone(sender, to, asked, begun):
    if begun is not None:
        # An earlier try broke off: was it sent all the same?
        listed = twilio("GET", "Messages.json", {"From": sender, "To": to, "PageSize": "100"})
        for message in listed["messages"]:
            since = email.utils.parsedate_to_datetime(message["date_created"]).timestamp()
            if message["body"] == asked["body"] and since >= begun - SKEW:
                return message["sid"]
    return twilio("POST", "Messages.json", {"From": sender, "To": to, "Body": asked["body"]})["sid"]


def send_whatsapp(person, asked, _key, begun):
    sender = setting("TWILIO_WHATSAPP_FROM", r"whatsapp:\+[1-9]\d{6,14}")
    return send_phone(sender, "whatsapp:" + person["phone"], asked, begun)


def send_sms(person, asked, _key, begun):
    sender = setting("TWILIO_SMS_FROM", r"\+[1-9]\d{6,14}")
    return send_phone(sender, person["phone"], asked, begun)


# ------------------------------------------------------------------------------------------------------------


def main():
    channel = sys.argv[1]
    send = {"email": send_email, "whatsapp": send_whatsapp, "sms": send_sms}[channel]
    asked = json.load(sys.stdin)
    with open("data/consumers.jsonl") as file:
        people = {person["id"]: person for person in map(json.loads, file)}
    if asked["consumer"] not in people:
        refuse(f"nobody is called {asked['consumer']}")
    key = hashlib.sha256(os.environ["CHARGEHAND_IDEMPOTENCY_KEY"].encode()).hexdigest()[:32]
    os.makedirs(SENT, exist_ok=True)
    receipt = {"begun": time.time()}
    try:
        with open(f"{SENT}/{key}.json") as file:
            receipt = json.load(file)
        begun = receipt["begun"]
    except FileNotFoundError:
        begun = None
        written(f"{SENT}/{key}.json", receipt)
    if "message_id" not in receipt:
        receipt["message_id"] = send(people[asked["consumer"]], asked, key, begun)
        written(f"{SENT}/{key}.json", receipt)
    sent = {"success": True, "message_id": receipt["message_id"]}
    print(json.dumps({**sent, "channel": channel, "consumer": asked["consumer"]}))


main()

#!/usr/bin/env python3
"""Takes, on this machine, what the demo sends: a mail server, Twilio's two paths and a desk, in one program.

    receiver.py FOLDER

It listens on free ports of 127.0.0.1, which it writes to FOLDER/ports, and notes each thing that it received as
a line of FOLDER/received.jsonl, once its sender has been told that it is here. It goes when it is told to.
"""

import email
import email.policy
import email.utils
import http.server
import json
import os
import socketserver
import sys
import threading
import urllib.parse

FOLDER = sys.argv[1]
LOCK = threading.Lock()
MESSAGES = []


def note(thing):
    with LOCK, open(os.path.join(FOLDER, "received.jsonl"), "a") as file:
        file.write(json.dumps(thing) + "\n")


class Mail(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 demo")
        for line in self.rfile:
            word = line.split()[0].upper() if line.split() else b""
            if word == b"EHLO":
                self.say("250-demo")
                self.say("250 AUTH PLAIN")
            elif word == b"AUTH":
                self.say("235 welcome")
            elif word == b"DATA":
                self.say("354 go on")
                self.take()
                self.say("250 taken")
            elif word == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

    def take(self):
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b"..") else line)
        mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        note({"channel": "email", "to": mail["To"], "subject": mail["Subject"], "body": mail.get_content()})


class Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with LOCK:
            self.answer({"messages": list(MESSAGES)})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/threads":
            note({"channel": "desk", **json.loads(body)})
            self.answer({"thread_id": "demo"})
            return
        form = dict(urllib.parse.parse_qsl(body))
        channel = "whatsapp" if form["To"].startswith("whatsapp:") else "sms"
        note({"channel": channel, "to": form["To"], "body": form["Body"]})
        with LOCK:
            sid = f"SM{len(MESSAGES) + 1:032x}"
            MESSAGES.append({"sid": sid, "body": form["Body"], "date_created": email.utils.formatdate()})
        self.answer({"sid": sid})


class Mails(socketserver.ThreadingTCPServer):
    daemon_threads = True


mails = Mails(("127.0.0.1", 0), Mail)
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
threading.Thread(target=mails.serve_forever, daemon=True).start()
with open(os.path.join(FOLDER, "ports.new"), "w") as file:
    file.write(f"{mails.server_address[1]} {web.server_address[1]}\n")
os.rename(os.path.join(FOLDER, "ports.new"), os.path.join(FOLDER, "ports"))
web.serve_forever()

#!/usr/bin/env python3
"""What the list of frequent questions can answer, and what a person has to.

    faq.py search   {"question": …} in, the questions that are most like it out, with their answers
    faq.py decide   {"consumer": …, "message": …} in, out whether a person has to answer, and why

Only a message that is plainly a frequent question, and touches nothing that is a person's to settle, is for
an agent. Whatever is not understood is for a person.
"""

import json
import re
import sys

# What is a person's to settle, by words that tell it.
TOPICS = {
    "pricing_negotiation": r"payment plan|instal?lments?|discount|cheaper|too expensive|deal|\d+[- ]months?",
    "refund": r"refund|money back|cancel",
    "complaint": r"complain|unacceptable|angry|disappointed|terrible|rude|third time|still waiting",
    "legal": r"lawyer|legal|gdpr|delete my data|contract",
    "health": r"injur|pregnan|doctor|surgery|pain|medication",
    "asks_for_a_person": r"human|real person|somebody|someone|call me|speak (to|with)|talk (to|with)",
}
# The part of its words that a message shares with the frequent question that it is taken for.
LIKE_MIN = 0.6
COMMON = set("a an and any at be can do does for have how i in is it me my of on please the to what when will".split())


def words(text):
    return set(re.findall(r"[a-z0-9]+", text.lower())) - COMMON


def like(text):
    """The frequent questions, the most like this one first, each with how much it is, from 0 to 1."""
    asked, found = words(text), []
    with open("data/faq.jsonl") as file:
        for line in file:
            entry = json.loads(line)
            own = words(entry["question"])
            shared = len(asked & own) / len(asked | own) if asked else 0.0
            found.append({**entry, "score": round(shared, 2)})
    return sorted(found, key=lambda entry: -entry["score"])


def decision(message):
    for topic, marks in TOPICS.items():
        if re.search(rf"\b({marks})", message, re.IGNORECASE):
            return True, topic
    best = like(message)[0]
    if best["score"] >= LIKE_MIN:
        return False, "a frequent question: " + best["question"]
    return True, "uncertain"


asked = json.load(sys.stdin)
if sys.argv[1] == "search":
    matches = [entry for entry in like(asked["question"]) if entry["score"] > 0]
    print(json.dumps({"matches": matches[:3]}))
else:
    escalate, reason = decision(asked["message"])
    print(json.dumps({**asked, "escalate": escalate, "reason": reason}))

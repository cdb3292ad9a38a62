"""What Python's json finds in a body, which it gets as bytes, as apps give it what they received.

Each question is its length in four bytes, little-endian, a line with the reference tokens of pointers as JSON, and the body.
Each answer is a line of JSON; what stands in it is described in ../src/parsers.rs.
"""

import json
import struct
import sys


class Number(str):
    """A number as it is written."""


class Members(list):
    """The members of an object, those that are there twice included."""


class Twice(Exception):
    pass


def found(value, tokens):
    if not tokens:
        if value is None:
            return "null"
        if isinstance(value, Number):
            return {"number": value}
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                return "other"
            return {"text": value}
        return "other"
    token, rest = tokens[0], tokens[1:]
    is_index = token.isascii() and token.isdigit()
    if isinstance(value, Members):
        values = [] if is_index else [value for name, value in value if name == token]
        if len(values) > 1:
            raise Twice
        return found(values[0], rest) if values else "absent"
    if isinstance(value, list) and token == "*":
        each = []
        for item in value:
            one = found(item, rest)
            each.extend(one["each"] if "each" in one else [one])
        return {"each": each}
    if isinstance(value, list) and is_index and token in map(str, range(len(value))):
        return found(value[int(token)], rest)
    return "absent"


def answer(pointers, body):
    try:
        document = json.loads(body, parse_int=Number, parse_float=Number, object_pairs_hook=Members)
    except (ValueError, RecursionError):
        return None
    try:
        return {"found": [found(document, tokens) for tokens in pointers]}
    except Twice:
        return "twice"


while length := sys.stdin.buffer.read(4):
    pointers, _, body = sys.stdin.buffer.read(*struct.unpack("<I", length)).partition(b"\n")
    print(json.dumps(answer(json.loads(pointers), body)), flush=True)

// What Node's JSON.parse finds in a body, decoded as fetch does it: bytes that are no UTF-8 are replaced, a byte order mark is
// skipped. Questions and answers are those of find.py; of names that are there twice JSON.parse knows only the last.
"use strict";
const fs = require("fs");

function read(length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const count = fs.readSync(0, bytes, at, length - at, null);
    if (count === 0) process.exit(0);
    at += count;
  }
  return bytes;
}

function found(value, [token, ...rest]) {
  if (token === undefined) {
    if (value === null) return "null";
    if (typeof value === "number") return { number: String(value) };
    return typeof value === "string" && !/\p{Surrogate}/u.test(value) ? { text: value } : "other";
  }
  const isIndex = /^[0-9]+$/.test(token);
  if (Array.isArray(value)) {
    if (token === "*") {
      return { each: value.map((item) => found(item, rest)).flatMap((one) => one.each ?? [one]) };
    }
    return isIndex && token === String(Number(token)) && token < value.length ? found(value[token], rest) : "absent";
  }
  const isThere = value !== null && typeof value === "object" && !isIndex && Object.hasOwn(value, token);
  return isThere ? found(value[token], rest) : "absent";
}

function answer(pointers, body) {
  let value;
  try {
    value = JSON.parse(new TextDecoder().decode(body));
  } catch {
    return null;
  }
  return { found: pointers.map((tokens) => found(value, tokens)) };
}

for (;;) {
  const question = read(read(4).readUInt32LE());
  const end = question.indexOf(10);
  const told = answer(JSON.parse(question.subarray(0, end)), question.subarray(end + 1));
  fs.writeSync(1, JSON.stringify(told) + "\n");
}

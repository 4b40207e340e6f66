// Times, numbers and small pieces of text as the pages write them.

import { make } from "./viewer.js";

export const MINUS = "\u2212", DASH = "\u2013";

export function numberText(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  const text = Math.abs(value) >= 10 ** digits ? String(Math.round(value)) : String(Number(value.toPrecision(digits)));
  return text.replace("-", MINUS);
}

// A number and the ends of its interval, with as many decimals as the number needs for three digits.
export function intervalTexts(value, low, high) {
  const size = Math.abs(value) || Math.max(Math.abs(low), Math.abs(high)) || 1;
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return [value, low, high].map((one) => one.toFixed(Math.min(decimals, 8)).replace("-", MINUS));
}

// Of a time in ISO 8601, or in seconds since 1970.
export function millis(at) {
  return typeof at === "number" ? 1000 * at : Date.parse(at);
}

export function since(at, now = Date.now()) {
  const minutes = Math.max(0, Math.floor((now - millis(at)) / 60000));
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
  return `${Math.floor(minutes / 1440)} d`;
}

export function timeText(at) {
  const date = new Date(millis(at)), two = (n) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// What a person made of a result, else how it ended: "answered" is said of an answer alone.
export function standing(row) {
  const verdict = row.verdict?.verdict ?? row.verdict, isAhead = ["receiving", "aside", "superseded", "cancelled"].includes(row.state);
  return verdict || (isAhead ? row.state : row.outcome) || row.state;
}

// Why there is no answer, with the word for that; empty where there is one.
export function unanswered({ outcome, reason }) {
  return outcome && outcome !== "answered" ? `${outcome}: ${reason || "no reason is recorded"}` : "";
}

export function pill(text, kind) {
  return make("span", { className: `pill ${kind}`, text });
}

// A table with a name; rows: cells, each a text or an element
export function table(name, heads, rows) {
  const isTime = (content) => /^\d{4}-\d\d-\d\d( |$)/.test(content); // which stays on one line
  const cell = (tag, content) => make(tag, isTime(content) ? { className: "short" } : {}, content ?? "");
  const head = make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { text, scope: "col" }))));
  const body = make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((content) => cell("td", content)))));
  return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: name }, make("table", { ariaLabel: name }, head, body));
}

export function empty(text) {
  return make("p", { className: "empty", text });
}

export function notice(text, kind = "") {
  const made = make("p", { className: `notice ${kind}`.trim(), text });
  if (kind === "error") made.setAttribute("role", "alert");
  return made;
}

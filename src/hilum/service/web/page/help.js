// The keys, in a dialog.

import { button, make } from "./viewer.js";

const KEYS = {
  "Worklist": [["\u2191 \u2193", "row before, row after"], ["Enter", "open the study"], ["/", "search"]],
  "Images": [
    ["\u2191 \u2193 \u2190 \u2192", "slice or frame"], ["Page \u2191 \u2193", "ten slices"], ["Home, End", "first, last slice"],
    ["f", "next finding"], ["w", "next window"], ["o", "masks, boxes and maps on or off"], ["+ \u2212", "zoom"],
  ],
  "Correct": [
    ["b", "brush"], ["e", "eraser"], ["[ ]", "size"], ["z", "undo"], ["s", "save"], ["Esc", "put the tool away"],
  ],
  "Judge": [["a", "accept"], ["c", "correct"], ["r", "reject"], ["n", "next study"], ["?", "this help"]],
};
const POINTER = [
  ["wheel", "slice"], ["Ctrl + wheel", "zoom"], ["drag", "crosshair, or the tool"], ["right or Shift + drag", "window"],
  ["middle or Alt + drag", "move"], ["double click", "whole slice"],
];

export function showHelp() {
  const open = document.querySelector("dialog.help");
  if (open) return open.close();
  const list = (rows) => make("dl", {}, ...rows.flatMap(([key, text]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text })]));
  const groups = Object.entries({ ...KEYS, "Pointer": POINTER }).map(([name, rows]) => make("section", {}, make("h3", { text: name }), list(rows)));
  const dialog = make("dialog", { className: "help", ariaLabel: "Help" }, make("h2", { text: "Keys" }), make("div", { className: "columns" }, ...groups));
  dialog.append(make("form", { method: "dialog" }, button("Close", () => dialog.close())));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

// Whether a key is meant for a field, not for the page.
export function isTyping(event) {
  const { target } = event;
  return event.ctrlKey || event.metaKey || event.altKey || target.matches?.("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select");
}

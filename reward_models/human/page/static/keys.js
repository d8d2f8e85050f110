// Keys: what acts at once, what is left to text fields, and the list of all of them.

import { element } from "./texts.js";

const SWITCH = "single-keys";

export class Keys {
  // keep: where the switch is remembered; bindings(): [{keys, label, act}] of now.
  constructor(keep, bindings) {
    this.keep = keep;
    this.bindings = bindings;
    this.dialog = document.getElementById("keys");
    this.toggle = document.getElementById("keys-on");
    this.toggle.checked = keep.get(SWITCH) !== false;
    this.toggle.addEventListener("change", () => keep.set(SWITCH, this.toggle.checked));
    document.getElementById("help").addEventListener("click", () => this.show());
    document.getElementById("keys-close").addEventListener("click", () => this.dialog.close());
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  pressed(event) {
    if (event.defaultPrevented || event.repeat || event.altKey || this.dialog.open) return;
    const writes = event.target.matches?.("textarea, input[type=number]");
    const name = event.key === "Enter" && (event.ctrlKey || event.metaKey) ? "Ctrl+Enter" : event.key;
    if (name === "Escape" && (writes || event.target.closest?.("#overall"))) {
      event.target.blur();
      return;
    }
    const plain = name !== "Ctrl+Enter";
    if (plain && (event.ctrlKey || event.metaKey || writes || !this.toggle.checked)) return;
    if (name === "Enter" && event.target.closest?.("button, a, summary, input")) return;
    const wanted = name.length === 1 ? name.toLowerCase() : name;
    const found = this.bindings(event.target).find(({ keys }) => keys.includes(wanted));
    if (!found) return;
    event.preventDefault();
    found.act();
  }

  show() {
    const rows = this.bindings(document.body).flatMap(({ keys, label }) => [
      element("dt", {}, ...keys.map((name) => element("kbd", { text: name }))),
      element("dd", { text: label }),
    ]);
    document.getElementById("keys-list").replaceChildren(...rows);
    this.dialog.showModal();
  }
}

// A ranking in the making: by the answers' numbers, by buttons, or by dragging. The first alone is a pick of the best.

import { element } from "./texts.js";

const ORDINALS = ["1st", "2nd", "3rd"];
export const ordinal = (place) => ORDINALS[place - 1] ?? `${place}th`;

export class Ranking {
  constructor(list, hint, { count, names, onChange }) {
    this.list = list;
    this.hint = hint;
    this.count = count;
    this.names = names;
    this.onChange = onChange;
    this.order = []; // answers by place, best first
    this.tied = new Set(); // answers that share the place of the one before them
  }

  restore({ order = [], tied = [] } = {}) {
    const fits = order.every((one) => Number.isInteger(one) && one >= 0 && one < this.count) && new Set(order).size === order.length;
    this.order = fits ? [...order] : [];
    this.tied = new Set(fits ? tied : []);
    this.changed();
  }

  // Places with ties counted on by size: 1, 1, 3.
  placeOf(answer) {
    let at = this.order.indexOf(answer);
    if (at < 0) return null;
    while (at > 0 && this.tied.has(this.order[at])) at--;
    return at + 1;
  }

  get verdict() {
    if (this.order.length === this.count) {
      return { kind: "ranks", ranks: Array.from({ length: this.count }, (_, answer) => this.placeOf(answer)) };
    }
    return this.order.length === 1 ? { kind: "best_of", best: this.order[0] } : null;
  }

  press(answer) {
    if (this.order.includes(answer)) this.take(answer);
    else this.put(answer, this.order.length);
  }

  put(answer, at) {
    this.order = this.order.filter((one) => one !== answer);
    this.order.splice(at, 0, answer);
    if (this.order.length === this.count - 1) {
      this.order.push([...Array(this.count).keys()].find((one) => !this.order.includes(one)));
    }
    this.changed();
  }

  take(answer) {
    this.order = this.order.filter((one) => one !== answer);
    this.tied.delete(answer);
    this.changed();
  }

  move(answer, by) {
    const at = this.order.indexOf(answer);
    if (at < 0) this.put(answer, this.order.length);
    else if (at + by >= 0 && at + by < this.order.length) this.put(answer, at + by);
  }

  tie(answer) {
    if (this.order.indexOf(answer) < 1) return;
    if (!this.tied.delete(answer)) this.tied.add(answer);
    this.changed();
  }

  tieLast() {
    this.tie(this.order.at(-1));
  }

  changed() {
    this.tied.delete(this.order[0]);
    this.draw();
    this.onChange();
  }

  draw() {
    const focused = document.activeElement?.dataset?.act;
    const rest = [...Array(this.count).keys()].filter((one) => !this.order.includes(one));
    this.list.replaceChildren(...[...this.order, ...rest].map((answer) => this.chip(answer)));
    if (focused) this.list.querySelector(`[data-act="${focused}"]`)?.focus();
    this.hint.textContent = this.advice();
  }

  advice() {
    const left = this.count - this.order.length;
    if (left === 0) return "Complete. Save it, or change it with the arrows or by dragging.";
    if (this.order.length === 0) return "Give the answers' numbers from best to worst; or only the best one, and save that.";
    if (this.order.length === 1) return `${this.names[this.order[0]]} is first. Save it as the best alone, or go on with the others.`;
    return `${left} still without a place.`;
  }

  chip(answer) {
    const place = this.placeOf(answer);
    const name = this.names[answer];
    const button = (act, text, label, work, off) => {
      const made = element("button", { type: "button", class: "quiet small", "data-act": `${act}-${answer}`, "aria-label": label, disabled: off, text });
      made.addEventListener("click", work);
      return made;
    };
    const at = this.order.indexOf(answer);
    const grip = element("span", { class: "grip", "aria-hidden": "true", text: "⠿" });
    const chip = element(
      "li",
      { class: place ? "chip" : "chip unranked", "data-answer": answer },
      grip,
      element("span", { class: "place", text: place ? (this.tied.has(answer) ? "=" : "") + ordinal(place) : "–" }),
      element("span", { class: "name", text: name }),
      button("up", "↑", place ? `${name} one place up` : `Rank ${name} next`, () => this.move(answer, -1), at === 0),
      button("down", "↓", `${name} one place down`, () => this.move(answer, 1), at < 0 || at === this.order.length - 1),
      button("tie", "=", `${name} ties with the one above`, () => this.tie(answer), at < 1),
      button("take", "✕", `Take ${name} out of the ranking`, () => this.take(answer), at < 0),
    );
    chip.addEventListener("pointerdown", (event) => event.target.closest("button") || this.drag(event, chip, answer));
    return chip;
  }

  drag(start, chip, answer) {
    if (start.button !== 0) return;
    start.preventDefault();
    chip.classList.add("dragged");
    const moved = (event) => {
      const others = [...this.list.children].filter((one) => one !== chip);
      const after = others.find((one) => event.clientY < one.getBoundingClientRect().top + one.offsetHeight / 2);
      if (after !== chip.nextElementSibling) this.list.insertBefore(chip, after ?? null);
    };
    const ended = (event) => {
      window.removeEventListener("pointermove", moved);
      window.removeEventListener("pointerup", ended);
      window.removeEventListener("pointercancel", ended);
      const at = [...this.list.children].indexOf(chip);
      const ranked = this.order.filter((one) => one !== answer).length;
      if (event.type === "pointercancel" || at > ranked) this.changed();
      else if (!this.order.includes(answer) || this.order.indexOf(answer) !== at) this.put(answer, at);
      else this.changed();
    };
    window.addEventListener("pointermove", moved);
    window.addEventListener("pointerup", ended);
    window.addEventListener("pointercancel", ended);
  }
}

// The ways to judge each kind of item: buttons, their keys, and how the answers are laid out.

import { element, write } from "./texts.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
export const RATINGS = ["0 · useless", "1 · bad", "2 · weak", "3 · fair", "4 · good", "5 · excellent"];

export const QUESTIONS = {
  choice: "Which answer is better?",
  ranks: "Put the answers in order, best first",
  best_of: "Which answer is the best?",
  thumb: "Is this answer good?",
  rating: "How good is this answer?",
  value: "Give this answer a number",
  critique: "What is good or bad here?",
};

export const OVERALL = {
  choice: "How good is the better one?",
  ranks: "How good is the best one?",
  best_of: "How good is the best one?",
  thumb: "How good is it overall?",
  value: "How good is it overall?",
  critique: "How good is it overall?",
};

export function namesOf(kind, count) {
  if (count === 1) return ["The answer"];
  return Array.from({ length: count }, (_, place) => (kind === "choice" ? `Answer ${LETTERS[place]}` : `Answer ${place + 1}`));
}

// Buttons that judge at once: {label, keys, verdict, tone}.
export function verdictsOf(kind, count) {
  const choice = (label, winner, keys, tone) => ({ label, keys, tone, verdict: { kind, winner } });
  switch (kind) {
    case "choice":
      return [
        choice("A is better", "a", ["1", "a"], "side"),
        choice("Tie", "tie", ["0", "t"]),
        choice("Both bad", "both_bad", ["9", "x"]),
        choice("B is better", "b", ["2", "b"], "side"),
      ];
    case "best_of":
      return Array.from({ length: count }, (_, best) => ({ label: `Answer ${best + 1}`, keys: best < 9 ? [String(best + 1)] : [], tone: "side", verdict: { kind, best } }));
    case "thumb":
      return [
        { label: "Good", keys: ["1", "y"], tone: "side", verdict: { kind, up: true } },
        { label: "Bad", keys: ["0", "n"], tone: "side", verdict: { kind, up: false } },
      ];
    case "rating":
      return RATINGS.map((label, stars) => ({ label, keys: [String(stars)], tone: "side", verdict: { kind, stars } }));
    default:
      return [];
  }
}

export function key(text) {
  return element("kbd", { "aria-hidden": "true", text });
}

export function verdictButton({ label, keys, tone }, work) {
  const made = element("button", { type: "button", class: `verdict ${tone ?? ""}`, "aria-keyshortcuts": keys.join(" ") }, element("span", { text: label }), ...keys.slice(0, 1).map(key));
  made.addEventListener("click", work);
  return made;
}

// One card per answer. For a ranking, its head holds a button that gives it the next place.
export function answerCards(kind, texts, names, onPress) {
  return texts.map((text, place) => {
    const head = element("div", { class: "answer-head" }, element("h3", { text: names[place] }));
    if (kind === "ranks") {
      const button = element("button", { type: "button", class: "rank-button", "data-place": place, "aria-pressed": "false" });
      button.addEventListener("click", () => onPress(place));
      head.append(button);
    }
    const body = element("div", { class: "text", dir: "auto" });
    write(body, text);
    return element("article", { class: "answer", "aria-label": names[place] }, head, body);
  });
}

export function ratingSteps(node, onChange) {
  node.replaceChildren(
    ...RATINGS.map((label, stars) => {
      const input = element("input", { type: "radio", name: "overall", value: stars, id: `overall-${stars}`, "aria-label": label.replace(" · ", ", ") });
      input.addEventListener("change", onChange);
      return element("span", { class: "step" }, input, element("label", { for: `overall-${stars}`, title: label, text: String(stars) }));
    }),
  );
}

// The difference of two texts, word by word: a longest common subsequence between a common beginning and end.

const MOST_CELLS = 4_000_000;
const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;

// Returns two lists of {text, changed}, or null where the texts are too long to compare.
export function differences(first, second) {
  const a = first.match(WORDS) ?? [];
  const b = second.match(WORDS) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const kept = common(a.slice(start, a.length - end), b.slice(start, b.length - end));
  if (kept === null) return null;
  return [pieces(a, start, end, kept.first), pieces(b, start, end, kept.second)];
}

// Places of both middles that belong to the longest common subsequence.
function common(a, b) {
  const width = b.length + 1;
  if ((a.length + 1) * width > MOST_CELLS) return null;
  const length = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i * width + j] =
        a[i] === b[j] ? length[(i + 1) * width + j + 1] + 1 : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const first = new Set();
  const second = new Set();
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) {
      first.add(i++);
      second.add(j++);
    } else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) i++;
    else j++;
  }
  return { first, second };
}

// A blank between two changed words is marked with them.
function pieces(words, start, end, kept) {
  const changed = words.map((word, place) => place >= start && place < words.length - end && !kept.has(place - start) && word.trim() !== "");
  const found = [];
  words.forEach((word, place) => {
    const joins = word.trim() === "" && !word.includes("\n") && changed[place - 1] && changed[place + 1];
    const marked = Boolean(changed[place] || joins);
    if (found.length && found.at(-1).changed === marked) found.at(-1).text += word;
    else found.push({ text: word, changed: marked });
  });
  return found;
}

// What the pages on which one explores share: verdicts as bars, and galleries.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const percent = (share) => `${(100 * share).toFixed(share > 0.995 && share < 1 ? 2 : 1)}\u00a0%`;

export const first = (probs) => probs.indexOf(Math.max(...probs));

/** A verdict in words: "3 (98.1 %)". */
export const verdict = (classes, probs) => `${classes[first(probs)]} (${percent(Math.max(...probs))})`;

/** Say what is wrong, or that nothing is. */
export function problem(place, message = "") {
  place.textContent = message;
  place.hidden = message === "";
}

/** One bar a class, which `update` moves. */
export function bars(title, classes) {
  const rows = classes.map((name) => {
    const bar = element("progress", { max: 1, value: 0, "aria-label": `${title}: ${name}` });
    const value = element("span", { class: "value" });
    return { bar, value, row: element("div", { class: "share" }, element("span", {}, name), bar, value) };
  });
  const whole = element("section", { class: "verdict" }, element("h2", { class: "small-heading" }, title));
  whole.append(...rows.map((each) => each.row));
  const update = (probs, label) => {
    rows.forEach(({ bar, value, row }, k) => {
      bar.value = probs[k];
      value.textContent = percent(probs[k]);
      row.classList.toggle("first", k === first(probs));
      row.classList.toggle("true", k === label);
    });
  };
  return { whole, update };
}

/** Pictures with lines of words under each. */
export function gallery(place, found, words) {
  place.replaceChildren(
    ...found.map((each, number) => {
      const lines = words(each);
      const img = element("img", { src: each.image, alt: `Image ${number + 1}: ${lines.map((line) => line.text).join(", ")}` });
      const told = lines.map(({ text, wrong }) => element("span", wrong ? { class: "differs" } : {}, text));
      return element("li", {}, img, ...told);
    }),
  );
}

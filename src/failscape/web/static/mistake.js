// One mistake: the slider goes along the change that puts it right; image, change and probabilities follow.

import { ask, latest } from "./server.js";

const SVG = "http://www.w3.org/2000/svg";
const way = document.getElementById("way");
const slider = document.getElementById("part");
const says = document.getElementById("says");
const trouble = document.getElementById("trouble");
const rows = [...way.querySelectorAll("[data-class]")].map((row) => ({
  label: Number(row.dataset.class),
  bar: row.lastElementChild.querySelector("svg"),
  text: row.lastElementChild.querySelector("span"),
}));

/** Put a mark on the curves, which go from the image to its example: beyond that there is nothing to mark. */
const curves = document.querySelector(".line svg");
const cursor = document.createElementNS(SVG, "line");
cursor.classList.add("cursor");
curves?.append(cursor);
function mark(part) {
  if (!curves) return;
  // The first rule is the lower edge of the drawing.
  const lower = curves.querySelector(".rule").getBBox();
  const x = Math.min(part, 1) * lower.width;
  for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 0, y2: lower.y })) cursor.setAttribute(name, value);
}

const show = latest(async (part) => {
  try {
    const there = await ask(`${way.dataset.address}?part=${part}`);
    document.getElementById("now").src = there.image;
    document.getElementById("change").src = there.change;
    for (const { label, bar, text } of rows) {
      bar.setAttribute("width", `${100 * there.probs[label]}%`);
      text.textContent = `${(100 * there.probs[label]).toFixed(1)} %`;
    }
    says.textContent = `${Math.round(100 * part)} %: ${there.says}`;
    slider.setAttribute("aria-valuetext", says.textContent);
    way.dataset.shown = part;
    trouble.hidden = true;
  } catch (error) {
    if (error.status === undefined) throw error;
    trouble.textContent = error.message;
    trouble.hidden = false;
  }
});

slider.addEventListener("input", () => {
  mark(Number(slider.value));
  show(Number(slider.value));
});
mark(Number(slider.value));
show(Number(slider.value));

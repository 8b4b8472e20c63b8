// Verdicts of several classifiers on the same images, side by side.

import { element, first, gallery, problem, verdict } from "/static/explore.js";
import { ask } from "/static/server.js";

const root = document.getElementById("compare");
if (root) begin(JSON.parse(root.dataset.task));

function begin(task) {
  const get = (id) => document.getElementById(id);
  const form = root.querySelector("form");

  function countTable({ judges, same, right, total }) {
    const head = element("tr", {}, element("th", { scope: "col" }, "the same as"));
    head.append(...judges.map((name) => element("th", { scope: "col" }, name)));
    if (right) head.append(element("th", { scope: "col" }, "as labelled"));
    const rows = judges.map((name, row) => {
      const made = element("tr", {}, element("th", { scope: "row" }, name));
      made.append(...same[row].map((count, column) => element("td", {}, row === column ? "–" : String(count))));
      if (right) made.append(element("td", {}, String(right[row])));
      return made;
    });
    const caption = element("caption", {}, `Of ${total} images, how many get the same verdict`);
    return element("table", {}, caption, element("thead", {}, head), element("tbody", {}, ...rows));
  }

  function show(answer) {
    const { classes, judges, images, total, differing } = answer;
    const shown = images.length === 0 ? "none is shown" : `${images.length} are shown, those furthest apart first`;
    get("told").textContent = `They disagree on ${differing} of ${total} images; ${shown}.`;
    get("counts").replaceChildren(countTable(answer));
    gallery(get("found"), images, ({ judges: said, label }) => {
      const lines = said.map((probs, judge) => ({
        text: `${judges[judge]}: ${verdict(classes, probs)}`,
        wrong: label !== null && first(probs) !== label,
      }));
      return label === null ? lines : [{ text: `labelled ${classes[label]}` }, ...lines];
    });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = form.elements;
    const chosen = [...form.querySelectorAll("input[name=classifier]:checked")].map((box) => Number(box.value));
    if (chosen.length < 2) {
      problem(get("problem"), "Choose two classifiers or more.");
      return;
    }
    const button = form.querySelector("button");
    button.disabled = true;
    get("told").textContent = "Asking …";
    problem(get("problem"));
    try {
      show(
        await ask(task.address, {
          classifiers: chosen,
          images: fields.images.value,
          count: Number(fields.count.value),
          seed: Number(fields.seed.value),
          differing: fields.differing.checked,
        }),
      );
    } catch (error) {
      get("told").textContent = "";
      get("counts").replaceChildren();
      get("found").replaceChildren();
      problem(get("problem"), error.message);
    }
    button.disabled = false;
    button.focus();
  });
}

// Ask for images of a class and a score, or of a target distribution, and show what is said of them.

import { element, first, gallery, percent, problem, verdict } from "/static/explore.js";
import { ask } from "/static/server.js";

const root = document.getElementById("asking");
if (root) begin(JSON.parse(root.dataset.task), root.dataset.kind);

function begin(task, kind) {
  const get = (id) => document.getElementById(id);
  const form = root.querySelector("form");
  const fields = form.elements;
  const chosen = () => task.networks[fields.networks.value];
  const number = (name) => Number(fields[name].value);

  function nameRange() {
    const { score, classes, supported } = chosen();
    const [low, high] = supported[number("label")];
    const name = classes[number("label")];
    const range = `${name} is supported from ${low.toFixed(3)} to ${high.toFixed(3)}.`;
    get("range").textContent = low > high ? `The generator has seen no image of ${name}.` : range;
    get("score-name").textContent = score[0].toUpperCase() + score.slice(1);
  }

  function choose() {
    const { classes, search } = chosen();
    if (kind === "score") {
      fields.label.replaceChildren(...classes.map((name, k) => element("option", { value: k }, name)));
      fields.search.disabled = !search;
      fields.search.checked = search;
      nameRange();
      return;
    }
    get("shares").replaceChildren(
      ...classes.map((name, k) => {
        const field = element("input", { type: "number", min: 0, step: "any", value: k < 2 ? 0.5 : 0, name: "share" });
        return element("label", {}, name, field);
      }),
    );
  }

  const wish = () => {
    const shared = { networks: number("networks"), count: number("count"), seed: number("seed") };
    if (kind === "score") {
      return { ...shared, label: number("label"), score: number("score"), search: fields.search.checked };
    }
    const shares = [...get("shares").querySelectorAll("input")].map((field) => Number(field.value));
    return { ...shared, shares, tolerance: number("tolerance") };
  };

  function show(answer) {
    const { classes, judges, images } = answer;
    const shown = (probs) => {
      if (kind === "score") return verdict(classes, probs);
      const wanted = answer.target.map((share, k) => [share, k]).filter(([share]) => share > 0);
      return wanted.map(([, k]) => `${classes[k]} ${percent(probs[k])}`).join(", ");
    };
    gallery(get("found"), images, (each) => {
      const lines = each.judges.map((probs, judge) => ({
        text: `${judges[judge]}: ${judge && kind === "target" ? verdict(classes, probs) : shown(probs)}`,
        wrong: kind === "score" ? first(probs) !== answer.label : judge > 0 && answer.target[first(probs)] === 0,
      }));
      if (kind === "target") lines.push({ text: `distance ${each.distance.toFixed(3)}`, wrong: each.distance > answer.tolerance });
      return lines;
    });
    if (kind === "target") {
      get("told").textContent = `${answer.arrived} of ${images.length} images are within ${answer.tolerance} of the target.`;
      return;
    }
    const mean = images.reduce((sum, each) => sum + each.judges[0][answer.label], 0) / images.length;
    get("told").textContent = `Asked for ${classes[answer.label]} at ${number("score")}; the classifier gives it ${percent(mean)} on average.`;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    get("told").textContent = "Drawing …";
    problem(get("problem"));
    try {
      show(await ask(task.address, wish()));
    } catch (error) {
      get("told").textContent = "";
      get("found").replaceChildren();
      problem(get("problem"), error.message);
    }
    button.disabled = false;
    button.focus();
  });

  fields.networks.addEventListener("change", choose);
  fields.label?.addEventListener("change", nameRange);
  choose();
}

// Sliders along style dimensions: picture and probabilities follow.

import { bars, problem, verdict } from "/static/explore.js";
import { ask, latest } from "/static/server.js";

const QUIET = 600; // ms

const root = document.getElementById("directions");
if (root) begin(JSON.parse(root.dataset.task));

// What had the focus goes away with a case that is removed or a page that is turned: go on at the heading of the list.
document.body.addEventListener("htmx:after:swap", ({ detail }) => {
  if (detail.ctx.target?.id === "case-set" && document.activeElement === document.body) {
    document.getElementById("case-set-title").focus();
  }
});

function begin(task) {
  const get = (id) => document.getElementById(id);
  const sliders = [...root.querySelectorAll("input[type=range]")];
  const form = get("start");
  const panels = task.judges.map((name) => bars(name[0].toUpperCase() + name.slice(1), task.classes));
  get("judges").append(...panels.map((panel) => panel.whole));
  let from = { kind: "sample", value: form.elements.sample.value };

  const place = () => ({
    ...from,
    moves: sliders
      .filter((slider) => Number(slider.value) !== 0)
      .map((slider) => ({ direction: Number(slider.dataset.direction), deviations: Number(slider.value) })),
  });

  const draw = latest(async (asked) => {
    try {
      const seen = await ask(`${task.address}/draw`, asked);
      get("view").src = seen.image;
      await get("view").decode();
      panels.forEach((panel, number) => panel.update(seen.judges[number], seen.label));
      const told = task.judges.map((name, number) => `${name} says ${verdict(task.classes, seen.judges[number])}`);
      get("says").textContent = `Asked for ${task.classes[seen.label]}; ${told.join(", ")}.`;
      speak(get("says").textContent);
      root.dataset.drawn = JSON.stringify(asked);
      root.dataset.at = performance.now();
      problem(get("problem"));
    } catch (error) {
      problem(get("problem"), error.message);
    }
  });

  // Aloud only where one comes to rest: a slider that moves would not let anything be heard.
  let resting = 0;
  const speak = (text) => {
    clearTimeout(resting);
    resting = setTimeout(() => {
      if (get("spoken").textContent !== text) get("spoken").textContent = text;
    }, QUIET);
  };

  const show = (slider) => {
    const value = Number(slider.value);
    slider.setAttribute("aria-valuetext", `${value} deviation${Math.abs(value) === 1 ? "" : "s"}`);
    slider.parentElement.querySelector("output").textContent = value > 0 ? `+${value}` : String(value).replace("-", "−");
  };

  for (const slider of sliders) {
    slider.addEventListener("input", () => {
      show(slider);
      draw(place());
    });
  }

  get("reset").addEventListener("click", () => {
    for (const slider of sliders) {
      slider.value = 0;
      show(slider);
    }
    draw(place());
  });

  form.elements.kind.addEventListener("change", () => {
    for (const label of form.querySelectorAll("[data-kind]")) {
      const chosen = label.dataset.kind === form.elements.kind.value;
      label.hidden = !chosen;
      label.querySelector("input, select").required = chosen;
    }
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const kind = form.elements.kind.value;
    from = { kind, value: form.elements[kind].value.trim() };
    draw(place());
  });

  get("keep").addEventListener("click", async () => {
    try {
      const answer = await ask(`${task.address}/keep`, place());
      const count = `${answer.kept} kept in the run folder.`;
      get("kept").textContent = answer.new ? `Kept. ${count}` : `This picture was kept before. ${count}`;
      // The list below asks for itself anew.
      document.body.dispatchEvent(new Event("kept"));
      problem(get("problem"));
    } catch (error) {
      problem(get("problem"), error.message);
    }
  });

  // A reload may bring sliders back where they stood.
  sliders.forEach(show);
  draw(place());
}

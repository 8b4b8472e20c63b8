"use strict";

// A definition opens beside the word that was chosen; without this it opens in the middle of the window.
document.addEventListener("click", (event) => {
  const term = event.target.closest(".term");
  const box = term && document.getElementById(term.getAttribute("popovertarget"));
  if (!box) return;
  requestAnimationFrame(() => {
    if (!box.matches(":popover-open")) return;
    const place = term.getBoundingClientRect();
    const left = Math.min(place.left, document.documentElement.clientWidth - box.offsetWidth - 16);
    const below = place.bottom + 6;
    const fits = below + box.offsetHeight < window.innerHeight - 8;
    Object.assign(box.style, {
      margin: "0",
      inset: "auto",
      left: `${Math.max(16, left)}px`,
      top: `${fits ? below : Math.max(8, place.top - box.offsetHeight - 6)}px`,
    });
  });
});

for (const gallery of document.querySelectorAll(".gallery")) {
  const grid = gallery.querySelector(".cases");
  const given = [...grid.children];
  const words = new Map(given.map((card) => [card, card.textContent.toLowerCase()]));
  const numbers = new Map(given.map((card) => [card, JSON.parse(card.dataset.sort)]));
  const form = gallery.querySelector(".filters");
  const more = gallery.querySelector(".more");
  const first = Number(gallery.dataset.first);
  let all = false;

  const valueOf = (role) => form.querySelector(`[data-role="${role}"]`)?.value ?? "";

  const ordered = () => {
    const sort = valueOf("sort");
    if (!sort) return given;
    if (sort === "bad") return [...given].sort((a, b) => (a.dataset.good > b.dataset.good) - (a.dataset.good < b.dataset.good));
    const [index, direction] = sort.split(" ");
    const sign = direction === "up" ? 1 : -1;
    const key = (card) => numbers.get(card)[Number(index)];
    // Cases without the number come last in either direction.
    return [...given].sort((a, b) => (key(a) === null) - (key(b) === null) || sign * (key(a) - key(b)));
  };

  const update = () => {
    const show = form.querySelector("input:checked").value;
    const kind = valueOf("kind");
    const text = valueOf("text").trim().toLowerCase();
    const cards = ordered();
    const matching = cards.filter((card) =>
      (show === "all" || card.dataset.good === show) &&
      (!kind || card.dataset.kind === kind) &&
      (!text || words.get(card).includes(text)));
    const shown = new Set(all ? matching : matching.slice(0, first));
    for (const card of cards) card.hidden = !shown.has(card);
    grid.append(...cards);
    form.querySelector("output").textContent = `${shown.size} of ${matching.length} matching shown`;
    more.hidden = shown.size === matching.length;
    more.textContent = `Show all ${matching.length}`;
  };

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = [...grid.children].filter((card) => !card.hidden).length;
    all = true;
    update();
    [...grid.children].filter((card) => !card.hidden)[next]?.querySelector("summary").focus();
  });
  // A link to a case opens it, even one that is not among the first.
  const reveal = () => {
    const card = location.hash && given.find((candidate) => `#${candidate.id}` === location.hash);
    if (card) { card.hidden = false; card.open = true; card.scrollIntoView(); }
  };
  form.hidden = false;
  update();
  reveal();
  addEventListener("hashchange", reveal);
}

// The label page: one image at a time, answered by a key. The next images are here before they are asked for, so that a
// key shows the next one at once; the outbox sees to it that the answer reaches the disk of the server.

import { Outbox } from "./outbox.js";
import { afterFrame, ask, pause, randomId } from "./server.js";

const AHEAD = 20; // images known in advance, which the server keeps from others
const FEW = 14; // of them, when more are asked for
const DECODED = 12; // of them, those whose pixels are ready to be shown
const RESERVED = 120_000; // ms for which the server keeps them
const RENEW = 40_000; // ms after which it is asked to keep them on
const SOON = 3_000; // ms after which it is asked again when there are none

const root = document.getElementById("label");
const task = JSON.parse(root.dataset.task);
const part = (id) => document.getElementById(id);
const picture = part("picture");
const buttons = [...part("classes").querySelectorAll("button")];
const keys = new Map(task.keys.flatMap((key, label) => (key ? [[key, label]] : [])));

let labeller = "";
let progress = null;
let ahead = []; // images to come, the next one first
let done = []; // labelled images in the order in which they were labelled: { image, label }
let actions = []; // what undo takes back, the latest last: { image, client_id, event_id, before }
let at = 0; // place in `done`; at its end stands the image that is asked
let shownAt = 0;
let trouble = null;
let outdated = false; // whether `done` is to be read from the server once nothing is on its way to it
let emptied = false; // whether the server has no more images for now
const pixels = new Map();

const outbox = new Outbox({
  address: task.address,
  project: task.project,
  kept(item, event, now) {
    progress = now;
    for (const action of actions) if (action.client_id === item.client_id) action.event_id = event.id;
    if (item.kind === "undo" && item.reload) outdated = true;
    if (!current()) show();
  },
  refused() {
    outdated = true;
  },
  changed(error) {
    trouble = error;
    showRefused();
    if (current()) showState();
    else show();
    if (outdated && !outbox.items.length) reload();
  },
});

// ── What this browser remembers ────────────────────────────────────────────────────────────────────────────────────

const remembered = (name, otherwise) => JSON.parse(localStorage.getItem(`failscape:${name}`) ?? "null") ?? otherwise;
const remember = (name, value) => localStorage.setItem(`failscape:${name}`, JSON.stringify(value));

// Two windows of one person are handed different images; a window that was duplicated takes a name of its own.
const tabKey = `failscape:tab:${task.project}`;
let tab = sessionStorage.getItem(tabKey) ?? randomId();
const renameTab = () => {
  tab = randomId();
  sessionStorage.setItem(tabKey, tab);
};
sessionStorage.setItem(tabKey, tab);
const windows = new BroadcastChannel(`failscape:${task.project}`);
windows.addEventListener("message", ({ data }) => {
  if (data.kind === "labelled" && data.labeller === labeller) {
    // Where few images are left, two windows of one person have the same ones ahead.
    ahead = ahead.filter((image) => image.id !== data.image);
    show();
  }
  if (data.tab !== tab) return;
  if (data.kind === "here") windows.postMessage({ kind: "taken", tab });
  else if (labeller) {
    renameTab();
    ahead = [];
    refill();
  } else renameTab();
});
windows.postMessage({ kind: "here", tab });

// ── Images ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const current = () => (at < done.length ? done[at].image : ahead[0]);

function pixelsOf(image) {
  if (!pixels.has(image.id)) {
    const element = new Image();
    element.src = `${task.address.replace(/[^/]*$/, "images/")}${image.id}`;
    element.decode().catch(() => {});
    pixels.set(image.id, element);
  }
  return pixels.get(image.id);
}

function prepare() {
  const wanted = new Set([...ahead.slice(0, DECODED), ...done.slice(Math.max(0, at - 3), at + 3).map((one) => one.image)]);
  const ids = new Set([...wanted].map((image) => image.id));
  for (const id of pixels.keys()) if (!ids.has(id)) pixels.delete(id);
  wanted.forEach(pixelsOf);
}

let filling = false;
let refills = 0; // the timer of the next one
let renewed = 0; // when the server last said which images it keeps for this window
let undone = 0; // how often something was taken back

/** Ask which images are this window's: more to come, and that those which are here are kept on. */
async function refill() {
  clearTimeout(refills);
  if (filling || !labeller) return;
  filling = true;
  const asked = { labeller, tab, count: AHEAD, queue: part("queue").value };
  const [then, now] = [undone, Date.now()];
  let mine = true;
  try {
    const answer = await ask(`${task.address}/next`, asked);
    mine = asked.labeller === labeller && asked.tab === tab && asked.queue === part("queue").value;
    if (mine) {
      // What was taken back meanwhile is this window's again, though the answer may not know yet.
      if (then === undone && !outbox.items.some((item) => item.kind === "undo")) prune(answer.images, now);
      const known = new Set([...ahead, ...done.map((one) => one.image)].map((image) => image.id));
      const more = answer.images.filter((image) => !known.has(image.id));
      ahead.push(...more);
      emptied = more.length === 0;
      renewed = now;
      progress ??= answer.progress;
      if (!outbox.items.length) progress = answer.progress;
      trouble = null;
    }
  } catch (error) {
    if (error.status === undefined) throw error;
    trouble = error;
  } finally {
    filling = false;
  }
  if (at === done.length) show();
  else showState();
  prepare();
  const wanting = !ahead.length && (trouble || progress?.left > 0);
  // Those that are with others may come back.
  refills = setTimeout(refill, mine ? (wanting ? SOON : RENEW) : 0);
}

/** Let go of images that are no longer this window's. The one on the screen stays while it was surely kept. */
function prune(images, now) {
  const kept = new Set(images.map((image) => image.id));
  if (ahead.length && now - renewed < RESERVED) kept.add(ahead[0].id);
  ahead = ahead.filter((image) => kept.has(image.id));
}

/** Ask for one's labels so far, until they are there; null if somebody else labels by then. */
async function history() {
  const who = labeller;
  for (let wait = 500; who === labeller; wait = Math.min(2 * wait, SOON)) {
    try {
      return await ask(`${task.address}/history?labeller=${encodeURIComponent(who)}`);
    } catch (error) {
      if (error.status === undefined) throw error;
      trouble = error;
      show();
      await pause(wait);
    }
  }
  return null;
}

async function reload() {
  const who = labeller;
  const answer = await history();
  if (answer === null || who !== labeller || outbox.items.length) return;
  trouble = null;
  outdated = false;
  done = answer.labels.map(({ image, label }) => ({ image, label }));
  actions = answer.labels.map(({ image, client_id, id }) => ({ image, client_id, event_id: id, before: null, old: true }));
  progress = answer.progress;
  const labelled = new Set(done.map((one) => one.image.id));
  ahead = ahead.filter((image) => !labelled.has(image.id));
  at = done.length;
  show();
}

// ── What one does ──────────────────────────────────────────────────────────────────────────────────────────────────

function answer(label) {
  const image = current();
  if (!labeller || !image) return;
  const client_id = randomId();
  const seconds = Math.min(86400, (performance.now() - shownAt) / 1000);
  const earlier = at < done.length ? done[at].label : null;
  if (earlier === label) return move(1);
  if (at < done.length) done[at].label = label;
  else {
    ahead.shift();
    done.push({ image, label });
  }
  actions.push({ image, client_id, event_id: null, before: earlier });
  at += 1;
  show();
  say(`${nameOf(label)}.`);
  outbox.put({ kind: "label", labeller, tab, image_id: image.id, label, client_id, seconds, queue: image.queue });
  // Whatever can wait does not keep the next image from being drawn.
  afterFrame(() => {
    windows.postMessage({ kind: "labelled", labeller, image: image.id });
    prepare();
    if (ahead.length < FEW) refill();
  });
}

function undo() {
  const action = actions.pop();
  if (!action) return say("There is nothing to take back.");
  undone += 1;
  const place = done.findIndex((one) => one.image.id === action.image.id);
  if (action.before !== null) {
    done[place].label = action.before;
    at = place;
  } else {
    done.splice(place, 1);
    ahead.unshift(action.image);
    at = done.length;
  }
  show();
  say("Taken back.");
  const { client_id: undoes, event_id } = action;
  // A label of an earlier visit may have taken the place of another one, which holds again now.
  outbox.put({ kind: "undo", labeller, tab, undoes, event_id, client_id: randomId(), reload: Boolean(action.old) });
}

function move(steps) {
  const to = Math.min(done.length, Math.max(0, at + steps));
  if (to === at) return say(steps < 0 ? "There is no earlier label." : "This is the image that is asked.");
  at = to;
  show();
  say(at < done.length ? `Label ${at + 1} of ${done.length}: ${nameOf(done[at].label)}.` : "The image that is asked.");
}

// ── What one sees ──────────────────────────────────────────────────────────────────────────────────────────────────

const nameOf = (label) => (label === task.notAny ? task.notAnyName : task.classes[label]);
const guessOf = (image) => `${nameOf(image.prediction)} (${Math.round(100 * image.confidence)} %)`;
const say = (text) => {
  part("spoken").textContent = text;
};

function show() {
  const image = current();
  if (image) {
    const element = pixelsOf(image);
    element.alt = at < done.length ? `Image ${at + 1} of those you labelled` : `The next image, number ${done.length + 1}`;
    if (picture.firstChild !== element) {
      picture.replaceChildren(element);
      shownAt = performance.now();
    }
    picture.dataset.image = image.id;
  } else {
    const text = document.createElement("p");
    if (trouble) text.textContent = `${trouble.message} Trying again …`;
    else if (!progress || !emptied) text.textContent = "Fetching images …";
    else if (progress.left > 0) text.textContent = "The images that are left are with other people just now.";
    else text.textContent = "Nothing is left for you to label here. Thank you.";
    picture.replaceChildren(text);
    delete picture.dataset.image;
  }
  const chosen = at < done.length ? done[at].label : null;
  for (const button of buttons) {
    button.disabled = !image;
    if (Number(button.dataset.label) === chosen) button.setAttribute("aria-pressed", "true");
    else button.removeAttribute("aria-pressed");
  }
  part("above").textContent = noteOn(image);
  part("back").disabled = at === 0;
  part("forth").disabled = at === done.length;
  part("undo").disabled = actions.length === 0;
  showState();
}

function noteOn(image) {
  if (at < done.length) {
    const { label } = done[at];
    return `Label ${at + 1} of ${done.length}: you said ${nameOf(label)}, the classifier ${guessOf(image)}.`;
  }
  if (image && part("guess").checked) return `The classifier says ${guessOf(image)}.`;
  const last = done.at(-1);
  return last ? `The one before: you said ${nameOf(last.label)}, the classifier ${guessOf(last.image)}.` : "";
}

let waiting = 0;
function showState() {
  if (progress) {
    const onTheWay = outbox.items.filter((item) => item.kind === "label").length;
    const mine = Math.max(progress.mine, done.length);
    const left = Math.max(0, progress.left - Math.max(0, Math.min(onTheWay, mine - progress.mine)));
    const pace = progress.per_minute;
    const parts = [`${mine} labelled by you, ${left} left`];
    if (pace) parts.push(`${Math.round(pace)} a minute`);
    if (pace && left) parts.push(`about ${duration(left / pace)} to go`);
    part("progress").textContent = parts.join(" · ");
    part("bar").max = Math.max(1, mine + left);
    part("bar").value = mine;
  }
  root.dataset.waiting = outbox.items.length;
  // Most labels are saved before one could read that they are not.
  clearTimeout(waiting);
  waiting = setTimeout(showSaved, outbox.items.length ? 700 : 0);
}

function showSaved() {
  const count = outbox.items.length;
  const what = `${count} label${count === 1 ? " is" : "s are"} kept in this browser until they can be saved.`;
  const text = count ? [trouble?.message, what].filter(Boolean).join(" ") : (trouble?.message ?? `Everything${outbox.parked.length ? " else" : ""} is saved.`);
  if (part("saved").textContent !== text) part("saved").textContent = text;
  part("saved").classList.toggle("waiting", count > 0 || trouble !== null);
}

function showRefused() {
  const { parked } = outbox;
  part("refused").hidden = parked.length === 0;
  const what = parked.length === 1 ? "One answer was not taken, and is" : `${parked.length} answers were not taken, and are`;
  const why = [...new Set(parked.map((item) => item.refusal))].join(" ");
  const text = parked.length ? `${what} kept in this browser. ${why}` : "";
  if (part("why").textContent !== text) part("why").textContent = text;
}

const duration = (minutes) => {
  if (minutes < 1) return `${Math.max(5, Math.round(minutes * 12) * 5)} s`;
  return minutes < 90 ? `${Math.round(minutes)} min` : `${Math.round(minutes / 60)} h`;
};

// ── Keys, buttons, settings ────────────────────────────────────────────────────────────────────────────────────────

function typed(event) {
  // On keyboards of other alphabets the place of the key counts.
  const [, place] = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code) ?? [];
  const key = event.key.toLowerCase();
  return place && event.key.length === 1 && key > "\u007f" ? place.toLowerCase() : key;
}

document.addEventListener("keydown", (event) => {
  if (!labeller || !part("keys").checked || event.repeat || event.ctrlKey || event.metaKey || event.altKey || part("help").open) return;
  if (event.target.closest("input, select, textarea")) return;
  const key = typed(event);
  if (key === " " && event.target.closest("button, a, summary")) return;
  if (keys.has(key)) answer(keys.get(key));
  else if (key === " ") answer(task.notAny);
  else if (key === "u") undo();
  else if (key === "arrowleft") move(-1);
  else if (key === "arrowright") move(1);
  else if (key === "?") part("help").showModal();
  else return;
  event.preventDefault();
});

// After a click the keys work as before, and Space does not press the button again.
const pressed = (button, act) =>
  button.addEventListener("click", (event) => {
    act();
    if (event.detail > 0 || button.disabled) picture.focus({ preventScroll: true });
  });
for (const button of buttons) pressed(button, () => answer(Number(button.dataset.label)));
pressed(part("back"), () => move(-1));
pressed(part("forth"), () => move(1));
pressed(part("undo"), undo);
pressed(part("retry"), () => {
  outdated = true;
  outbox.retry();
});
pressed(part("discard"), () => outbox.discard());
part("help-button").addEventListener("click", () => part("help").showModal());

part("keys").checked = remembered("keys", true);
part("smooth").checked = remembered("smooth", false);
part("guess").checked = remembered("guess", false);
part("queue").value = task.queue;
// Single keys come in the way of those who speak to their computer, or touch keys by chance.
const shortcuts = [...root.querySelectorAll("[aria-keyshortcuts]")].map((one) => [one, one.getAttribute("aria-keyshortcuts")]);
const applyKeys = () => {
  const on = part("keys").checked;
  root.classList.toggle("keyless", !on);
  for (const [button, key] of shortcuts) {
    if (on) button.setAttribute("aria-keyshortcuts", key);
    else button.removeAttribute("aria-keyshortcuts");
  }
};
part("keys").addEventListener("change", () => {
  remember("keys", part("keys").checked);
  applyKeys();
});
const applySmooth = () => picture.classList.toggle("pixelated", !part("smooth").checked);
part("smooth").addEventListener("change", () => {
  remember("smooth", part("smooth").checked);
  applySmooth();
});
part("guess").addEventListener("change", () => {
  remember("guess", part("guess").checked);
  show();
});
part("queue").addEventListener("change", () => {
  ahead = [];
  show();
  refill();
});
// The timers of a window that nobody sees may have stood still.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && Date.now() - renewed > RENEW) refill();
});
addEventListener("beforeunload", (event) => {
  if (outbox.items.length) event.preventDefault();
});

// ── Who labels ─────────────────────────────────────────────────────────────────────────────────────────────────────

const nameKey = `failscape:labeller:${task.project}`;

async function begin(name) {
  labeller = name;
  sessionStorage.setItem(nameKey, name);
  remember("labeller", name);
  [ahead, done, actions, at, progress] = [[], [], [], 0, null];
  part("name").textContent = name;
  part("who").hidden = true;
  part("desk").hidden = false;
  show();
  await outbox.adopt();
  await reload();
  picture.focus({ preventScroll: true });
  await refill();
}

function introduce() {
  labeller = "";
  part("desk").hidden = true;
  part("who").hidden = false;
  const field = part("who").elements.labeller;
  field.value = remembered("labeller", "");
  field.focus();
}

part("who").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = part("who").elements.labeller.value.trim();
  if (name) begin(name);
});
part("other").addEventListener("click", () => {
  sessionStorage.removeItem(nameKey);
  introduce();
});

applyKeys();
applySmooth();
const known = sessionStorage.getItem(nameKey);
if (known) begin(known);
else introduce();

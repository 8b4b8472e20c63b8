// Labels on their way to the server. They are kept in this browser until the server has said that it has them, so that
// neither a server that is killed nor a browser that is closed loses any. Sending one twice does no harm: each bears an
// identifier by which the server knows it again. What the server refuses is kept as well, until somebody decides.

import { afterFrame, ask, pause, randomId } from "./server.js";

const MOST_AT_ONCE = 50;
const LONGEST_PAUSE = 4000;

/** How requests end that are worth sending again: out of reach, not let in, overtaxed or broken for now. */
const passes = (status) => status === 0 || [401, 408, 425, 429].includes(status) || status >= 500;

export class Outbox {
  #prefix;
  #key;
  #address;
  #items = [];
  #parked = [];
  #sending = null;
  #oneByOne = false;

  /**
   * @param address where the project's labels are sent to
   * @param project its identifier
   * @param kept is told each item with the event that the server made of it, and the progress
   * @param refused is told each item that the server does not take, and why; it is parked
   * @param changed is told whenever items come or go, with what went wrong last, if anything
   */
  constructor({ address, project, kept, refused, changed }) {
    this.#address = address;
    this.#prefix = `failscape:outbox:${project}:`;
    this.#key = this.#prefix + randomId();
    this.kept = kept;
    this.refused = refused;
    this.changed = changed;
  }

  /** What is on its way. */
  get items() {
    return this.#items;
  }

  /** What was refused, each item with its `refusal`, and is kept until it is sent again or discarded. */
  get parked() {
    return this.#parked;
  }

  /** Take over what an earlier page left behind. Another page may still be sending it; that does no harm. */
  adopt() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.#prefix));
    for (const key of keys.filter((key) => key !== this.#key)) {
      for (const item of JSON.parse(localStorage.getItem(key))) (item.refusal ? this.#parked : this.#items).push(item);
      localStorage.removeItem(key);
    }
    this.#items.sort((one, other) => one.given_ms - other.given_ms);
    this.#store();
    this.changed(null);
    return this.send();
  }

  put(item) {
    item.given_ms = Date.now();
    if (item.kind === "undo" && this.#parked.some((label) => label.client_id === item.undoes)) {
      // The server never had it, so that there is no more to taking it back.
      this.#parked = this.#parked.filter((label) => label.client_id !== item.undoes);
    } else this.#items.push(item);
    this.#store();
    this.changed(null);
    afterFrame(() => this.send());
  }

  /** Send what was refused once more. */
  retry() {
    this.#items = [...this.#parked.map(({ refusal, ...item }) => item), ...this.#items];
    this.#parked = [];
    this.#store();
    this.changed(null);
    return this.send();
  }

  /** Forget what was refused. */
  discard() {
    this.#parked = [];
    this.#store();
    this.changed(null);
  }

  /** Send all there is; resolves when nothing is left. */
  send() {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
    });
    return this.#sending;
  }

  async #sendAll() {
    let wait = 250;
    while (this.#items.length) {
      const batch = this.#next();
      try {
        const answer = await this.#post(batch);
        batch.forEach((item, i) => this.#took(item, answer.events[i], answer.progress));
        wait = 250;
        this.changed(null);
      } catch (error) {
        if (error.status === undefined) throw error;
        if (passes(error.status)) {
          this.changed(error);
          await pause(wait);
          wait = Math.min(2 * wait, LONGEST_PAUSE);
        } else if (batch.length > 1) {
          // Of several labels sent together none was kept; one by one only the culprit is refused.
          this.#oneByOne = true;
        } else {
          this.#park(batch[0], error.message);
          this.refused(batch[0], error);
          this.changed(null);
        }
      }
    }
    this.#oneByOne = false;
  }

  /** Labels of one person that follow each other, or one undo. */
  #next() {
    const [first] = this.#items;
    if (first.kind === "undo" || this.#oneByOne) return [first];
    const end = this.#items.findIndex((item) => item.kind !== "label" || item.labeller !== first.labeller);
    return this.#items.slice(0, Math.min(end < 0 ? this.#items.length : end, MOST_AT_ONCE));
  }

  #post(batch) {
    const { labeller, tab } = batch[0];
    if (batch[0].kind === "undo") {
      const { event_id, client_id } = batch[0];
      return ask(`${this.#address}/undo`, { labeller, tab, event_id, client_id }, { keepalive: true });
    }
    // The server tells by `given_ms` that a label was overtaken on its way, as by one of another window.
    const labels = batch.map(({ image_id, label, client_id, seconds, given_ms, queue }) => ({
      image_id,
      label,
      client_id,
      seconds,
      given_ms,
      queue: queue ?? null,
    }));
    return ask(`${this.#address}/labels`, { labeller, tab, labels }, { keepalive: true });
  }

  #took(item, event, progress) {
    for (const later of this.#items) {
      if (later.kind === "undo" && later.undoes === item.client_id) later.event_id = event.id;
    }
    this.#items = this.#items.filter((other) => other !== item);
    this.#store();
    this.kept(item, event, progress);
  }

  /** Keep what was refused; but a label that was taken back meanwhile is settled, as is its undo. */
  #park(item, refusal) {
    const undo = this.#items.find((other) => other.kind === "undo" && other.undoes === item.client_id);
    this.#items = this.#items.filter((other) => other !== item && other !== undo);
    if (!undo) this.#parked.push({ ...item, refusal });
    this.#store();
  }

  #store() {
    const all = [...this.#items, ...this.#parked];
    if (all.length) localStorage.setItem(this.#key, JSON.stringify(all));
    else localStorage.removeItem(this.#key);
  }
}

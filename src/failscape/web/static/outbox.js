// Labels on their way to the server. They are kept in this browser until the server has said that it has them, so that
// neither a server that is killed nor a browser that is closed loses any. Sending one twice does no harm: each bears an
// identifier by which the server knows it again.

import { afterFrame, ask, pause, randomId } from "./server.js";

const MOST_AT_ONCE = 50;
const LONGEST_PAUSE = 4000;

/** How requests end that are worth sending again: out of reach, not let in, overtaxed or broken for now. */
const passes = (status) => status === 0 || status === 401 || status === 429 || status >= 500;

export class Outbox {
  #prefix;
  #key;
  #address;
  #items = [];
  #sending = null;
  #oneByOne = false;

  /**
   * @param address where the project's labels are sent to
   * @param project its identifier
   * @param kept is told each item with the event that the server made of it, and the progress
   * @param refused is told each item that the server will never take, and why
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

  get items() {
    return this.#items;
  }

  /** Take over what an earlier page left behind. Another page may still be sending it; that does no harm. */
  adopt() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.#prefix));
    for (const key of keys) {
      this.#items.push(...JSON.parse(localStorage.getItem(key)));
      localStorage.removeItem(key);
    }
    this.#store();
    return this.send();
  }

  put(item) {
    this.#items.push(item);
    this.#store();
    this.changed(null);
    afterFrame(() => this.send());
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
          // Of several labels sent together none was kept; one by one only the culprit is lost.
          this.#oneByOne = true;
        } else {
          this.#remove(batch[0]);
          this.refused(batch[0], error);
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
    const labels = batch.map(({ image_id, label, client_id, seconds }) => ({ image_id, label, client_id, seconds }));
    return ask(`${this.#address}/labels`, { labeller, tab, labels }, { keepalive: true });
  }

  #took(item, event, progress) {
    for (const later of this.#items) {
      if (later.kind === "undo" && later.undoes === item.client_id) later.event_id = event.id;
    }
    this.#remove(item);
    this.kept(item, event, progress);
  }

  /** Forget an item, and the undo of a label that was refused: there is nothing to take back. */
  #remove(item) {
    this.#items = this.#items.filter((other) => other !== item && !(other.undoes === item.client_id && !other.event_id));
    this.#store();
  }

  #store() {
    if (this.#items.length) localStorage.setItem(this.#key, JSON.stringify(this.#items));
    else localStorage.removeItem(this.#key);
  }
}

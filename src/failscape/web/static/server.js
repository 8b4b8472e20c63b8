// Requests to the server that gave this page.

/** An answer that is none: `status` is 0 where the server could not be reached. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Send JSON (or, without a body, ask) and return the JSON that is answered. */
export async function ask(address, body, { keepalive = false } = {}) {
  let answer;
  try {
    answer = await fetch(address, {
      method: body === undefined ? "GET" : "POST",
      headers: { Accept: "application/json", ...(body !== undefined && { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      keepalive,
    });
  } catch {
    throw new Refused(0, "The server does not answer.");
  }
  if (!answer.ok) {
    const text = await answer.text().catch(() => "");
    let message = text;
    try {
      message = JSON.parse(text).error ?? text;
    } catch {
      // Not JSON: the guard answers in plain text.
    }
    throw new Refused(answer.status, message);
  }
  try {
    return await answer.json();
  } catch {
    // The server, or the way to it, was lost in the midst of its answer.
    throw new Refused(0, "The server does not answer.");
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Return a function that does `act` with what it was called with last: while one call is under way, further ones wait,
 * and of those that wait only the last is done. So a slider asks as often as the server answers, and ends where it stands.
 */
export function latest(act) {
  let waiting = null;
  let busy = false;
  return async (...given) => {
    waiting = given;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const now = waiting;
        waiting = null;
        await act(...now);
      }
    } finally {
      busy = false;
    }
  };
}

/** Do something once the screen shows what has just changed. */
export function afterFrame(act) {
  if (document.visibilityState === "visible") requestAnimationFrame(() => setTimeout(act));
  else setTimeout(act);
}

/** An identifier that nobody else draws; `crypto.randomUUID` is missing where the connection is not encrypted. */
export const randomId = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

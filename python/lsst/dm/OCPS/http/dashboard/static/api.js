// SPDX-License-Identifier: GPL-3.0-or-later
// Requests to the server, the login, and the stream of changes.
import { h, htm } from "./vendor/preact.js";

export const html = htm.bind(h);
const data = document.documentElement.dataset;
export const site = { prefix: data.prefix, api: data.api, uws: data.uws, login: data.login === "yes", version: data.version };

let authorization = "";

// A token stands alone; with a name it is a password. Both are kept in memory only.
export function logIn(name, secret) {
  const bytes = new TextEncoder().encode(`${name}:${secret}`);
  authorization = name ? `Basic ${btoa(String.fromCharCode(...bytes))}` : `Bearer ${secret}`;
}

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export async function ask(path, options = {}) {
  const headers = { Accept: "*/*", ...options.headers };
  if (authorization) headers.Authorization = authorization;
  // Without credentials the browser does not open a login of its own.
  const credentials = site.login ? "omit" : "same-origin";
  const answer = await fetch(path, { ...options, headers, credentials });
  if (answer.ok || answer.type === "opaqueredirect" || answer.status === 416) return answer;
  const words = (await answer.text()).trim() || `HTTP ${answer.status}`;
  if (answer.status === 401) dispatchEvent(new CustomEvent("login-needed", { detail: authorization ? words : "" }));
  throw new Refused(answer.status, words);
}

export const read = async (path) => (await ask(site.api + path)).json();
export const jobPath = (id) => `${site.prefix}/ui/job/${encodeURIComponent(id)}`;

export async function change(job, phase) {
  const body = new URLSearchParams(phase === "DELETE" ? { ACTION: "DELETE" } : { PHASE: phase });
  const tail = phase === "DELETE" ? "" : "/phase";
  const list = encodeURIComponent(job.jobInfo.definition);
  return ask(`${site.uws}/${list}/${encodeURIComponent(job.jobId)}${tail}`, { method: "POST", body, redirect: "manual" });
}

// Call changed(job) and deleted(id) for each change from now on, through losses of the connection;
// opened() when the stream begins, before which nothing is told; state("live" | "cut off").
export function follow({ opened, changed, deleted, state }) {
  const stop = new AbortController();
  let last = "";
  async function once() {
    const headers = last ? { "Last-Event-ID": last } : {};
    const answer = await ask(`${site.api}/events`, { headers, signal: stop.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let begun = Boolean(last);
    state("live");
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const fields = Object.fromEntries(event.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
        if (fields.id) last = fields.id;
        if (!begun) {
          begun = true;
          opened();
        }
        if (!fields.data) continue;
        const found = JSON.parse(fields.data);
        if (fields.event === "deleted") deleted(found.jobId);
        else changed(found);
      }
    }
  }
  (async () => {
    while (!stop.signal.aborted) {
      try {
        await once();
      } catch (error) {
        if (stop.signal.aborted || error.status === 401) return;
      }
      state("cut off");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  })();
  return () => stop.abort();
}

// SPDX-License-Identifier: GPL-3.0-or-later
// What runs, what waits and why, what ended last, and whether all parts work.
import { html } from "./api.js";
import { isLive, JobTable, parse, seconds, usePolled } from "./format.js";

const RUNNING = ["EXECUTING", "SUSPENDED", "UNKNOWN"];

// In how many seconds queued jobs are expected to start, by their usual run times; as far as all is known.
function starts(running, waiting, status, statistics) {
  const found = new Map();
  const [backend] = status.backends;
  const usual = (job) => statistics[job.jobInfo.definition]?.p50;
  if (status.backends.length !== 1 || running.length !== backend.used || !running.every(usual)) return found;
  const free = running.map((job) => Math.max(0, usual(job) - (Date.now() - parse(job.startTime || job.creationTime)) / 1000));
  while (free.length < backend.workers) free.push(0);
  const queue = new Map(waiting.map((job) => [status.places[job.jobId], job]));
  for (let place = 1; usual(queue.get(place) || { jobInfo: {} }); place += 1) {
    const job = queue.get(place);
    free.sort((a, b) => a - b);
    found.set(job.jobId, free[0]);
    free[0] += usual(job);
  }
  return found;
}

function why(job, status, start) {
  const phase = job.jobInfo.uwsPhase;
  if (phase === "PENDING") return "not asked to run yet";
  if (phase === "HELD") return "held until somebody runs it";
  if (job.errorSummary.message) return job.errorSummary.message;
  if (!status) return "";
  const { backend } = status.parts;
  if (!backend.ok) return `the backend does not work: ${backend.reason}`;
  const place = status.places[job.jobId];
  if (!place) return "";
  return `place ${place} in the queue: all workers are busy${start == null ? "" : `; expected to start in about ${seconds(Math.round(start))}`}`;
}

function Status({ status }) {
  const { csc, backends, parts } = status;
  const broken = Object.entries(parts).filter(([, part]) => !part.ok);
  return html`<ul class="status" aria-label="State of OCPS">
    ${csc && html`<li>CSC ${csc.name}:${csc.index} <strong>${csc.state}</strong> <span class="dim">${Object.entries({ ...csc.versions, ...csc.configuration }).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`).join(", ")}</span></li>`}
    ${backends.map((one) => html`<li>Backend ${one.kind}: <strong>${one.used} of ${one.workers}</strong> workers used, ${one.waiting} waiting</li>`)}
    ${broken.length ? broken.map(([name, part]) => html`<li class="mistake" role="alert">${name} does not work: ${part.reason}</li>`) : html`<li>Engine, store and backend work</li>`}</ul>`;
}

export function NowPage({ jobs, statistics }) {
  const status = usePolled("/status", 5000, null);
  const all = [...jobs.values()].sort((a, b) => (a.creationTime < b.creationTime ? 1 : -1));
  const running = all.filter((job) => RUNNING.includes(job.jobInfo.uwsPhase));
  const place = (job) => status?.places[job.jobId] ?? Infinity;
  const waiting = all.filter((job) => isLive(job) && !running.includes(job)).sort((a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
  const end = (job) => job.endTime || job.creationTime;
  const ended = all.filter((job) => !isLive(job)).sort((a, b) => (end(a) < end(b) ? 1 : end(a) > end(b) ? -1 : 0)).slice(0, 30);
  const expected = status ? starts(running, waiting, status, statistics) : new Map();
  return html`<h1>Now</h1>${status && html`<${Status} status=${status} />`}
    <h2>Running (${running.length})</h2><${JobTable} jobs=${running} statistics=${statistics} name="Running jobs" />
    <h2>Waiting (${waiting.length})</h2><${JobTable} jobs=${waiting} name="Waiting jobs" words=${(job) => why(job, status, expected.get(job.jobId))} />
    <h2>Ended last</h2><${JobTable} jobs=${ended} name="Jobs that ended last" />`;
}

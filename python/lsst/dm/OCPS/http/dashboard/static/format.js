// SPDX-License-Identifier: GPL-3.0-or-later
// Jobs as they are shown: phases, times, tables.
import { html, ask, jobPath, site } from "./api.js";
import { useEffect, useState } from "./vendor/preact.js";

const SHAPES = { PENDING: "○", HELD: "‖", QUEUED: "◔", EXECUTING: "▶", SUSPENDED: "‖", UNKNOWN: "?", COMPLETED: "✓", ERROR: "✗", ABORTED: "■", ARCHIVED: "▢" };
const LIVE = new Set(["PENDING", "HELD", "QUEUED", "EXECUTING", "SUSPENDED", "UNKNOWN"]);
export const PHASES = Object.keys(SHAPES);
const NEWEST = 200;
const ROWS = 500;

export const isLive = (job) => LIVE.has(job.jobInfo.uwsPhase);

// Return a page of what tables show of jobs, and the cursor of the next page.
export async function readPage(query, options = {}) {
  const answer = await ask(`${site.api}/job?view=table&${query}`, options);
  const link = /<([^>]*)>/.exec(answer.headers.get("Link") || "");
  return { jobs: await answer.json(), next: link ? new URL(link[1]).searchParams.get("cursor") : "" };
}

// Return the newest jobs, and all that have not ended.
export async function loadAll() {
  const found = [];
  const live = [...LIVE].map((phase) => `uws_phase=${phase}`).join("&");
  for (const query of [live, `last=${NEWEST}`]) {
    let cursor = "";
    do {
      const page = await readPage(`${query}&limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      found.push(...page.jobs);
      cursor = page.next;
    } while (cursor);
  }
  return found;
}

export const seconds = (value) => (value == null ? "" : value < 120 ? `${Math.round(value * 10) / 10} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`);
export const time = (text) => (text ? `${text.slice(0, 19)} UTC` : "");
const parse = (text) => Date.parse(text.replace(" ", "T"));

// Run times (s) between which 10 % and 90 % of the completed jobs of a definition lie, and their median.
export function usual(jobs, definition) {
  const times = [...jobs.values()].filter((job) => job.jobInfo.definition === definition && job.jobInfo.uwsPhase === "COMPLETED" && job.executionDuration != null).map((job) => job.executionDuration).sort((a, b) => a - b);
  if (times.length < 3) return null;
  const at = (part) => times[Math.min(times.length - 1, Math.floor(part * times.length))];
  return { p50: at(0.5), p90: at(0.9), count: times.length };
}

export function useClock(wanted) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!wanted) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [wanted]);
  return now;
}

export function elapsed(job, now) {
  if (!job.startTime) return "";
  return seconds(isLive(job) ? Math.max(0, (now - parse(job.startTime)) / 1000) : job.executionDuration);
}

export const Phase = ({ job }) => {
  const phase = job.jobInfo.uwsPhase;
  return html`<span class=${`phase ${phase}`}>${SHAPES[phase] || "?"} ${phase}</span>`;
};

export const Progress = ({ job }) => {
  const { done, failed, total } = job.jobInfo.progress;
  if (!total) return null;
  return html`<span><progress max=${total} value=${done + failed} aria-label=${`Progress of ${job.jobId}`} /> ${done} of ${total}${failed ? `, ${failed} failed` : ""}</span>`;
};

export function JobTable({ jobs, jobsOfAll, name, rows = ROWS }) {
  const now = useClock(jobs.some(isLive));
  if (!jobs.length) return html`<p class="dim">None.</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${name}><table class="cards"><thead><tr>
      <th scope="col">Phase</th><th scope="col">Job</th><th scope="col">Definition</th><th scope="col">Owner</th><th scope="col">Created</th><th scope="col">Run time</th><th scope="col">State</th></tr></thead>
    <tbody>${jobs.slice(0, rows).map((job) => {
      const times = jobsOfAll && isLive(job) && usual(jobsOfAll, job.jobInfo.definition);
      return html`<tr key=${job.jobId}><td><${Phase} job=${job} /></td><td><a href=${jobPath(job.jobId)}>${job.runId}</a></td>
        <td>${job.jobInfo.definition}</td><td>${job.ownerId || "–"}</td><td>${time(job.creationTime)}</td>
        <td>${elapsed(job, now)}${times ? html` <span class="dim">usually ${seconds(times.p50)} to ${seconds(times.p90)}</span>` : ""}</td>
        <td><${Progress} job=${job} /> ${job.errorSummary.message}</td></tr>`;
    })}</tbody></table>${jobs.length > rows && html`<p class="dim">and ${jobs.length - rows} more</p>`}</div>`;
}

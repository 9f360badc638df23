// SPDX-License-Identifier: GPL-3.0-or-later
// Jobs as they are shown: phases, times, tables.
import { html, ask, jobPath, read, site } from "./api.js";
import { useEffect, useState } from "./vendor/preact.js";

const SHAPES = { PENDING: "○", HELD: "‖", QUEUED: "◔", EXECUTING: "▶", SUSPENDED: "‖", UNKNOWN: "?", COMPLETED: "✓", ERROR: "✗", ABORTED: "■", ARCHIVED: "▢" };
const LIVE = new Set(["PENDING", "HELD", "QUEUED", "EXECUTING", "SUSPENDED", "UNKNOWN"]);
const ENDED = ["COMPLETED", "ERROR", "ABORTED"];
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

// Return the newest jobs, the newest that have ended, and all that have not.
export async function loadAll() {
  const found = [];
  const among = (phases) => [...phases].map((phase) => `uws_phase=${phase}`).join("&");
  for (const query of [among(LIVE), `${among(ENDED)}&last=${NEWEST}`, `last=${NEWEST}`]) {
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
export const parse = (text) => Date.parse(text.replace(" ", "T"));

// The usual run time of a job's definition, and whether it takes longer, when that is known.
export const Usual = ({ job, now, statistics }) => {
  const times = statistics[job.jobInfo.definition];
  if (!times?.p50) return null;
  const slow = isLive(job) && job.startTime && (now - parse(job.startTime)) / 1000 > times.p90;
  return html` <span class="dim">usually ${seconds(times.p50)} to ${seconds(times.p90)}</span>${slow && html` <strong class="mistake">slow</strong>`}`;
};

// What the server says at a path, asked for again every few seconds while the page can be seen.
export function usePolled(path, every, first) {
  const [found, setFound] = useState(first);
  useEffect(() => {
    let stopped = false;
    let timer;
    const look = async () => {
      try {
        const answer = document.hidden ? null : await read(path);
        if (stopped) return;
        if (answer) setFound(answer);
      } catch {
        // The header says whether the server is away.
      }
      if (!stopped) timer = setTimeout(look, every);
    };
    look();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [path]);
  return found;
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

export function JobTable({ jobs, statistics = {}, name, rows = ROWS, words = (job) => job.errorSummary.message }) {
  const now = useClock(jobs.some(isLive));
  if (!jobs.length) return html`<p class="dim">None.</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${name}><table class="cards"><thead><tr>
      <th scope="col">Phase</th><th scope="col">Job</th><th scope="col">Definition</th><th scope="col">Owner</th><th scope="col">Created</th><th scope="col">Run time</th><th scope="col">State</th></tr></thead>
    <tbody>${jobs.slice(0, rows).map((job) => html`<tr key=${job.jobId}><td><${Phase} job=${job} /></td><td><a href=${jobPath(job.jobId)}>${job.runId}</a></td>
        <td>${job.jobInfo.definition}</td><td>${job.ownerId || "–"}</td><td>${time(job.creationTime)}</td>
        <td>${elapsed(job, now)}${isLive(job) && html`<${Usual} job=${job} now=${now} statistics=${statistics} />`}</td>
        <td><${Progress} job=${job} /> ${words(job)}</td></tr>`)}</tbody></table>${jobs.length > rows && html`<p class="dim">and ${jobs.length - rows} more</p>`}</div>`;
}

// SPDX-License-Identifier: GPL-3.0-or-later
// The history: filters that stand in the address, and failures by their cause.
import { html } from "./api.js";
import { useState } from "./vendor/preact.js";
import { JobTable, NEWEST, PHASES } from "./format.js";

const FIELDS = ["phase", "definition", "owner", "q"];

function text(job) {
  const given = Object.entries(job.jobInfo.given).map(([name, value]) => `${name}=${value}`);
  return [job.jobId, job.runId, job.errorSummary.message, ...given].join("\n").toLowerCase();
}

// Numbers differ between failures of one cause.
const cause = (job) => (job.errorSummary.message || "no message").split("\n")[0].replace(/\d+(\.\d+)?/g, "#");

export function HistoryPage({ jobs }) {
  const [, refresh] = useState(0);
  const asked = new URLSearchParams(location.search);
  const value = (name) => asked.get(name) || "";
  const set = (name, text) => {
    text ? asked.set(name, text) : asked.delete(name);
    const query = asked.toString();
    history.replaceState(null, "", location.pathname + (query && `?${query}`));
    refresh((count) => count + 1);
  };
  const all = [...jobs.values()].sort((a, b) => (a.creationTime < b.creationTime ? 1 : -1));
  const words = value("q").toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.filter((job) =>
    (!value("phase") || job.jobInfo.uwsPhase === value("phase")) && (!value("definition") || job.jobInfo.definition === value("definition")) &&
    (!value("owner") || job.ownerId === value("owner")) && words.every((word) => text(job).includes(word)));
  const groups = new Map();
  for (const job of found.filter((one) => one.jobInfo.uwsPhase === "ERROR")) groups.set(cause(job), [...(groups.get(cause(job)) || []), job]);
  const options = { phase: PHASES, definition: all.map((job) => job.jobInfo.definition), owner: all.map((job) => job.ownerId) };
  const choice = (name) => html`<label>${name} <select value=${value(name)} onChange=${(e) => set(name, e.target.value)}>
    <option value="">all</option>${[...new Set([...options[name], value(name)])].filter(Boolean).sort().map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`;
  return html`<h1>History</h1>
    <div class="row" role="search">${FIELDS.slice(0, 3).map(choice)}
      <label>words <input type="search" value=${value("q")} onInput=${(e) => set("q", e.target.value)} title="Key /" /></label></div>
    <p class="dim">${found.length} of ${all.length} jobs; at most the newest ${NEWEST} and those that changed since are searched. The address of this page can be shared.</p>
    ${groups.size > 0 && html`<h2>Failures by cause</h2><ul>${[...groups].sort((a, b) => b[1].length - a[1].length).map(([words, failed]) =>
      html`<li><strong>${failed.length}</strong> ${failed.length === 1 ? "job" : "jobs"}: <span class="mistake">${words}</span></li>`)}</ul>`}
    <h2>Jobs</h2><${JobTable} jobs=${found} name="Jobs found" />`;
}

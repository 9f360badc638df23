// SPDX-License-Identifier: GPL-3.0-or-later
// The history: the server searches; what is asked for stands in the address; failures by their cause.
import { html, read } from "./api.js";
import { useEffect, useState } from "./vendor/preact.js";
import { JobTable, PHASES, readPage } from "./format.js";

const FIELDS = ["phase", "definition", "owner", "q", "after", "before"];
const PAGE = 100;
const NAMES = { phase: "uws_phase" };

// Numbers differ between failures of one cause.
const cause = (job) => (job.errorSummary.message || "no message").split("\n")[0].replace(/\d+(\.\d+)?/g, "#");

// Jobs that the server finds for the address, more of them on request.
function useSearch(asked) {
  const [found, setFound] = useState({ jobs: [], next: "", busy: true, words: "" });
  const [again, setAgain] = useState(0);
  const query = new URLSearchParams(FIELDS.filter((name) => asked.get(name)).map((name) => [NAMES[name] || name, asked.get(name)]));
  query.set("last", 999999999);
  query.set("limit", PAGE);
  const text = query.toString();
  useEffect(() => {
    const stop = new AbortController();
    setFound((old) => ({ ...old, busy: true }));
    // While somebody types, only the last words are searched.
    const timer = setTimeout(() => readPage(text, { signal: stop.signal }).then(
      (page) => setFound({ ...page, busy: false, words: "" }),
      (error) => stop.signal.aborted || setFound({ jobs: [], next: "", busy: false, words: error.message })), 200);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [text, again]);
  const more = () => readPage(`${text}&cursor=${encodeURIComponent(found.next)}`).then(
    (page) => setFound({ ...found, jobs: [...found.jobs, ...page.jobs], next: page.next }),
    (error) => setFound({ ...found, words: error.message }));
  return { ...found, more, refresh: () => setAgain(again + 1) };
}

export function HistoryPage({ jobs }) {
  const [, refresh] = useState(0);
  const [definitions, setDefinitions] = useState([]);
  useEffect(() => {
    read("/definitions").then((all) => setDefinitions(all.map((one) => one.name)), () => {});
  }, []);
  const asked = new URLSearchParams(location.search);
  const value = (name) => asked.get(name) || "";
  const set = (name, text) => {
    text ? asked.set(name, text) : asked.delete(name);
    const query = asked.toString();
    history.replaceState(null, "", location.pathname + (query && `?${query}`));
    refresh((count) => count + 1);
  };
  const search = useSearch(asked);
  // What has changed since is shown as it is now.
  const found = search.jobs.map((job) => jobs.get(job.jobId) || job);
  const groups = new Map();
  for (const job of found.filter((one) => one.jobInfo.uwsPhase === "ERROR")) groups.set(cause(job), [...(groups.get(cause(job)) || []), job]);
  const choice = (name, options) => html`<label>${name} <select value=${value(name)} onChange=${(e) => set(name, e.target.value)}>
    <option value="">all</option>${[...new Set([...options, value(name)])].filter(Boolean).map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`;
  const field = (name, label, hint, type = "text") => html`<label>${label} <input type=${type} value=${value(name)} title=${hint} onInput=${(e) => set(name, e.target.value.trim())} /></label>`;
  return html`<h1>History</h1>
    <div class="row" role="search">${choice("phase", PHASES)}${choice("definition", definitions)}${field("owner", "owner", "Name of the owner")}
      ${field("q", "words", "Key /. Each word is looked for in ids, definition, owner, parameters and errors", "search")}
      ${field("after", "after (UTC)", "2026-11-25 or 2026-11-25T03:00")}${field("before", "before (UTC)", "2026-11-25 or 2026-11-25T03:00")}
      <button type="button" onClick=${search.refresh}>Search again</button></div>
    ${search.words && html`<p class="mistake" role="alert">${search.words}</p>`}
    <p class="dim" role="status">${search.busy ? "Searching…" : `${found.length} jobs${search.next ? ", and older ones" : ""}, the newest first.`} The address of this page can be shared.</p>
    ${groups.size > 0 && html`<h2>Failures by cause</h2><ul>${[...groups].sort((a, b) => b[1].length - a[1].length).map(([words, failed]) =>
      html`<li><strong>${failed.length}</strong> ${failed.length === 1 ? "job" : "jobs"}: <span class="mistake">${words}</span></li>`)}</ul>`}
    <h2>Jobs</h2><${JobTable} jobs=${found} name="Jobs found" rows=${found.length} />
    ${search.next && html`<button type="button" onClick=${search.more}>Older jobs</button>`}`;
}

// SPDX-License-Identifier: GPL-3.0-or-later
// The history: the server searches; what is asked for stands in the address; failures by their cause.
import { html, jobPath, read } from "./api.js";
import { useEffect, useRef, useState } from "./vendor/preact.js";
import { JobTable, PHASES, readPage, seconds, time } from "./format.js";

const FIELDS = ["phase", "definition", "owner", "q", "after", "before"];
const PAGE = 100;
const MOST = 5000;
const NAMES = { phase: "uws_phase" };

// Numbers differ between failures of one cause.
const cause = (job) => (job.errorSummary.message || "no message").split("\n")[0].replace(/\d+(\.\d+)?/g, "#");

// Failures of the jobs by their cause, the most frequent first.
function failures(jobs) {
  const groups = new Map();
  for (const job of jobs.filter((one) => one.jobInfo.uwsPhase === "ERROR")) groups.set(cause(job), [...(groups.get(cause(job)) || []), job]);
  return [...groups].sort((a, b) => b[1].length - a[1].length);
}

const jobsOf = (count) => `${count} ${count === 1 ? "job" : "jobs"}`;

// The jobs in words, to be copied into a log of the night.
function report(jobs, query, whole) {
  const lines = [`OCPS, ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC: ${jobsOf(jobs.length)}${whole ? "" : `, the newest ${MOST} only`} (${query || "all"})`, ""];
  for (const name of [...new Set(jobs.map((job) => job.jobInfo.definition))].sort()) {
    const mine = jobs.filter((job) => job.jobInfo.definition === name);
    const counts = PHASES.map((phase) => [mine.filter((job) => job.jobInfo.uwsPhase === phase).length, phase]).filter(([count]) => count);
    const total = mine.reduce((sum, job) => sum + (job.executionDuration || 0), 0);
    lines.push(`${name}: ${counts.map((one) => one.join(" ")).join(", ")}; run time ${seconds(total)}`);
  }
  for (const [words, failed] of failures(jobs)) lines.push("", `${jobsOf(failed.length)}, first ${time(failed.at(-1).creationTime)}: ${words}`, ...failed.map((job) => `  ${job.jobId}`));
  return lines.join("\n");
}

// Jobs that the server finds for the address, more of them on request.
function useSearch(asked) {
  const [found, setFound] = useState({ jobs: [], next: "", busy: true, words: "" });
  const [again, setAgain] = useState(0);
  const query = new URLSearchParams(FIELDS.map((name) => [NAMES[name] || name, (asked.get(name) || "").trim()]).filter(([, value]) => value));
  query.set("last", 999999999);
  query.set("limit", PAGE);
  const text = query.toString();
  const latest = useRef();
  latest.current = text;
  // Whether the search for which this was called is still the one that is asked for.
  const isCurrent = () => latest.current === text;
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
  // An answer that comes after another search has begun belongs to nothing that is shown.
  const add = (change) => setFound((now) => (now === found ? { ...found, ...change } : now));
  const more = () => readPage(`${text}&cursor=${encodeURIComponent(found.next)}`).then(
    (page) => add({ jobs: [...found.jobs, ...page.jobs], next: page.next }),
    (error) => add({ words: error.message }));
  const all = async () => {
    const jobs = [];
    let cursor = "";
    do {
      const page = await readPage(`${text.replace(`limit=${PAGE}`, "limit=1000")}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      jobs.push(...page.jobs);
      cursor = page.next;
    } while (cursor && jobs.length < MOST);
    return { jobs, whole: !cursor };
  };
  return { ...found, all, isCurrent, more, refresh: () => setAgain(again + 1) };
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
  const groups = failures(found);
  const [written, setWritten] = useState("");
  const write = () => {
    const query = asked.toString();
    const show = (words) => search.isCurrent() && setWritten(words);
    search.all().then(({ jobs: all, whole }) => show(report(all, query, whole)), (error) => show(error.message));
  };
  const choice = (name, options) => html`<label>${name} <select value=${value(name)} onChange=${(e) => set(name, e.target.value)}>
    <option value="">all</option>${[...new Set([...options, value(name)])].filter(Boolean).map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`;
  const field = (name, label, hint, type = "text") => html`<label>${label} <input type=${type} value=${value(name)} title=${hint} onInput=${(e) => set(name, e.target.value)} /></label>`;
  return html`<h1>History</h1>
    <div class="row" role="search">${choice("phase", PHASES)}${choice("definition", definitions)}${field("owner", "owner", "Name of the owner")}
      ${field("q", "words", "Key /. Each word is looked for in ids, definition, owner, parameters, errors and messages", "search")}
      ${field("after", "after (UTC)", "2026-11-25 or 2026-11-25T03:00")}${field("before", "before (UTC)", "2026-11-25 or 2026-11-25T03:00")}
      <button type="button" onClick=${search.refresh}>Search again</button><button type="button" onClick=${write}>Report as text</button></div>
    ${search.words && html`<p class="mistake" role="alert">${search.words}</p>`}
    <p class="dim" role="status">${search.busy ? "Searching…" : `${found.length} jobs${search.next ? ", and older ones" : ""}, the newest first.`} The address of this page can be shared.</p>
    ${written && html`<h2>Report</h2><pre tabindex="0" aria-label="Report">${written}</pre>`}
    ${groups.length > 0 && html`<h2>Failures by cause</h2><ul>${groups.map(([words, failed]) =>
      html`<li><strong>${failed.length}</strong> ${failed.length === 1 ? "job" : "jobs"}, first ${time(failed.at(-1).creationTime)}: <span class="mistake">${words}</span> ${failed.slice(0, 3).map((job) => html`<a href=${jobPath(job.jobId)}>${job.runId.slice(0, 12)}</a> `)}</li>`)}</ul>`}
    <h2>Jobs</h2><${JobTable} jobs=${found} name="Jobs found" rows=${found.length} />
    ${search.next && html`<button type="button" onClick=${search.more}>Older jobs</button>`}`;
}

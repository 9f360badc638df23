// SPDX-License-Identifier: GPL-3.0-or-later
// One job: state, parameters, log, results, what one can do with it.
import { html, ask, change, read, site } from "./api.js";
import { useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { elapsed, isLive, Phase, Progress, seconds, time, useClock, Usual } from "./format.js";

const PREVIEW = 20e6;
const SHOWN = 200e3;
const LINES = 500;
const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", `'\\''`)}'`);

// The log from where it was read before; again every second while the job runs.
function useLog(id, live) {
  const [text, setText] = useState("");
  const from = useRef(0);
  const decoder = useRef(new TextDecoder());
  useEffect(() => {
    let timer;
    let stopped = false;
    const more = async () => {
      try {
        const headers = from.current ? { Range: `bytes=${from.current}-` } : {};
        const answer = await ask(`${site.api}/job/result/${encodeURIComponent(id)}/ocps.log`, { headers });
        if (answer.status !== 416 && !stopped) {
          const bytes = await answer.arrayBuffer();
          const whole = answer.status === 200;
          if (whole) decoder.current = new TextDecoder();
          from.current = bytes.byteLength + (whole ? 0 : from.current);
          const part = decoder.current.decode(bytes, { stream: true });
          setText((old) => (whole ? part : old + part));
        }
      } catch {
        // There is no log yet.
      }
      if (live && !stopped) timer = setTimeout(more, 1000);
    };
    more();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [id, live]);
  return text;
}

function Log({ id, live }) {
  const text = useLog(id, live);
  const [words, setWords] = useState("");
  const box = useRef();
  const lines = useMemo(() => text.split("\n").map((line) => line.slice(line.replace(/\r$/, "").lastIndexOf("\r") + 1)), [text]);
  const parts = useMemo(() => Array.from({ length: Math.ceil(lines.length / LINES) }, (_, n) => lines.slice(n * LINES, (n + 1) * LINES).join("\n")), [lines]);
  const found = useMemo(() => (words ? lines.map((line, n) => [n + 1, line]).filter(([, line]) => line.toLowerCase().includes(words.toLowerCase())) : []), [lines, words]);
  useEffect(() => {
    if (live && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  return html`<h2 id="log">Log</h2><div class="row"><label>Search the log <input type="search" value=${words} onInput=${(e) => setWords(e.target.value)} /></label>
      <button type="button" onClick=${() => setWords("error")}>Errors</button> <span role="status">${words ? `${found.length} lines` : ""}</span></div>
    ${words ? html`<pre tabindex="0" aria-labelledby="log">${found.slice(0, 2000).map(([n, line]) => `${n}: ${line}\n`)}</pre>`
      : html`<div class="log" ref=${box} tabindex="0" role="region" aria-labelledby="log">${parts.map((part, n) => html`<pre class="part" key=${n}>${part}</pre>`)}</div>`}`;
}

function Table({ text, separator }) {
  const rows = text.split(/\r?\n/).filter((line) => line && !line.startsWith("#")).slice(0, 201).map((line) => line.split(separator));
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Table"><table><thead><tr>${rows[0]?.map((cell) => html`<th scope="col">${cell}</th>`)}</tr></thead>
    <tbody>${rows.slice(1).map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>`;
}

async function load(path, name, kind) {
  const answer = await ask(path);
  if (/^image\/(png|jpeg|gif|svg\+xml)/.test(kind)) return { image: URL.createObjectURL(await answer.blob()) };
  const text = (await answer.text()).slice(0, SHOWN);
  if (/\.csv$/.test(name)) return { table: text, separator: "," };
  if (/\.ecsv$/.test(name)) return { table: text, separator: " " };
  if (/\.json$/.test(name)) {
    try {
      return { text: JSON.stringify(JSON.parse(text), null, 2) };
    } catch {
      return { text };
    }
  }
  return { text };
}

function Result({ job, number }) {
  const { name, size, mimeType } = job.jobInfo.results[number];
  const [shown, setShown] = useState(null);
  const [words, setWords] = useState("");
  const kind = mimeType || "";
  const path = `${site.api}/job/result/${encodeURIComponent(job.jobId)}/${number}`;
  const visible = (/^(text|image)\/|json|xml/.test(kind) || /\.(csv|ecsv|json|txt|log|yaml|svg|png)$/.test(name)) && !/fits/.test(kind) && (size ?? 0) <= PREVIEW;
  useEffect(() => () => shown?.image && URL.revokeObjectURL(shown.image), [shown]);
  const preview = () => (shown ? setShown(null) : load(path, name, kind).then(setShown, (error) => setWords(error.message)));
  const download = async () => {
    try {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await (await ask(path)).blob());
      link.download = name.split("/").pop();
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    } catch (error) {
      setWords(error.message);
    }
  };
  return html`<li><div class="row"><strong>${name}</strong> <span class="dim">${kind} ${size == null ? "" : `${size} bytes`}</span>
      ${visible && html`<button type="button" aria-expanded=${String(Boolean(shown))} aria-label=${`Show ${name}`} onClick=${preview}>${shown ? "Hide" : "Show"}</button>`}
      <button type="button" aria-label=${`Download ${name}`} onClick=${download}>Download</button></div>
    ${words && html`<p class="mistake" role="alert">${words}</p>`}
    ${shown?.image && html`<img class="preview" src=${shown.image} alt=${name} />`}
    ${shown?.table != null && html`<${Table} text=${shown.table} separator=${shown.separator} />`}
    ${shown?.text != null && html`<pre tabindex="0" aria-label=${name}>${shown.text}</pre>`}</li>`;
}

function Same({ job }) {
  const { definition, given } = job.jobInfo;
  const pairs = Object.entries(given);
  const url = location.origin + site.uws;
  return html`<details><summary>The same from elsewhere</summary>
    <h3>Terminal</h3><pre tabindex="0">${["ocps", "submit", definition, ...pairs.map(([name, value]) => `${name}=${value}`)].map(quote).join(" ")}</pre>
    <h3>curl</h3><pre tabindex="0">${["curl", "-L", `${url}/${definition}`, "-d", "PHASE=RUN", ...pairs.flatMap(([name, value]) => ["--data-urlencode", `${name}=${value}`])].map(quote).join(" ")}</pre>
    <h3>Python</h3><pre tabindex="0">${`from lsst.dm.OCPS.client import BlockingClient\n\nclient = BlockingClient(${JSON.stringify(location.origin + site.prefix)})\njob = client.submit(${JSON.stringify(definition)}, ${JSON.stringify(given)})`}</pre></details>`;
}

export function JobPage({ id, current, statistics }) {
  const [old, setOld] = useState(null);
  const [words, setWords] = useState("");
  // Of jobs in lists only the columns of tables are known.
  const whole = current?.jobInfo.given && current;
  useEffect(() => {
    if (!whole) read(`/job/${encodeURIComponent(id)}`).then(setOld, (error) => setWords(error.message));
  }, [id]);
  const job = whole || old;
  const live = Boolean(job && isLive(job));
  const now = useClock(live);
  if (!job) return html`<h1>Job ${id}</h1>${words ? html`<p class="mistake" role="alert">${words}</p>` : html`<p>Reading the job…</p>`}`;
  const act = (phase) => change(job, phase).then(() => setWords(""), (error) => setWords(error.message));
  const info = job.jobInfo;
  const phase = info.uwsPhase;
  const rerun = `${site.prefix}/ui/submit/${encodeURIComponent(info.definition)}?again=${encodeURIComponent(job.jobId)}`;
  const row = (name, value) => value && html`<tr><th scope="row">${name}</th><td>${value}</td></tr>`;
  return html`<h1>${job.runId}</h1>
    <p><${Phase} job=${job} /> <${Progress} job=${job} /> ${elapsed(job, now)}<${Usual} job=${job} now=${now} statistics=${statistics} /></p>
    ${job.errorSummary.message && html`<p class=${phase === "ERROR" ? "mistake" : ""}>${job.errorSummary.message}</p>`}
    <div class="row">${["PENDING", "HELD"].includes(phase) && html`<button type="button" onClick=${() => act("RUN")}>Run</button>`}
      ${["PENDING", "QUEUED"].includes(phase) && html`<button type="button" onClick=${() => act("HOLD")}>Hold</button>`}
      ${live && html`<button type="button" onClick=${() => act("ABORT")}>Abort</button>`}
      <a href=${rerun}>Run again, edited</a></div>
    ${words && html`<p class="mistake" role="alert">${words}</p>`}
    <div class="scroll" tabindex="0" role="region" aria-label="The job"><table><tbody>${row("Job", job.jobId)}${row("Definition", info.definition)}${row("Owner", job.ownerId)}
      ${row("Created", time(job.creationTime))}${row("Started", time(job.startTime))}${row("Ended", time(job.endTime))}
      ${info.attempts?.map((one) => row(`Attempt ${one.number}`, `${time(one.startTime)} to ${time(one.endTime)}: ${one.message}`))}
      ${Object.entries(info.given).map(([name, value]) => row(name, value))}</tbody></table></div>
    <h2>Results</h2>${job.results.length ? html`<ul>${info.results.map((one, n) => html`<${Result} key=${one.name} job=${job} number=${n} />`)}</ul>` : html`<p class="dim">None.</p>`}
    <${Log} id=${job.jobId} live=${live} />
    <${Same} job=${job} />`;
}

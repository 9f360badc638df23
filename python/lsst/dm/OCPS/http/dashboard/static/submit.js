// SPDX-License-Identifier: GPL-3.0-or-later
// Forms of the job definitions; mistakes stand at their fields.
import { html, ask, read, site } from "./api.js";
import { useEffect, useState } from "./vendor/preact.js";

// Words of the server by the field they begin with; the rest under "".
function byField(words, names) {
  const found = {};
  for (const part of words.split(/;\s+|\n+/)) {
    const match = /^(?:env\/)?([^:]+):\s*(.*)$/s.exec(part);
    const name = match && names.includes(match[1]) ? match[1] : "";
    found[name] = [found[name], name ? match[2] : part].filter(Boolean).join("; ");
  }
  return found;
}

function Field({ one, value, set, wrong }) {
  const id = `field-${one.name}`;
  const help = [one.description, one.unit && `in ${one.unit}`, one.min != null && `at least ${one.min}`, one.max != null && `at most ${one.max}`].filter(Boolean).join(", ");
  const common = { id, required: one.required, "aria-invalid": wrong ? "true" : null, "aria-describedby": `${id}-help` };
  const input = one.options.length
    ? html`<select ...${common} value=${value} onChange=${(e) => set(e.target.value)}>${[...new Set(["", ...one.options].filter((x) => x || one.required))].map((x) => html`<option value=${x}>${x}</option>`)}</select>`
    : one.type === "bool" ? html`<input ...${common} required=${false} type="checkbox" checked=${value === "true"} onChange=${(e) => set(String(e.target.checked))} />`
    : one.type === "file" ? html`<input ...${common} type="file" onChange=${(e) => set(e.target.files[0])} />`
    : html`<input ...${common} value=${value} inputmode=${one.type === "int" || one.type === "float" ? "decimal" : null} onInput=${(e) => set(e.target.value)} />`;
  return html`<div><label for=${id}>${one.name}${one.required ? " (needed)" : ""}</label>${input}
    <div id=${`${id}-help`}><span class="dim">${help}</span>${wrong && html` <strong class="mistake" role="alert">${wrong}</strong>`}</div></div>`;
}

function Form({ definition, given, done }) {
  const start = Object.fromEntries(definition.parameters.map((one) => [one.name, String(given[one.name] ?? (one.type === "file" ? "" : one.default ?? ""))]));
  const [values, setValues] = useState(start);
  const [wrong, setWrong] = useState({});
  const [tried, setTried] = useState("");
  const [busy, setBusy] = useState(false);
  const files = definition.parameters.some((one) => one.type === "file");
  const send = async (dry) => {
    setBusy(true);
    setWrong({});
    setTried("");
    const filled = Object.entries(values).filter(([name, value]) => value !== "" || start[name] !== "");
    try {
      if (files) {
        const body = new FormData();
        for (const [name, value] of filled) body.append(name, value);
        body.append("PHASE", "RUN");
        const answer = await ask(`${site.uws}/${encodeURIComponent(definition.name)}`, { method: "POST", body });
        done(decodeURIComponent(new URL(answer.url).pathname.split("/").pop()));
      } else {
        const body = JSON.stringify({ type: definition.name, env: Object.fromEntries(filled) });
        const answer = await ask(`${site.api}/job${dry ? "?dryrun" : ""}`, { method: "POST", body, headers: { "Content-Type": "application/json" } });
        const document = await answer.json();
        dry ? setTried(document.message || "It would run.") : done(document.jobId);
      }
    } catch (error) {
      setWrong(byField(error.message, definition.parameters.map((one) => one.name)));
    } finally {
      setBusy(false);
    }
  };
  return html`<h1>Submit ${definition.name}</h1><p>${definition.description}</p>
    <form class="fields" novalidate onSubmit=${(e) => { e.preventDefault(); send(false); }}>
      ${definition.parameters.map((one) => html`<${Field} key=${one.name} one=${one} value=${values[one.name]} wrong=${wrong[one.name]} set=${(value) => setValues((old) => ({ ...old, [one.name]: value }))} />`)}
      ${wrong[""] && html`<p class="mistake" role="alert">${wrong[""]}</p>`}
      ${tried && html`<p role="status">${tried}</p>`}
      <div class="row"><button disabled=${busy}>Submit</button>${!files && html`<button type="button" disabled=${busy} onClick=${() => send(true)}>Check only</button>`}</div>
    </form>`;
}

export function SubmitPage({ name, done }) {
  const [definitions, setDefinitions] = useState(null);
  const [words, setWords] = useState("");
  // The address names the former job only: its parameters would get into histories and logs of proxies.
  const again = new URLSearchParams(location.search).get("again");
  const [given, setGiven] = useState(again ? null : {});
  useEffect(() => {
    read("/definitions").then(setDefinitions, (error) => setWords(error.message));
    if (again) read(`/job/${encodeURIComponent(again)}`).then((job) => setGiven(job.jobInfo.given), (error) => setWords(error.message));
  }, []);
  if (words) return html`<h1>Submit</h1><p class="mistake" role="alert">${words}</p>`;
  if (!definitions || !given) return html`<h1>Submit</h1><p>Reading the definitions…</p>`;
  const definition = definitions.find((one) => one.name === name);
  if (definition) return html`<${Form} definition=${definition} given=${given} done=${done} />`;
  return html`<h1>Submit</h1>${name && html`<p class="mistake" role="alert">There is no definition ${name} that you may use.</p>`}
    <ul>${definitions.map((one) => html`<li key=${one.name}><a href=${`${site.prefix}/ui/submit/${encodeURIComponent(one.name)}`}>${one.name}</a> ${one.description}</li>`)}</ul>`;
}

// SPDX-License-Identifier: GPL-3.0-or-later
// The frame: header, pages by address, keys, login, and the jobs that all pages share.
import { html, site, logIn, follow, jobPath } from "./api.js";
import { render, useEffect, useState } from "./vendor/preact.js";
import { JobPage } from "./job.js";
import { SubmitPage } from "./submit.js";
import { HistoryPage } from "./history.js";
import { NowPage } from "./now.js";
import { loadAll, usePolled } from "./format.js";

const root = document.documentElement;
const KEYS = { 1: "/", 2: "/ui/submit", 3: "/ui/history" };

export function go(path) {
  history.pushState(null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
}

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input, select, textarea")) return;
  if (event.key === "n") root.classList.toggle("dome");
  if (KEYS[event.key]) go(site.prefix + KEYS[event.key]);
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("input[type=search]")?.focus();
  }
}

// The pages, once the jobs have been read.
function Pages({ jobs, address, page, name }) {
  const list = usePolled("/statistics", 60000, []);
  const statistics = Object.fromEntries(list.map((one) => [one.definition, one]));
  if (page === "job") return html`<${JobPage} key=${name} id=${name} current=${jobs.get(name)} statistics=${statistics} />`;
  if (page === "submit") return html`<${SubmitPage} key=${address} name=${name} done=${(id) => go(jobPath(id))} />`;
  if (page === "history") return html`<${HistoryPage} jobs=${jobs} />`;
  return html`<${NowPage} jobs=${jobs} statistics=${statistics} />`;
}

function Login({ words, done }) {
  const [name, setName] = useState("");
  const [secret, setSecret] = useState("");
  const enter = (event) => {
    event.preventDefault();
    logIn(name.trim(), secret);
    done();
  };
  return html`<main><h1>Log in to OCPS</h1>
    <form class="fields" onSubmit=${enter}>
      <label>Name (empty for a token)<input autocomplete="username" value=${name} onInput=${(e) => setName(e.target.value)} /></label>
      <label>Password or token<input type="password" autocomplete="current-password" required value=${secret} onInput=${(e) => setSecret(e.target.value)} /></label>
      ${words && html`<p class="mistake" role="alert">${words}</p>`}
      <div><button>Log in</button></div>
    </form></main>`;
}

function App() {
  const [address, setAddress] = useState(location.pathname + location.search);
  const [login, setLogin] = useState(null);
  const [session, setSession] = useState(0);
  const [jobs, setJobs] = useState(null);
  const [state, setState] = useState("connecting");
  const [words, setWords] = useState("");
  useEffect(() => {
    const moved = () => setAddress(location.pathname + location.search);
    const needed = (event) => setLogin(event.detail);
    addEventListener("popstate", moved);
    addEventListener("login-needed", needed);
    moved(); // A key may have changed the page before this effect, which runs after the first picture.
    return () => {
      removeEventListener("popstate", moved);
      removeEventListener("login-needed", needed);
    };
  }, []);
  useEffect(() => {
    const known = new Map();
    let early = []; // Changes that came before the list, which is older than they are.
    const put = (job) => {
      known.set(job.jobId, job);
      setJobs(new Map(known));
    };
    return follow({
      opened: async () => {
        while (early) {
          try {
            for (const job of await loadAll()) known.set(job.jobId, job);
            for (const apply of early) apply();
            early = null;
            setJobs(new Map(known));
            setWords("");
          } catch (error) {
            if (error.status === 401) return;
            setWords(error.message);
            await new Promise((resolve) => setTimeout(resolve, 2000));
          }
        }
      },
      changed: (job) => (early ? early.push(() => put(job)) : put(job)),
      deleted: (id) => {
        const drop = () => known.delete(id) && setJobs(new Map(known));
        early ? early.push(drop) : drop();
      },
      state: setState,
    });
  }, [session]);
  if (login !== null) {
    const done = () => {
      setLogin(null);
      setSession(session + 1);
    };
    return html`<${Login} words=${login} done=${done} />`;
  }
  const path = address.split("?")[0].slice(site.prefix.length);
  const [, , page = "", name = ""] = path.split("/");
  const link = (to, text, key) => html`<a href=${site.prefix + to} aria-current=${(page ? `/ui/${page}` : "/") === to ? "page" : null} title=${`Key ${key}`}>${text}</a>`;
  return html`<header onClick=${followLink}>
      <strong>OCPS</strong><nav>${link("/", "Now", 1)}${link("/ui/submit", "Submit", 2)}${link("/ui/history", "History", 3)}</nav>
      <button title="Key n" onClick=${() => root.classList.toggle("dome")}>Dome</button>
      <span role="status" class=${`state ${state === "live" ? "" : "cut"}`}>${state} · ${site.version}</span>
    </header>
    <main onClick=${followLink}>
      ${words && html`<p class="mistake" role="alert">${words}</p>`}
      ${!jobs ? html`<h1>OCPS</h1><p>Reading the jobs…</p>`
        : html`<${Pages} jobs=${jobs} address=${address} page=${page} name=${decodeURIComponent(name)} />`}
    </main>`;
}

// Links within the dashboard change the page without loading it anew, so that the login stays.
function followLink(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button || link.download || link.origin !== location.origin) return;
  const inside = link.pathname === `${site.prefix}/` || link.pathname.startsWith(`${site.prefix}/ui/`);
  if (!inside) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

addEventListener("keydown", pressed);
render(html`<${App} />`, document.getElementById("app"));

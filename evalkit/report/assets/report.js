"use strict";
// Model text reaches the page through textContent only; the data element holds JSON, never markup.
(() => {
  const ROW = 30;
  const data = JSON.parse(document.getElementById("data").textContent);
  // The order of columns is that of evalkit.report.html.
  const [RUN, ID, GROUP, CONTEXT, REST, TARGET, ANSWER, VALUE, LOGPROBS, TEXT, KEPT, TRUNCATED, FINISH, PROMPT_TOKENS,
    TOKENS, DETAIL] = Array.from({length: 16}, (_, index) => index);
  const rows = data.rows;
  for (const row of rows) if (row[LOGPROBS]) row[LOGPROBS] = row[LOGPROBS].map((value) => value ?? -Infinity);
  const $ = (id) => document.getElementById(id);
  const state = {run: "", group: "", show: "all", truncated: false, disagreement: false, search: "", q: ""};
  let shown = [];
  let texts = null;

  const make = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const nameOf = (row) => `${data.runs[row[RUN]].key}/${row[ID]}`;
  const margin = (row) => {
    if (!row[LOGPROBS] || row[LOGPROBS].length < 2) return Infinity;
    const sorted = [...row[LOGPROBS]].sort((a, b) => b - a);
    return sorted[0] - sorted[1];
  };
  const disagreeing = () => {
    const values = new Map();
    rows.forEach((row) => {
      const key = `${data.runs[row[RUN]].benchmark} ${row[ID]}`;
      values.set(key, (values.get(key) || new Set()).add(row[VALUE]));
    });
    return rows.map((row) => values.get(`${data.runs[row[RUN]].benchmark} ${row[ID]}`).size > 1);
  };
  const disagrees = disagreeing();
  const isNear = rows.map((row) => margin(row) < data.near_tie);

  const tests = {
    all: () => true,
    right: (row) => row[VALUE] === 1,
    wrong: (row) => row[VALUE] !== null && row[VALUE] < 1,
    unanswered: (row) => row[ANSWER] === null,
    unscored: (row) => row[VALUE] === null,
    tie: (row, index) => isNear[index],
  };

  const searched = () => {
    texts ??= rows.map((row) => `${row[ID]}\n${row[REST] ?? ""}\n${row[TEXT] ?? ""}`.toLowerCase());
    return texts;
  };

  const filter = () => {
    const started = performance.now();
    const wanted = state.search.toLowerCase();
    const haystack = wanted ? searched() : null;
    const test = tests[state.show] || tests.all;
    shown = [];
    for (let index = 0; index < rows.length; index++) {
      const row = rows[index];
      if (state.run && data.runs[row[RUN]].key !== state.run) continue;
      if (state.group && row[GROUP] !== state.group) continue;
      if (state.truncated && !row[TRUNCATED]) continue;
      if (state.disagreement && !disagrees[index]) continue;
      if (!test(row, index)) continue;
      if (haystack && !haystack[index].includes(wanted)) continue;
      shown.push(index);
    }
    $("spacer").style.height = `${shown.length * ROW}px`;
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} questions`;
    draw();
    document.documentElement.dataset.filterMs = (performance.now() - started).toFixed(1);
  };

  const mark = (row) => row[VALUE] === null ? ["none", "–"] : row[VALUE] === 1 ? ["good", "✓"] : ["bad", "✗"];

  const draw = () => {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, first + Math.ceil((list.clientHeight || 600) / ROW) + 10);
    const drawn = [];
    for (let place = first; place < last; place++) {
      const row = rows[shown[place]];
      const node = make("div", nameOf(row) === state.q ? "row chosen" : "row");
      node.style.top = `${place * ROW}px`;
      node.dataset.index = shown[place];
      node.setAttribute("role", "option");
      const [className, sign] = mark(row);
      node.append(make("span", className, sign), make("span", "name", nameOf(row)));
      const short = row[ANSWER] === null ? "–" : row[ANSWER].trim().slice(0, 12);
      node.append(make("span", "none", short));
      drawn.push(node);
    }
    $("drawn").replaceChildren(...drawn);
  };

  const choices = (row, context) => {
    const top = Math.max(...row[LOGPROBS]);
    const weights = row[LOGPROBS].map((value) => Math.exp(value - top));
    const sum = weights.reduce((a, b) => a + b, 0);
    return row[LOGPROBS].map((value, index) => {
      const share = weights[index] / sum;
      const node = make("div", "choice");
      const track = make("div", "track");
      const fill = make("div", "fill");
      fill.style.width = `${(100 * share).toFixed(1)}%`;
      track.append(fill);
      const label = context.continuations[index];
      node.append(make("span", "", label === undefined ? `choice ${index + 1}` : JSON.stringify(label)), track);
      node.append(make("span", "none", `${(100 * share).toFixed(1)} %   ${value.toFixed(4)}`));
      return node;
    });
  };

  const verdictLine = (row) => {
    const answer = row[ANSWER] === null ? "no answer could be read" : `read ${JSON.stringify(row[ANSWER])}`;
    const target = row[TARGET] === null ? "" : `, right is ${JSON.stringify(row[TARGET])}`;
    const result = row[VALUE] === null ? "not scored" : row[VALUE] === 1 ? "right" : "wrong";
    return make("p", mark(row)[0], `${result}: ${answer}${target}`);
  };

  const output = (row, context) => {
    const pre = make("pre");
    const tail = row[TEXT].slice(row[KEPT]);
    pre.append(make("span", "", row[TEXT].slice(0, row[KEPT])), make("span", "cut", tail));
    const stop = context.stop.find((text) => tail.startsWith(text));
    const why = tail ? `cut at ${JSON.stringify(stop)}: ${tail.length} characters behind it were not read` : "not cut";
    return [make("h3", "", `Output (${row[TOKENS]} tokens, ended by ${row[FINISH]}; ${why})`), pre];
  };

  const prompt = (row, context) => {
    if (row[REST] === null) return [make("p", "note", "The prompt was not kept in this run folder.")];
    const cut = row[TRUNCATED] ? "; truncated: its beginning did not reach the model" : "";
    const pre = make("pre", "asking", "");
    pre.append(make("span", "asked", row[REST]));
    const shots = make("details");
    const shared = make("pre");
    shared.append(make("span", "shots", context.prefix));
    shots.append(make("summary", "", `shared few-shot text, ${context.prefix.length.toLocaleString("en")} characters`), shared);
    const title = make("h3", "", `Prompt (${row[PROMPT_TOKENS]} tokens${cut})`);
    return context.prefix ? [title, shots, pre] : [title, pre];
  };

  const show = () => {
    const index = rows.findIndex((row) => nameOf(row) === state.q);
    const detail = $("detail");
    if (index < 0) {
      detail.replaceChildren(make("p", "note", state.q ? `No question ${state.q} in this report.` : "Choose a question."));
      return;
    }
    const row = rows[index];
    const context = data.contexts[row[CONTEXT]] || {prefix: "", continuations: [], stop: []};
    const parts = [make("h3", "", nameOf(row)), verdictLine(row)];
    if (disagrees[index]) parts.push(make("p", "note", "Runs disagree on this question."));
    if (isNear[index]) parts.push(make("p", "note", `Near tie: the best two choices are ${margin(row).toFixed(4)} apart.`));
    for (const [key, value] of Object.entries(row[DETAIL] || {})) {
      if (value !== "" && value !== null) parts.push(make("p", "note", `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`));
    }
    if (row[LOGPROBS]) parts.push(...choices(row, context));
    if (row[TEXT] !== null) parts.push(...output(row, context));
    parts.push(...prompt(row, context));
    detail.replaceChildren(...parts);
    detail.scrollTop = 0;
  };

  const choose = (index) => {
    if (index === undefined) return;
    state.q = nameOf(rows[index]);
    const list = $("list");
    const top = shown.indexOf(index) * ROW;
    if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 2;
    show();
    draw();
    save();
  };

  const fillGroups = () => {
    const groups = new Set();
    for (const row of rows) if (row[GROUP] && (!state.run || data.runs[row[RUN]].key === state.run)) groups.add(row[GROUP]);
    $("group").replaceChildren(option("", "every subject"), ...[...groups].sort().map((name) => option(name, name)));
    if (!groups.has(state.group)) state.group = "";
    $("group").value = state.group;
  };
  const option = (value, text) => {
    const node = make("option", "", text);
    node.value = value;
    return node;
  };

  // The address keeps what is shown, so that it can be sent to somebody.
  const save = () => {
    const kept = Object.entries(state).filter(([key, value]) => value && !(key === "show" && value === "all"));
    const hash = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
    history.replaceState(null, "", `#${hash}`);
  };
  const load = () => {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return; // a section's own anchor
    const kept = new URLSearchParams(hash);
    for (const key of ["run", "group", "search", "q"]) state[key] = kept.get(key) || "";
    for (const key of ["truncated", "disagreement"]) state[key] = kept.get(key) === "true";
    state.show = kept.get("show") in tests ? kept.get("show") : "all";
    for (const key of ["run", "show", "search"]) $(key).value = state[key];
    for (const key of ["truncated", "disagreement"]) $(key).checked = state[key];
    fillGroups();
    filter();
    show();
    const place = shown.findIndex((index) => nameOf(rows[index]) === state.q);
    if (place >= 0) {
      $("list").scrollTop = Math.max(0, place * ROW - 200);
      draw();
      if (hash) $("questions").scrollIntoView();
    }
  };

  const changed = (key, value) => {
    state[key] = value;
    if (key === "run") fillGroups();
    $("list").scrollTop = 0;
    filter();
    save();
  };

  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  if (rows.length) {
    $("run").append(option("", "every run"), ...data.runs.map((run) => option(run.key, run.key)));
    for (const key of ["run", "group", "show"]) $(key).addEventListener("change", (event) => changed(key, event.target.value));
    for (const key of ["truncated", "disagreement"]) $(key).addEventListener("change", (event) => changed(key, event.target.checked));
    $("search").addEventListener("input", (event) => changed("search", event.target.value));
    $("list").addEventListener("scroll", draw, {passive: true});
    $("list").addEventListener("click", (event) => {
      const node = event.target.closest(".row");
      if (node) choose(Number(node.dataset.index));
    });
    $("list").addEventListener("keydown", (event) => {
      const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      const place = shown.findIndex((index) => nameOf(rows[index]) === state.q);
      choose(shown[Math.min(Math.max(place + step, 0), shown.length - 1)]);
    });
    window.addEventListener("hashchange", load);
    load();
  }
  document.documentElement.dataset.readyMs = performance.now().toFixed(1);
})();

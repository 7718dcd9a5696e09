"use strict";
// The question browser. Text of models and data sets reaches the page through textContent only.
const evalkitQuestions = (() => {
  const ROW = 30;
  const $ = (id) => document.getElementById(id);
  if (!$("tab-questions")) return null;
  const {runs, sets, keys, ABSENT, TRUNCATED, ERROR, NEAR} = evalkitPacked;
  const {make, visible, copy} = evalkitElements;
  const EMPTY = {set: 0, run: "", show: "all", against: "", group: "", search: "", q: "", truncated: false};
  let state = {...EMPTY};
  let current = null; // the index of the benchmark that is looked at
  let shown = [];

  const TESTS = {
    all: () => true,
    right: (run, q) => run.values[q] === 1,
    wrong: (run, q) => run.values[q] !== null && run.values[q] < 1,
    unanswered: (run, q) => run.answers[q] === null,
    unscored: (run, q) => run.values[q] === null,
    tie: (run, q) => (run.flags[q] & NEAR) > 0,
    truncated: (run, q) => (run.flags[q] & TRUNCATED) > 0,
    error: (run, q) => (run.flags[q] & ERROR) > 0,
  };
  const asked = (run, q) => !(run.flags[q] & ABSENT);
  const chosenRuns = () => {
    const chosen = current.runs.filter((run) => keys[run.run] === state.run);
    return chosen.length ? chosen : current.runs;
  };

  // Whether two runs' answers are worth different things: the chosen one's and the other's, or any two.
  const flipped = (chosen, q) => {
    if (state.against === "any") {
      const values = new Set(current.runs.filter((run) => asked(run, q)).map((run) => run.values[q]));
      return values.size > 1;
    }
    const other = current.runs.find((run) => keys[run.run] === state.against);
    if (!other || !asked(other, q) || other.values[q] === null) return false;
    return chosen.some((run) => run !== other && asked(run, q) && run.values[q] !== null && run.values[q] !== other.values[q]);
  };

  let haystack = null; // {set, texts}
  const searched = (set, parts) => {
    if (haystack?.set === set) return haystack.texts;
    const found = current.ids.map((id, q) => {
      const part = parts[Math.floor(q / sets[set].part)], at = q % sets[set].part;
      const texts = new Set([id, current.groups[current.group[q]]]);
      for (const run of part.runs) texts.add(part.texts[run.text[at]] ?? "").add(run.output[at] ?? "");
      return [...texts].join("\n").toLowerCase();
    });
    haystack = {set, texts: found};
    return found;
  };

  let round = 0;
  const filter = async () => {
    const mine = ++round;
    const wanted = state.search.toLowerCase();
    const parts = wanted ? await evalkitPacked.partsOf(state.set) : null;
    if (mine !== round) return;
    const texts = wanted ? searched(state.set, parts) : null;
    const started = performance.now();
    const chosen = chosenRuns();
    const test = TESTS[state.show];
    const group = state.group ? current.groups.indexOf(state.group) : -1;
    shown = [];
    let base = 0;
    for (let q = 0; q < current.ids.length; q++) {
      if (group >= 0 && current.group[q] !== group) continue;
      const here = chosen.filter((run) => asked(run, q));
      if (!here.length) continue;
      base++;
      if (!here.some((run) => test(run, q))) continue;
      if (state.truncated && !here.some((run) => TESTS.truncated(run, q))) continue;
      if (state.against && !flipped(here, q)) continue;
      if (texts && !texts[q].includes(wanted)) continue;
      shown.push(q);
    }
    const share = base ? ` (${(100 * shown.length / base).toFixed(1)} %)` : "";
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${base.toLocaleString("en")} questions${share}`;
    $("spacer").style.height = `${shown.length * ROW}px`;
    draw();
    document.documentElement.dataset.filterMs = (performance.now() - started).toFixed(1);
  };

  const mark = (run, q) => {
    if (!asked(run, q)) return make("span", "none", " ");
    const value = run.values[q];
    const [className, sign] = value === null ? ["none", "–"] : value === 1 ? ["good", "✓"] : ["bad", "✗"];
    return make("span", className, sign);
  };
  const here = () => current?.places.get(idOf(state.q)) ?? -1;
  const draw = () => {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, first + Math.ceil((list.clientHeight || 800) / ROW) + 10);
    const open = here();
    const chosen = state.run ? chosenRuns() : current.runs;
    const drawn = shown.slice(first, last).map((q, place) => {
      const node = make("div", q === open ? "row chosen" : "row");
      node.style.top = `${(first + place) * ROW}px`;
      node.dataset.place = q;
      node.id = `row-${q}`;
      node.setAttribute("role", "option");
      node.setAttribute("aria-selected", String(q === open));
      const marks = make("span", "marks", ...current.runs.map((run) => mark(run, q)));
      const answer = chosen.length === 1 && chosen[0].answers[q] !== null ? visible(chosen[0].answers[q].trim().slice(0, 12)) : "";
      node.append(marks, make("span", "name", visible(current.ids[q])), make("span", "none", answer));
      return node;
    });
    $("drawn").replaceChildren(...drawn);
    if (shown.includes(open)) list.setAttribute("aria-activedescendant", `row-${open}`);
    else list.removeAttribute("aria-activedescendant");
  };

  // q is "RUN/ID", and a run's key holds a slash of its own.
  const keyOf = (q) => keys.reduce((found, key) => q.startsWith(`${key}/`) && key.length > found.length ? key : found, "");
  const idOf = (q) => q.slice(keyOf(q).length + 1);

  // The run that the reader looks at comes first.
  const mine = () => state.run || keyOf(state.q);
  const mineFirst = () => {
    const places = current.runs.map((_, place) => place);
    return places.sort((a, b) => (keys[current.runs[b].run] === mine()) - (keys[current.runs[a].run] === mine()) || a - b);
  };

  const detailOf = evalkitDetail({
    mine, mineFirst, asked,
    get current() { return current; },
    get set() { return state.set; },
  });

  const show = async () => {
    const detail = $("detail");
    const q = here();
    document.documentElement.classList.toggle("reading", q >= 0);
    if (q < 0) {
      detail.replaceChildren(make("p", "note", state.q ? visible(`No question ${state.q} in this report.`) : "Choose a question: by a click, or with j and k. / searches, Esc goes back."));
      return;
    }
    const texts = await evalkitPacked.textsOf(state.set, q);
    if (q !== here()) return;
    const button = (text, title, act) => {
      const node = make("button", "", text);
      node.type = "button";
      node.title = title;
      node.addEventListener("click", () => act(node));
      return node;
    };
    const group = current.groups[current.group[q]];
    const head = make("div", "head", make("h2", "", visible(current.ids[q])), make("span", "note", group && !current.ids[q].startsWith(group) ? visible(group) : ""),
      button("‹", "previous (k)", () => step(-1)), button("›", "next (j)", () => step(1)),
      button("copy as JSON", "all of this question", (node) => copy(node, JSON.stringify(detailOf.asJson(texts, q), null, 2))),
      button("×", "back to the list (Esc)", close));
    detail.replaceChildren(head, ...detailOf.content(texts, q));
    detail.scrollTop = 0;
  };

  const choose = (q) => {
    if (q === undefined) return;
    const run = chosenRuns().find((entry) => asked(entry, q)) ?? current.runs.find((entry) => asked(entry, q));
    state.q = `${keys[run.run]}/${current.ids[q]}`;
    reveal(q);
    save();
    return show();
  };
  const reveal = (q) => {
    const list = $("list");
    const top = shown.indexOf(q) * ROW;
    if (top >= 0 && (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight)) list.scrollTop = Math.max(0, top - list.clientHeight / 2);
    draw();
  };
  const step = (by) => {
    const place = shown.indexOf(here());
    choose(shown[place < 0 ? 0 : Math.min(Math.max(place + by, 0), shown.length - 1)]);
  };
  const close = () => {
    state.q = "";
    save();
    draw();
    show();
    $("list").focus();
  };

  const options = (id, entries, value) => {
    $(id).replaceChildren(...entries.map(([key, text]) => {
      const node = make("option", "", text);
      node.value = key;
      return node;
    }));
    $(id).value = entries.some(([key]) => key === value) ? value : entries[0][0];
    return $(id).value;
  };
  const fill = () => {
    const members = current.runs.map((run) => [keys[run.run], runs[run.run].label]);
    state.run = options("run", [["", members.length > 1 ? "every run" : "the run"], ...members], state.run);
    const others = members.filter(([key]) => key !== state.run);
    state.against = options("against", [["", "no other"], ...(members.length > 1 ? [["any", "any other"], ...others] : [])], state.against);
    for (const id of ["run", "against"]) $(id).closest("label").hidden = members.length < 2;
    const groups = [...current.groups].filter(Boolean).sort();
    state.group = options("group", [["", "every subject"], ...groups.map((name) => [name, name])], state.group);
    $("group").closest("label").hidden = groups.length < 2;
    for (const key of ["set", "show", "search"]) $(key).value = state[key];
    const ties = current.runs.map((run) => runs[run.run].near_tie).filter(Boolean);
    $("show").querySelector("[value=tie]").disabled = !ties.length;
    $("show").title = ties.length ? `near tie: ${[...new Set(ties)].join("; ")}` : "";
  };

  // The address keeps what is shown, so that it can be sent to somebody.
  const save = () => {
    const kept = Object.entries(state).filter(([key, value]) => value && value !== EMPTY[key] && key !== "set");
    if (!state.run && !state.q && state.set) kept.unshift(["set", sets[state.set].title]);
    const query = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
    history.replaceState(null, "", `#/questions${query ? `?${query}` : ""}`);
  };
  const open = async (query) => {
    const kept = new URLSearchParams(query);
    const found = {...EMPTY};
    for (const key of ["run", "group", "search", "q", "against"]) found[key] = kept.get(key) ?? "";
    found.show = kept.get("show") in TESTS ? kept.get("show") : "all";
    if (kept.get("disagreement") === "true") found.against = "any"; // a link of before
    if (kept.get("truncated") === "true") {
      if (found.show === "all") found.show = "truncated";
      else found.truncated = true;
    }
    const run = keys.indexOf(keyOf(found.q) || found.run);
    const set = run >= 0 ? sets.findIndex((of) => of.runs.includes(run)) : sets.findIndex((of) => of.title === kept.get("set"));
    found.set = Math.max(0, set);
    state = found;
    current = await evalkitPacked.indexOf(state.set);
    fill();
    await filter();
    await show();
    const place = shown.indexOf(here());
    if (place >= 0) reveal(here());
  };

  const changed = async (key, value) => {
    state[key] = value;
    if (key === "set") {
      state = {...EMPTY, set: Number(value)};
      current = await evalkitPacked.indexOf(state.set);
      show();
    }
    if (key === "show") state.truncated = false;
    if (key === "set" || key === "run") fill();
    $("list").scrollTop = 0;
    await filter();
    save();
  };

  for (const key of ["set", "run", "group", "show", "against"]) $(key).addEventListener("change", (event) => changed(key, event.target.value));
  $("search").addEventListener("input", (event) => changed("search", event.target.value));
  $("list").addEventListener("scroll", draw, {passive: true});
  new ResizeObserver(() => { if (current) draw(); }).observe($("list"));
  $("list").addEventListener("click", (event) => {
    const node = event.target.closest(".row");
    if (node) choose(Number(node.dataset.place));
  });
  const STEPS = {j: 1, k: -1, ArrowDown: 1, ArrowUp: -1};
  document.addEventListener("keydown", (event) => {
    if ($("tab-questions").hidden || !current || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      else if (state.q) close();
    } else if (!typing && event.key === "/") {
      event.preventDefault();
      $("search").focus();
    } else if (!typing && event.key in STEPS && (event.key.length === 1 || event.target === $("list"))) {
      event.preventDefault();
      step(STEPS[event.key]);
    }
  });
  return {open};
})();

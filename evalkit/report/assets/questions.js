"use strict";
// The question browser. Text of models and data sets reaches the page through textContent only.
const evalkitQuestions = (() => {
  const ROW = 30;
  const ENDS = ["passed", "failed", "timeout", "killed", "error"]; // of a program in the sandbox
  const ABSENT = 1, TRUNCATED = 2, ERROR = 4, NEAR = 8;
  const $ = (id) => document.getElementById(id);
  if (!$("tab-questions")) return null;
  const {runs, sets} = JSON.parse($("data").textContent);
  // Two runs of one name are told apart by a number.
  const keys = runs.map((run, place) => {
    const before = runs.slice(0, place).filter((other) => other.key === run.key).length;
    return before ? `${run.key}~${before + 1}` : run.key;
  });
  const EMPTY = {set: 0, run: "", show: "all", against: "", group: "", search: "", q: "", truncated: false};
  let state = {...EMPTY};
  let current = null; // the index of the benchmark that is looked at
  let shown = [];

  const make = (name, className, ...content) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...content.filter((part) => part !== null && part !== undefined && part !== ""));
    return node;
  };
  // Signs that have no shape, or turn the order of the others, are written out.
  const visible = (text) => text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
    .replace(/[\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (char) => `⟨U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

  const unpacked = async (name) => {
    const text = $(name).textContent;
    let bytes;
    if (Uint8Array.fromBase64) {
      bytes = Uint8Array.fromBase64(text);
    } else {
      const packed = atob(text);
      bytes = Uint8Array.from({length: packed.length}, (_, place) => packed.charCodeAt(place));
    }
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  };
  const whole = document.readyState === "loading"
    ? new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve)) : Promise.resolve();
  const once = (name) => {
    const made = new Map();
    return (number) => {
      if (!made.has(number)) made.set(number, whole.then(() => unpacked(`${name}-${number}`)));
      return made.get(number);
    };
  };
  const indexOf = once("index");
  const partOf = once("texts"); // of a benchmark's questions, `sets[…].part` at a time
  const partsOf = (set) => Promise.all(Array.from({length: sets[set].parts}, (_, place) => partOf(`${set}-${place}`)));

  // What there is to show of one question.
  const textsOf = async (q) => {
    const set = state.set, size = sets[set].part;
    const part = await partOf(`${set}-${Math.floor(q / size)}`);
    const at = q % size;
    const EMPTY_CONTEXT = {prefix: "", continuations: [], stop: []};
    return {
      shown: part.shown[at] ?? {},
      runs: part.runs.map((run) => {
        const number = run.context[at];
        return {
          context: part.contexts[number] ?? EMPTY_CONTEXT, rest: part.texts[run.text[at]] ?? null, begins: run.begins[at],
          isShared: run.context.indexOf(number) !== run.context.lastIndexOf(number), logprobs: run.logprobs[at], output: run.output[at],
          kept: run.kept[at], finish: run.finish[at], promptTokens: run.prompt_tokens[at], tokens: run.tokens[at], detail: run.detail[at] ?? {},
        };
      }),
    };
  };

  // The index of a benchmark with a byte of flags for each question of each run.
  const flagged = (index) => {
    if (index.flagged) return index;
    for (const run of index.runs) {
      run.flags = new Uint8Array(index.ids.length);
      for (const [name, flag] of [["absent", ABSENT], ["truncated", TRUNCATED], ["errors", ERROR], ["near", NEAR]]) {
        for (const place of run[name]) run.flags[place] |= flag;
      }
    }
    index.places = new Map(index.ids.map((id, place) => [id, place]));
    index.flagged = true;
    return index;
  };

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
    const parts = wanted ? await partsOf(state.set) : null;
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

  const prompted = ({context, rest, begins, isShared}) => {
    if (rest === null) return {context, worked: "", question: null};
    const prompt = context.prefix + rest;
    // A run folder of before does not say; what several prompts share is taken for worked examples, if anything.
    if (begins === null) begins = isShared ? context.prefix.length : 0;
    return {context, worked: prompt.slice(0, begins), question: prompt.slice(begins)};
  };

  // The choices of a question that names them by letters, each in its line, the last ones; null where there are none.
  const lettered = (question, labels) => {
    const lines = question.split("\n");
    const at = [];
    for (const label of [...labels].reverse()) {
      const escaped = label.replace(/[^\p{L}\p{N}]/gu, "\\$&");
      const begins = new RegExp(`^\\s*\\(?${escaped}\\s*[.)、．:：]`, "u");
      const found = lines.findLastIndex((line, place) => place < (at[0] ?? lines.length) && begins.test(line));
      if (found < 0) return null;
      at.unshift(found);
    }
    const end = at.at(-1) < lines.length - 1 ? lines.length - 1 : lines.length;
    const texts = at.map((from, place) => lines.slice(from, at[place + 1] ?? end).join("\n")
      .replace(/^\s*\(?[\p{L}\p{N}]+\s*[.)、．:：]\s*/u, "").trimEnd());
    return {before: lines.slice(0, at[0]).join("\n"), texts, after: lines.slice(end).join("\n")};
  };

  const names = (continuations, place) => {
    const text = continuations[place] ?? "";
    return [text.trim(), text, String.fromCharCode(65 + place), String(place)];
  };
  const placeOf = (continuations, answer) => {
    if (answer === null || answer === undefined) return -1;
    for (const kind of [0, 1, 2, 3]) {
      const found = continuations.findIndex((_, place) => names(continuations, place)[kind] === answer);
      if (found >= 0) return found;
    }
    return -1;
  };
  const shares = (logprobs) => {
    const values = logprobs.map((value) => value ?? -Infinity);
    const top = Math.max(...values);
    const weights = values.map((value) => Math.exp(value - top));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => sum > 0 ? weight / sum : 0);
  };

  // A row per choice, a column per run: the right one marked, what each run chose, and its probability.
  const choices = (texts, q, labels, lines) => {
    const table = make("table", "choices");
    const withChoices = mineFirst().map((place) => [texts.runs[place], current.runs[place]]).filter(([run]) => run.logprobs);
    const head = make("tr", "", make("th", "", ""), make("th", "left", "choice"));
    head.firstChild.append(make("span", "hidden", "right answer"));
    for (const [, entry] of withChoices) head.append(make("th", "", runs[entry.run].label));
    table.append(make("thead", "", head));
    const body = make("tbody");
    const gold = placeOf(labels, current.targets[q]);
    labels.forEach((label, place) => {
      const isGold = place === gold;
      const row = make("tr", isGold ? "gold" : "", make("td", "good", isGold ? "✓" : ""));
      const text = make("td", "left", make("b", "", visible(label.trim())), lines ? ` ${visible(lines[place])}` : "");
      if (isGold) text.append(make("span", "tag good", "right"));
      row.append(text);
      for (const [run, entry] of withChoices) {
        const share = shares(run.logprobs)[place];
        const isChosen = placeOf(labels, entry.answers[q]) === place;
        const bar = make("span", "bar");
        bar.style.width = `${(100 * share).toFixed(1)}%`;
        const value = make("span", "value", `${(100 * share).toFixed(1)} %`);
        if (isChosen) value.prepend(make("span", "hidden", "chosen "));
        const cell = make("td", isChosen ? `share chosen-one ${isGold ? "good" : "bad"}` : "share", make("span", "track", bar), value);
        cell.title = `log-probability ${run.logprobs[place]}`;
        row.append(cell);
      }
      body.append(row);
    });
    table.append(body);
    const scroll = make("div", "scroll", table);
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "choices");
    return [scroll, make("p", "note", "✓ is right; framed is what a run chose, under the bar its probability among the choices")];
  };

  // A program taken apart by Prism's tokenizer, put together as text in spans.
  const python = (text) => {
    const spans = (parts) => parts.map((part) => typeof part === "string" ? document.createTextNode(visible(part))
      : make("span", `token ${part.type}`, ...spans([part.content].flat())));
    return spans(Prism.tokenize(text, Prism.languages.python));
  };
  const block = (text, isProgram, className) => {
    const node = make("pre", className, ...(isProgram ? python(text) : [visible(text)]));
    node.dir = "auto";
    node.tabIndex = 0;
    return node;
  };
  const folded = (title, ...content) => make("details", "", make("summary", "", title), ...content);

  const verdict = (entry, q) => {
    const answer = entry.answers[q] === null ? "no answer could be read" : `read ${JSON.stringify(entry.answers[q])}`;
    const target = current.targets[q] === null ? "" : `, right is ${JSON.stringify(current.targets[q])}`;
    const value = entry.values[q];
    const [className, result] = value === null ? ["none", "not scored"] : value === 1 ? ["good", "✓ right"] : value > 0
      ? ["unsure", `${(100 * value).toFixed(0)} % right`] : ["bad", "✗ wrong"];
    const isProgram = entry.answers[q] !== null && entry.answers[q].includes("\n");
    return make("p", `result ${className}`, result, isProgram ? "" : visible(`: ${answer}${target}`));
  };
  const output = (run, isProgram) => {
    const text = run.output;
    const tail = text.slice(run.kept);
    const stop = run.context.stop.find((end) => tail.startsWith(end));
    const why = tail ? `cut at ${JSON.stringify(stop)}: ${tail.length.toLocaleString("en")} characters behind it were not read` : "not cut";
    const node = block(text.slice(0, run.kept), isProgram, "output");
    node.append(make("span", "cut", visible(tail)));
    return [make("h4", "", visible(`Output (${run.tokens} tokens, ended by ${run.finish}; ${why})`)), node];
  };
  const panel = (texts, place, q, isProgram) => {
    const entry = current.runs[place], run = texts.runs[place];
    const parts = [make("h3", "", runs[entry.run].label), verdict(entry, q)];
    if (entry.flags[q] & NEAR) parts.push(make("p", "note", `Near tie: the best choices are ${runs[entry.run].near_tie}.`));
    if (entry.flags[q] & TRUNCATED) parts.push(make("p", "note", "Truncated: the beginning of the prompt did not reach the model."));
    for (const [key, value] of Object.entries(run.detail)) {
      if (value !== "" && value !== null) parts.push(make("p", key === "status" && value !== "passed" ? "bad" : "note", visible(`${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`)));
    }
    if (run.output !== null) parts.push(...output(run, isProgram));
    parts.push(make("p", "note", `prompt: ${run.promptTokens} tokens`));
    const node = make("section", keys[entry.run] === mine() ? "panel mine" : "panel", ...parts);
    node.dataset.run = keys[entry.run];
    return node;
  };

  // What was asked: the prompts of runs that were asked alike are shown once, the one looked at first.
  const questionsAsked = (texts, q, isProgram) => {
    const found = new Map();
    for (const place of mineFirst().filter((run) => asked(current.runs[run], q))) {
      const one = prompted(texts.runs[place]);
      const same = JSON.stringify([one.worked, one.question, one.context.continuations]);
      if (!found.has(same)) found.set(same, {...one, runs: []});
      found.get(same).runs.push(runs[current.runs[place].run].label);
    }
    const [first, ...others] = found.values();
    if (!first || first.question === null) return [make("p", "note", "The prompt was not kept in this run folder.")];
    const labels = first.context.continuations;
    const parts = [];
    const split = labels.length ? lettered(first.question, labels.map((label) => label.trim())) : null;
    parts.push(block((split ? split.before : first.question).replace(/^\n+/, ""), isProgram, "question"));
    if (labels.length) parts.push(...choices(texts, q, labels, split?.texts));
    const length = (text) => `${text.length.toLocaleString("en")} characters`;
    if (split?.after) parts.push(make("p", "note", "asked as: ", make("code", "", visible(split.after))));
    if (first.worked) parts.push(folded(`Header and worked examples, ${length(first.worked)}`, block(first.worked, false, "worked")));
    for (const other of others) {
      if (other.question === null) continue;
      const content = [block(other.question, isProgram, "question")];
      if (other.worked) content.unshift(block(other.worked, false, "worked"));
      parts.push(folded(`As ${other.runs.join(", ")} asked it`, ...content));
    }
    return parts;
  };

  const asJson = (texts, q) => ({
    benchmark: sets[state.set].title, id: current.ids[q], subject: current.groups[current.group[q]], right_answer: current.targets[q],
    ...texts.shown,
    runs: current.runs.map((entry, place) => [entry, texts.runs[place]]).filter(([entry]) => asked(entry, q)).map(([entry, run]) => {
      const {context, worked, question} = prompted(run);
      return {
        run: keys[entry.run], answer: entry.answers[q], value: entry.values[q], near_tie: (entry.flags[q] & NEAR) > 0,
        truncated: (entry.flags[q] & TRUNCATED) > 0, worked_examples: worked, question, choices: context.continuations,
        logprobs: run.logprobs, output: run.output, read: run.output?.slice(0, run.kept) ?? null,
        finish_reason: run.finish, num_tokens: run.tokens, num_prompt_tokens: run.promptTokens, ...run.detail,
      };
    }),
  });
  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy as JSON"; }, 1500);
  };

  const show = async () => {
    const detail = $("detail");
    const q = here();
    document.documentElement.classList.toggle("reading", q >= 0);
    if (q < 0) {
      detail.replaceChildren(make("p", "note", state.q ? visible(`No question ${state.q} in this report.`) : "Choose a question: by a click, or with j and k. / searches, Esc goes back."));
      return;
    }
    const texts = await textsOf(q);
    if (q !== here()) return;
    const extra = texts.shown;
    const isProgram = "test" in extra || texts.runs.some((run) => ENDS.includes(run.detail.status));
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
      button("copy as JSON", "all of this question", (node) => copy(node, JSON.stringify(asJson(texts, q), null, 2))),
      button("×", "back to the list (Esc)", close));
    const panels = mineFirst().filter((place) => asked(current.runs[place], q)).map((place) => panel(texts, place, q, isProgram));
    const flips = new Set(current.runs.filter((run) => asked(run, q)).map((run) => run.values[q])).size > 1;
    detail.replaceChildren(head, ...questionsAsked(texts, q, isProgram),
      ...(flips ? [make("p", "note", "Runs disagree on this question.")] : []), make("div", "panels", ...panels),
      ...Object.entries(extra).map(([name, text]) => folded(name, block(text, isProgram, "shown"))));
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
    $("against").closest("label").hidden = members.length < 2;
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
    current = flagged(await indexOf(state.set));
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
      current = flagged(await indexOf(state.set));
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

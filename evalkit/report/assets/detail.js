"use strict";
// One question under all runs. look: what the reader looks at, as the browser of questions has it.
const evalkitDetail = (look) => {
  const {runs, sets, keys, TRUNCATED, NEAR} = evalkitPacked;
  const {make, visible, block, folded} = evalkitElements;
  const ENDS = ["passed", "failed", "timeout", "killed", "error"]; // of a program in the sandbox
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
    const withChoices = look.mineFirst().map((place) => [texts.runs[place], look.current.runs[place]]).filter(([run]) => run.logprobs);
    const head = make("tr", "", make("th", "", ""), make("th", "left", "choice"));
    head.firstChild.append(make("span", "hidden", "right answer"));
    for (const [, entry] of withChoices) head.append(make("th", "", runs[entry.run].label));
    table.append(make("thead", "", head));
    const body = make("tbody");
    const gold = placeOf(labels, look.current.targets[q]);
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
  const verdict = (entry, q) => {
    const answer = entry.answers[q] === null ? "no answer could be read" : `read ${JSON.stringify(entry.answers[q])}`;
    const target = look.current.targets[q] === null ? "" : `, right is ${JSON.stringify(look.current.targets[q])}`;
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
    if (!text) node.append(make("span", "none", "(nothing)"));
    return [make("h4", "", visible(`Output (${run.tokens} tokens, ended by ${run.finish}; ${why})`)), node];
  };
  const panel = (texts, place, q, isProgram) => {
    const entry = look.current.runs[place], run = texts.runs[place];
    const parts = [make("h3", "", runs[entry.run].label), verdict(entry, q)];
    if (entry.flags[q] & NEAR) parts.push(make("p", "note", `Near tie: the best choices are ${runs[entry.run].near_tie}.`));
    if (entry.flags[q] & TRUNCATED) parts.push(make("p", "note", "Truncated: the beginning of the prompt did not reach the model."));
    for (const [key, value] of Object.entries(run.detail)) {
      if (value !== "" && value !== null) parts.push(make("p", key === "status" && value !== "passed" ? "bad" : "note", visible(`${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`)));
    }
    if (run.output !== null) parts.push(...output(run, isProgram));
    parts.push(make("p", "note", `prompt: ${run.promptTokens} tokens`));
    const node = make("section", keys[entry.run] === look.mine() ? "panel mine" : "panel", ...parts);
    node.dataset.run = keys[entry.run];
    return node;
  };

  // What was asked: the prompts of runs that were asked alike are shown once, the one looked at first.
  const questionsAsked = (texts, q, isProgram) => {
    const found = new Map();
    for (const place of look.mineFirst().filter((run) => look.asked(look.current.runs[run], q))) {
      const one = prompted(texts.runs[place]);
      const same = JSON.stringify([one.worked, one.question, one.context.continuations]);
      if (!found.has(same)) found.set(same, {...one, runs: []});
      found.get(same).runs.push(runs[look.current.runs[place].run].label);
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
    benchmark: sets[look.set].title, id: look.current.ids[q], subject: look.current.groups[look.current.group[q]], right_answer: look.current.targets[q],
    ...texts.shown,
    runs: look.current.runs.map((entry, place) => [entry, texts.runs[place]]).filter(([entry]) => look.asked(entry, q)).map(([entry, run]) => {
      const {context, worked, question} = prompted(run);
      return {
        run: keys[entry.run], answer: entry.answers[q], value: entry.values[q], near_tie: (entry.flags[q] & NEAR) > 0,
        truncated: (entry.flags[q] & TRUNCATED) > 0, worked_examples: worked, question, choices: context.continuations,
        logprobs: run.logprobs, output: run.output, read: run.output?.slice(0, run.kept) ?? null,
        finish_reason: run.finish, num_tokens: run.tokens, num_prompt_tokens: run.promptTokens, ...run.detail,
      };
    }),
  });
  // All that is shown of a question below its name.
  const content = (texts, q) => {
    const isProgram = "test" in texts.shown || texts.runs.some((run) => ENDS.includes(run.detail.status));
    const here = look.mineFirst().filter((place) => look.asked(look.current.runs[place], q));
    const flips = new Set(here.map((place) => look.current.runs[place].values[q])).size > 1;
    return [
      ...questionsAsked(texts, q, isProgram), ...(flips ? [make("p", "note", "Runs disagree on this question.")] : []),
      make("div", "panels", ...here.map((place) => panel(texts, place, q, isProgram))),
      ...Object.entries(texts.shown).map(([name, text]) => folded(name, block(text, isProgram, "shown"))),
    ];
  };
  return {content, asJson};
};

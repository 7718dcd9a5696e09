"use strict";
// The questions as evalkit.report.question_data packs them: unpacked once they are looked at.
const evalkitPacked = (() => {
  const ABSENT = 1, TRUNCATED = 2, ERROR = 4, NEAR = 8;
  const $ = (id) => document.getElementById(id);
  const {runs, sets} = JSON.parse($("data").textContent);
  // Two runs of one name are told apart by a number.
  const keys = runs.map((run, place) => {
    const before = runs.slice(0, place).filter((other) => other.key === run.key).length;
    return before ? `${run.key}~${before + 1}` : run.key;
  });
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
  const packedIndex = once("index");
  const partOf = once("texts"); // of a benchmark's questions, `sets[…].part` at a time
  const partsOf = (set) => Promise.all(Array.from({length: sets[set].parts}, (_, place) => partOf(`${set}-${place}`)));
  // What there is to show of one question.
  const textsOf = async (set, q) => {
    const size = sets[set].part;
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
  const indexOf = (set) => packedIndex(set).then(flagged);
  return {runs, sets, keys, indexOf, textsOf, partsOf, ABSENT, TRUNCATED, ERROR, NEAR};
})();

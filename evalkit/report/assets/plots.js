"use strict";
// The page's plots, by Observable Plot. Colours are the page's variables, so a change of theme draws nothing again.
const evalkitPlots = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SYMBOLS = {good: "circle", bad: "times", unsure: "diamond", other: "square"};
  const RUN_SYMBOLS = ["circle", "square", "diamond", "triangle", "star", "wye", "cross", "hexagon"];
  const NARROW = 640;
  const SMALL = 30; // as evalkit.report.plot_data has it
  const colour = (row) => `var(--${row.kind})`;
  const ofRun = (number) => `var(--run${number % 8})`;
  const style = {background: "none", fontSize: "13px", fontFamily: "inherit", overflow: "visible"};
  const textWidth = (texts, size) => Math.max(0, ...texts.map((text) =>
    [...text].reduce((sum, char) => sum + (char.charCodeAt(0) > 0x2e80 ? 1 : 0.56), 0))) * size;

  // Rows with the name of each model above its own, where there are several.
  const headed = (rows) => {
    const models = new Set(rows.map((row) => row.model));
    const lines = [];
    let last = null;
    for (const row of rows) {
      if (models.size > 1 && row.model !== last) lines.push({head: row.model});
      last = row.model;
      lines.push({...row});
    }
    return lines.map((line, place) => ({...line, place}));
  };

  // Rows of a value with its interval: names to the left and words to the right, or both above on a narrow screen:
  // one above the other where a line is too short for them.
  const intervals = (lines, width, marks, options) => {
    const rows = lines.filter((line) => !line.head);
    const heads = lines.filter((line) => line.head);
    const narrow = width < NARROW;
    const names = textWidth(lines.map((line) => line.head ? "" : line.name), 13);
    const words = textWidth(rows.map((row) => row.words), 13);
    const tight = narrow && rows.some((row) => textWidth([row.name], 13) + textWidth([row.words], 13) + 24 > width);
    const height = tight ? 60 : narrow ? 46 : 28;
    const at = (dy) => (narrow ? {dy} : {});
    return Plot.plot({
      width, style, marginTop: 4, marginBottom: 36,
      height: lines.length * height + 40,
      marginLeft: narrow ? 6 : Math.max(names, Math.min(160, textWidth(heads.map((line) => line.head), 9))) + 18,
      marginRight: narrow ? 10 : words + 18,
      x: {grid: true, nice: true, inset: 6, labelAnchor: "center", labelArrow: "none", ...options},
      y: {domain: lines.map((line) => line.place), type: "band", axis: null, padding: 0},
      marks: [
        ...marks(rows, narrow, tight),
        Plot.text(heads, {y: "place", text: "head", frameAnchor: "left", textAnchor: "start", fontWeight: 600, dy: 3, dx: narrow ? 0 : -Math.max(names, 1) - 10}),
        Plot.text(rows, {y: "place", text: "name", frameAnchor: "left", textAnchor: narrow ? "start" : "end", dx: narrow ? 0 : -10, ...at(tight ? -21 : -13)}),
        Plot.text(rows, {y: "place", text: "words", frameAnchor: "right", textAnchor: narrow ? "end" : "start", dx: narrow ? 0 : 10, fill: colour, fontWeight: 600, ...at(tight ? -7 : -13)}),
      ],
    });
  };

  const forest = (_, width) => {
    const lines = headed(data.forest).map((line) => ({...line, name: line.benchmark, words: line.verdict}));
    return intervals(lines, width, (rows, narrow, tight) => {
      const place = {insetTop: tight ? 32 : narrow ? 26 : 4, insetBottom: 4};
      const dy = tight ? 14 : narrow ? 8 : 0;
      return [
        Plot.barX(rows, {y: "place", x1: (row) => row.published - row.half, x2: (row) => row.published + row.half, fill: "var(--published)", ...place}),
        Plot.tickX(rows, {y: "place", x: "published", stroke: "var(--ink)", strokeWidth: 2, ...place}),
        Plot.ruleY(rows, {y: "place", x1: "low", x2: "high", stroke: colour, strokeWidth: 2.5, dy}),
        Plot.dot(rows.filter((row) => row.value !== null), {y: "place", x: "value", symbol: (row) => SYMBOLS[row.kind], r: 5.5, stroke: colour, strokeWidth: 2, fill: (row) => row.kind === "unsure" ? "var(--bg)" : colour(row), title: (row) => `${row.model}, ${row.benchmark}\n${row.text}`, tip: true, dy}),
      ];
    }, {label: "percent"});
  };

  const differences = (name, width) => {
    const lines = data.differences[name].map((row, place) => ({...row, place, words: row.shown, kind: row.is_shown ? "accent" : "muted"}));
    return intervals(lines, width, (rows, narrow) => {
      const dy = narrow ? 8 : 0;
      return [
        Plot.ruleX([0], {stroke: "var(--ink)"}),
        Plot.ruleY(rows, {y: "place", x1: "low", x2: "high", stroke: "var(--accent)", strokeWidth: 2, dy}),
        Plot.dot(rows, {y: "place", x: "value", r: 4.5, stroke: "var(--accent)", strokeWidth: 2, fill: (row) => row.is_shown ? "var(--accent)" : "var(--bg)", title: (row) => `${row.name}: ${row.value.toFixed(2)} points (${row.low.toFixed(2)} to ${row.high.toFixed(2)})`, tip: true, dy}),
      ];
    }, {label: "points", ...(lines.every((row) => row.low === row.high) ? {domain: [-10, 10]} : {})});
  };

  const orders = {
    best: (of) => [...d3.rollup(of.points, (points) => -d3.max(points, (point) => point.value), (point) => point.subject)],
    name: (of) => of.points.map((point) => [point.subject, 0]),
    spread: (of) => [...d3.rollup(of.points, (points) => -(d3.max(points, (p) => p.value) - d3.min(points, (p) => p.value)), (p) => p.subject)],
    n: (of) => [...d3.rollup(of.points, (points) => -d3.max(points, (point) => point.n), (point) => point.subject)],
  };

  const subjects = (place, width) => {
    const of = data.subjects[place];
    const chosen = document.querySelector(`select.order[data-of="${place}"]`);
    const ordered = orders[chosen ? chosen.value : "best"](of);
    ordered.sort((a, b) => d3.ascending(a[1], b[1]) || d3.ascending(a[0], b[0]));
    const domain = [...new Set(ordered.map(([name]) => name))];
    const numRuns = of.runs.length;
    const narrow = width < NARROW;
    const height = Math.max(narrow ? 34 : 20, (narrow ? 20 : 8) + 6 * numRuns);
    const run = new Map(of.runs.map((name, number) => [name, number]));
    const questions = new Map(of.points.map((point) => [point.subject, point.n]));
    const down = (name) => (run.get(name) - (numRuns - 1) / 2) * 6 + (narrow ? 8 : 0);
    const told = (point) => `${point.subject}\n${point.run}: ${point.value.toFixed(1)}` +
      (point.low === null ? "" : ` (${point.low.toFixed(1)} to ${point.high.toFixed(1)})`) + `, n ${point.n}`;
    const ofEach = of.runs.flatMap((name, number) => {
      const points = of.points.filter((point) => point.run === name);
      const dy = down(name);
      return [
        Plot.ruleY(points, {y: "subject", x1: "low", x2: "high", stroke: ofRun(number), strokeOpacity: 0.45, strokeWidth: 1.5, dy}),
        Plot.dot(points, {y: "subject", x: "value", r: 4, symbol: RUN_SYMBOLS[number % 8], stroke: ofRun(number), strokeWidth: 1.5, fill: (point) => point.n < SMALL ? "var(--bg)" : ofRun(number), dy}),
      ];
    });
    const plot = Plot.plot({
      width, style, height: domain.length * height + 50, marginTop: 24, marginBottom: 24,
      marginLeft: narrow ? 6 : textWidth(domain, 13) + 16, marginRight: narrow ? 6 : 64,
      x: {grid: true, domain: [0, 100], label: null, axis: "both", inset: 6},
      y: {domain, axis: null, type: "band", padding: 0},
      marks: [
        Plot.axisX({anchor: "top", label: null}), Plot.axisX({anchor: "bottom", label: null}),
        Plot.text(domain, {y: (name) => name, text: (name) => narrow ? `${name}, n ${questions.get(name)}` : name, frameAnchor: "left", textAnchor: narrow ? "start" : "end", dx: narrow ? 0 : -8, dy: narrow ? -height / 2 + 9 : 0}),
        ...(narrow ? [] : [Plot.text(domain, {y: (name) => name, text: (name) => `n ${questions.get(name)}`, frameAnchor: "right", textAnchor: "start", dx: 10, fill: "var(--muted)"})]),
        ...ofEach,
        Plot.tip(of.points, Plot.pointer({y: "subject", x: "value", title: told})),
      ],
    });
    if (numRuns < 2) return plot;
    const legend = document.createElement("p");
    legend.className = "legend";
    of.runs.forEach((name, number) => {
      const mark = Plot.plot({width: 14, height: 14, margin: 0, style, axis: null, x: {domain: [0, 1]}, y: {domain: [0, 1]},
        marks: [Plot.dot([0], {x: 0.5, y: 0.5, r: 4.5, symbol: RUN_SYMBOLS[number % 8], fill: ofRun(number), stroke: ofRun(number)})]});
      mark.setAttribute("aria-hidden", "true");
      const entry = document.createElement("span");
      entry.append(mark, document.createTextNode(` ${name}`));
      legend.append(entry);
    });
    const both = document.createElement("div");
    both.append(legend, plot);
    return both;
  };

  const small = (width) => Math.min(width, 380);
  const titled = (title, plot) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    figure.append(caption, plot);
    return figure;
  };
  const calibration = (place, width) => {
    const {bins} = data.answers[place];
    if (!bins.length) return null;
    return titled("calibration", Plot.plot({
      width: small(width), height: small(width) * 0.85, style, grid: true,
      x: {domain: [0, 1], label: "probability of the answer", labelAnchor: "center", labelArrow: "none"},
      y: {domain: [0, 1], label: "share that is right", labelArrow: "none"},
      marks: [
        Plot.line([[0, 0], [1, 1]], {stroke: "var(--muted)", strokeDasharray: "4"}),
        Plot.dot(bins, {x: "confidence", y: "accuracy", r: (bin) => Math.sqrt(bin.n), fill: "var(--accent)", title: (bin) => `${bin.n} answers\nprobability ${bin.confidence.toFixed(2)}, right ${bin.accuracy.toFixed(2)}`, tip: true}),
      ],
    }));
  };
  const letters = (place, width) => {
    const rows = data.answers[place].letters.flatMap((row) =>
      [{letter: row.letter, what: "answered", share: 100 * row.said}, {letter: row.letter, what: "right", share: 100 * row.gold}]);
    if (!rows.length) return null;
    return titled("answers by letter, in percent", Plot.plot({
      width: small(width), height: small(width) * 0.7, style, y: {grid: true, label: null}, fx: {label: null},
      x: {domain: ["answered", "right"], axis: null}, color: {domain: ["answered", "right"], range: ["var(--accent)", "var(--published)"], legend: true},
      marks: [Plot.barY(rows, {fx: "letter", x: "what", y: "share", fill: "what", title: (row) => `${row.letter}, ${row.what}: ${row.share.toFixed(1)} %`, tip: true}), Plot.ruleY([0])],
    }));
  };
  const lengths = (place, width) => {
    const both = document.createElement("div");
    both.className = "plots";
    for (const [what, bins] of Object.entries(data.answers[place].lengths)) {
      both.append(titled(`${what} lengths`, Plot.plot({
        width: small(width), height: small(width) * 0.6, style, x: {label: "tokens", labelAnchor: "center", labelArrow: "none"}, y: {grid: true, label: "questions", labelArrow: "none"},
        marks: [Plot.rectY(bins, {x1: "0", x2: "1", y: "2", fill: "var(--accent)", title: (bin) => `${bin[0]} to ${bin[1] - 1}: ${bin[2]}`, tip: true}), Plot.ruleY([0])],
      })));
    }
    return both;
  };

  const drawers = {forest, differences, subjects, calibration, letters, lengths};
  // Draw what is to be seen in a node, where its width has changed since the last time.
  const draw = (root, again = false) => {
    for (const node of root.querySelectorAll(".plot")) {
      const width = Math.floor(node.clientWidth);
      if (!width || (!again && Number(node.dataset.width) === width)) continue;
      node.dataset.width = width;
      const drawn = drawers[node.dataset.kind](node.dataset.of, width);
      node.replaceChildren(...(drawn ? [drawn] : []));
      // A reader of screens is told the whole; Plot names the kinds of marks on groups, where no name belongs.
      for (const part of node.querySelectorAll("svg [aria-label]")) {
        part.dataset.mark = part.getAttribute("aria-label");
        part.removeAttribute("aria-label");
      }
      for (const svg of node.querySelectorAll("svg:not([aria-hidden])")) {
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", node.getAttribute("aria-label") ?? svg.closest("figure")?.querySelector("figcaption")?.textContent ?? "plot");
      }
    }
  };
  return {data, draw};
})();

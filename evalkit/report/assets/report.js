"use strict";
// Tabs by their addresses, the theme, and what printing needs.
(() => {
  const started = performance.now();
  const tabs = [...document.querySelectorAll("main > .tab")];
  // Anchors of reports of before.
  const FORMER = {verdict: "", tables: "card", groups: "subjects", plots: "subjects", causes: "protocols", why: "protocols", graders: "protocols"};
  const plots = typeof evalkitPlots === "undefined" ? null : evalkitPlots;
  const questions = typeof evalkitQuestions === "undefined" ? null : evalkitQuestions;
  const exists = (name) => tabs.some((tab) => tab.id === `tab-${name}`);

  // "#/questions?run=…" and, of before, "#run=…&q=…" and "#causes".
  const address = () => {
    const hash = location.hash.slice(1);
    if (hash.startsWith("/")) {
      const [name, query] = hash.slice(1).split(/\?(.*)/s);
      return {name: exists(name) ? name : "", query: query || ""};
    }
    if (hash.includes("=")) return {name: exists("questions") ? "questions" : "", query: hash};
    const name = FORMER[hash] ?? hash;
    return {name: exists(name) ? name : "", query: ""};
  };

  const show = () => {
    const {name, query} = address();
    for (const tab of tabs) tab.hidden = tab.id !== `tab-${name}`;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.getAttribute("href") === `#/${name}`) {
        link.setAttribute("aria-current", "page");
        link.parentNode.scrollLeft = link.offsetLeft - 40; // on a phone not all tabs are in sight
      } else link.removeAttribute("aria-current");
    }
    document.documentElement.dataset.tab = name;
    if (plots) plots.draw(document.getElementById(`tab-${name}`));
    return name === "questions" && questions ? questions.open(query) : Promise.resolve();
  };

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  if (tabs.length) {
    const ready = () => { document.documentElement.dataset.readyMs ??= performance.now().toFixed(1); };
    // A click on a tab begins it at its top; what is on it may come later, so the promise is not waited for.
    window.addEventListener("hashchange", () => { show(); });
    for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => scrollTo(0, 0));
    show().then(ready);
    if (plots) {
      const again = () => { for (const tab of tabs) if (!tab.hidden) plots.draw(tab); };
      new ResizeObserver(again).observe(document.getElementById("main"));
      document.addEventListener("toggle", again, true);
      for (const order of document.querySelectorAll("select.order")) {
        order.addEventListener("change", () => plots.draw(order.closest("figure"), true));
      }
      // On paper: the summary, the card and the plots of models and subjects, each drawn to the paper's width.
      window.addEventListener("beforeprint", () => {
        document.documentElement.classList.add("printing");
        for (const folded of document.querySelectorAll("details.printed")) folded.open = true;
        for (const tab of tabs) plots.draw(tab, true);
      });
      window.addEventListener("afterprint", () => { document.documentElement.classList.remove("printing"); again(); });
    }
  } else {
    document.documentElement.dataset.readyMs = performance.now().toFixed(1);
  }
  document.documentElement.dataset.drawnMs = (performance.now() - started).toFixed(1);
})();

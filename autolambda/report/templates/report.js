"use strict";
// Draws the figures and the responses. Text from models and files is inserted as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
  };

  /** A copy of a figure in the colours of the page; figures come in light colours. */
  function coloured(figure, isDark) {
    if (!isDark) return JSON.parse(JSON.stringify(figure));
    return JSON.parse(JSON.stringify(figure), (_, value) => (typeof value === "string" && data.dark[value]) || value);
  }

  /** On a narrow screen, a figure with smaller text. */
  function narrowed(figure, width) {
    if (width >= 560) return figure;
    figure.layout.font.size = 11.5;
    figure.layout.legend.font.size = 11.5;
    for (const each of figure.layout.annotations || []) each.font = { ...each.font, size: 10.5 };
    for (const trace of figure.data) delete trace.texttemplate; // numbers in cells would be too small to read
    return figure;
  }

  function draw(isDark) {
    for (const [name, figure] of Object.entries(data.figures)) {
      const place = document.getElementById("figure-" + name);
      if (!place) continue;
      const { data: traces, layout } = narrowed(coloured(figure, isDark), place.clientWidth);
      window.Plotly.react(place, traces, layout, CONFIG);
    }
  }

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  }

  function cellOf(cell, column, isPick) {
    const made = element("div", isPick ? "cell pick" : "cell");
    const head = element("div", "head");
    const grade = cell ? cell.grade : "none";
    head.append(element("span", "who", column.title), element("span", "grade " + grade, cell ? grade : "not asked"));
    made.append(head);
    if (!cell) return made;
    const sub = element("div", "sub");
    sub.append(element("span", "", cell.num_tokens.toLocaleString("en") + " tokens"));
    if (cell.answer !== null) sub.append(element("span", "", "answer read: " + cell.answer));
    made.append(sub);
    if (cell.thinking) {
      const folded = element("details", "");
      folded.append(element("summary", "", "thinking, " + cell.thinking.length.toLocaleString("en") + " characters"));
      folded.append(element("div", "body", cell.thinking));
      made.append(folded);
    }
    made.append(element("div", "body", cell.text || "(nothing)"));
    return made;
  }

  function rowOf(row, comparison) {
    const made = element("article", "row");
    const asked = element("div", "asked");
    const target = row.target === null ? "" : " · target " + row.target;
    asked.append(element("div", "id", row.task + " · " + row.sample_id + target));
    if (row.prompt !== null) asked.append(element("div", "prompt", row.prompt));
    const cells = element("div", "cells");
    cells.tabIndex = 0;
    row.cells.forEach((cell, i) => cells.append(cellOf(cell, comparison.columns[i], i === comparison.pick)));
    made.append(asked, cells);
    return made;
  }

  /** Which of two columns was right; the later column has more mean tokens. */
  function kindOf(row, pick, other) {
    const [shorter, longer] = [row.cells[Math.min(pick, other)], row.cells[Math.max(pick, other)]];
    if (!shorter || !longer) return "";
    const [first, last] = [shorter.grade === "correct", longer.grade === "correct"];
    return last ? (first ? "both right" : "helped") : first ? "hurt" : "both wrong";
  }

  function holds(row, text) {
    const cells = row.cells.filter(Boolean).flatMap((cell) => [cell.thinking, cell.text, cell.answer]);
    return [row.task, row.sample_id, row.prompt, row.target, ...cells].some((each) => each && each.toLowerCase().includes(text));
  }

  function readResponses(comparison) {
    const form = document.getElementById("filters");
    const place = document.getElementById("rows");
    const more = document.getElementById("more");
    const count = document.getElementById("count");
    const STEP = 10;
    let found = [];
    let shown = 0;

    function showMore() {
      const next = found.slice(shown, shown + STEP);
      place.append(...next.map((row) => rowOf(row, comparison)));
      shown += next.length;
      more.hidden = shown >= found.length;
    }

    function filter() {
      const { other, where, grade, text } = Object.fromEntries(new FormData(form));
      const wanted = text.trim().toLowerCase();
      found = comparison.rows.filter((row) => {
        const own = row.cells[comparison.pick];
        if (where && kindOf(row, comparison.pick, Number(other)) !== where) return false;
        if (grade && (!own || own.grade !== grade)) return false;
        return !wanted || holds(row, wanted);
      });
      count.textContent = found.length + " of " + comparison.rows.length + " prompts in this page";
      place.replaceChildren();
      shown = 0;
      showMore();
    }

    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", showMore);
    filter();
  }

  /** Dollars with three digits, as Python's ".3g" writes them. */
  function dollars(mean, price) {
    return String(Number(((mean * price) / 1000).toPrecision(3)));
  }

  /** The answer to the budget of the slider, and the price of a thousand responses everywhere. */
  function readBudgets(slider) {
    const form = document.getElementById("budget-form");
    const place = document.getElementById("budget-answer");
    const [name, rest, code] = ["b", "span", "code"].map((tag) => place.querySelector(tag));
    form.elements.step.max = slider.steps.length - 1;
    form.elements.step.value = slider.start;

    function show() {
      const price = Math.max(Number(form.elements.price.value) || 0, 0);
      const [budget, words, index] = slider.steps[form.elements.step.value];
      const found = index === null ? null : slider.results[index];
      form.elements.step.setAttribute("aria-valuetext", words);
      name.textContent = "Within " + words + ": " + (found ? found.who : "every merge needs more") + (found ? "" : ".");
      rest.textContent = "";
      if (found) {
        const compared = found.saving && ". Compared with Thinking: " + found.saving;
        const thinking = slider.thinking ? " (Thinking: $" + dollars(slider.thinking, price) + ")" : "";
        rest.textContent =
          found.answers + " (" + found.basis + ")" + compared + ". 1,000 responses cost $" + dollars(found.mean, price) + thinking + ".";
      }
      code.textContent = slider.command + budget + slider.storage;
      for (const cell of document.querySelectorAll(".cost")) cell.textContent = dollars(cell.dataset.mean, price);
    }

    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = place.hidden = false;
    show();
  }

  /** Says above a table that is wider than the screen that it can be moved. */
  function hintAtScrolling() {
    for (const table of document.querySelectorAll(".scroll")) {
      const before = table.previousElementSibling;
      const isHinted = before !== null && before.classList.contains("swipe");
      const isWide = table.scrollWidth > table.clientWidth + 1;
      if (isWide && !isHinted) table.before(element("p", "swipe", "more columns to the right →"));
      if (!isWide && isHinted) before.remove();
    }
  }

  function copyCommands() {
    for (const button of document.querySelectorAll(".copy")) {
      button.addEventListener("click", async () => {
        const code = button.previousElementSibling;
        try {
          await navigator.clipboard.writeText(code.textContent);
          button.textContent = "Copied";
        } catch {
          window.getSelection().selectAllChildren(code);
          button.textContent = "Selected";
        }
        setTimeout(() => (button.textContent = "Copy"), 1500);
      });
    }
  }

  draw(dark.matches);
  dark.addEventListener("change", () => draw(dark.matches));
  window.addEventListener("beforeprint", () => draw(false));
  window.addEventListener("afterprint", () => draw(dark.matches));
  if (data.comparison) readResponses(data.comparison);
  readBudgets(data.slider);
  hintAtScrolling();
  window.addEventListener("resize", hintAtScrolling);
  document.addEventListener("toggle", hintAtScrolling, true);
  copyCommands();
  document.documentElement.dataset.ready = "yes";
})();

"use strict";
// Figures: drawn one after the other, so that the page answers at once; again when the theme turns.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const PAGE = 700; // CSS pixels of an A4 or Letter page between its margins
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const themed = (layout) => {
    const css = getComputedStyle(document.documentElement);
    const [text, line, raised] = ["--text", "--line", "--raised"].map((n) => css.getPropertyValue(n).trim());
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line };
    return {
      ...layout,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { ...layout.hoverlabel, bgcolor: raised, bordercolor: line, font: { color: text } },
      template: { layout: { xaxis: axis, yaxis: axis } },
    };
  };
  const draw = (names) => {
    const [name, ...rest] = names;
    if (name === undefined) {
      document.body.dataset.drawn = "yes";
      return;
    }
    const place = document.getElementById(`figure-${name}`);
    Plotly.react(place, figures[name].data, themed(figures[name].layout), {
      responsive: true,
      displaylogo: false,
      displayModeBar: false,
    }).then(() => setTimeout(() => draw(rest)));
  };
  const redraw = () => draw(Object.keys(figures).filter((n) => document.getElementById(`figure-${n}`)));
  dark.addEventListener("change", redraw);
  redraw();
  // On paper: light, and as wide as a page, whatever the screen is.
  const root = document.documentElement;
  window.addEventListener("beforeprint", () => {
    root.classList.add("printed");
    for (const name of Object.keys(figures)) {
      const place = document.getElementById(`figure-${name}`);
      if (place) Plotly.react(place, figures[name].data, { ...themed(figures[name].layout), autosize: false, width: PAGE });
    }
  });
  window.addEventListener("afterprint", () => {
    root.classList.remove("printed");
    redraw();
  });
})();

// Leaderboard: sorted by a click on a title, numbers as numbers; filtered by every word typed.
(() => {
  const table = document.getElementById("leaderboard");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({
    row,
    cells: Array.from(row.cells, (cell) => cell.textContent),
    text: row.textContent.toLowerCase(),
  }));
  const titles = Array.from(table.tHead.rows[0].cells);
  const number = (text) => (text === "" ? -Infinity : Number(text.replace(/[,%]/g, "")));

  titles.forEach((title, column) => {
    const numeric = title.classList.contains("number");
    title.addEventListener("click", () => {
      const before = title.getAttribute("aria-sort");
      const first = numeric && !["rank", "trial"].includes(title.textContent.trim()) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = before === first ? other : first;
      titles.forEach((each) => each.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const compare = numeric
        ? (a, b) => sign * (number(a.cells[column]) - number(b.cells[column]) || 0)
        : (a, b) => sign * a.cells[column].localeCompare(b.cells[column]);
      rows.sort(compare);
      body.append(...rows.map((each) => each.row));
    });
  });

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    let count = 0;
    for (const { row, text } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length}`;
  };
  filter.addEventListener("input", apply);
  apply();
})();

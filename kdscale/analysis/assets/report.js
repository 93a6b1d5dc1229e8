"use strict";

(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const print = window.matchMedia("print");
  const config = { displayModeBar: false, responsive: true };

  // A figure names CSS variables as colours; this puts in those of the theme that is shown.
  function themed(part, style) {
    if (typeof part === "string") {
      return part.replace(/^var\((--[\w-]+)\)$/, (_, name) => style.getPropertyValue(name).trim());
    }
    if (Array.isArray(part)) {
      return part.map((item) => themed(item, style));
    }
    if (part !== null && typeof part === "object") {
      return Object.fromEntries(
        Object.entries(part).map(([key, value]) => [key, themed(value, style)]),
      );
    }
    return part;
  }

  function layoutOf(figure, style) {
    const axis = {
      gridcolor: style.getPropertyValue("--rule").trim(),
      linecolor: style.getPropertyValue("--faint").trim(),
      zeroline: false,
    };
    const layout = themed(figure.layout, style);
    layout.font = {
      family: getComputedStyle(document.body).fontFamily,
      size: 12,
      color: style.getPropertyValue("--muted").trim(),
    };
    layout.paper_bgcolor = layout.plot_bgcolor = style.getPropertyValue("--page").trim();
    layout.hoverlabel = { align: "left" };
    layout.uirevision = "kept";
    for (const name of ["xaxis", "yaxis"]) {
      if (layout[name]) {
        layout[name] = { ...axis, ...layout[name] };
      }
    }
    return layout;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const [name, { figure }] of Object.entries(data)) {
      const place = document.getElementById(`plot-${name}`);
      Plotly.react(place, themed(figure.data, style), layoutOf(figure, style), config);
    }
  }

  function chooseMetric(select) {
    const { figure, series } = data.curves;
    const { values, range } = series[select.value];
    figure.data.forEach((trace, index) => {
      trace.y = values[index];
    });
    figure.layout.yaxis.title.text = select.selectedOptions[0].textContent;
    figure.layout.yaxis.range = range;
    figure.layout.yaxis.uirevision = select.value;
    draw();
  }

  function keyOf(row, index) {
    const cell = row.cells[index];
    const text = cell.dataset.key ?? cell.textContent.trim();
    if (text === "" || text === "–") {
      return null;
    }
    const number = Number(text);
    return Number.isNaN(number) ? text : number;
  }

  // Cells without a value stay last in either direction.
  function compare(first, second, sign) {
    if (first === null || second === null) {
      return (first === null) - (second === null);
    }
    if (typeof first === "number" && typeof second === "number") {
      return sign * (first - second);
    }
    return sign * String(first).localeCompare(String(second));
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, index), row]);
        rows.sort((first, second) => compare(first[0], second[0], up ? 1 : -1));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  document.querySelectorAll("table.sortable").forEach(makeSortable);
  if (Object.keys(data).length > 0) {
    draw();
    dark.addEventListener("change", draw);
    print.addEventListener("change", () => {
      draw();
      document.querySelectorAll(".plot").forEach((place) => Plotly.Plots.resize(place));
    });
  }
  document
    .getElementById("curve-metric")
    ?.addEventListener("change", (event) => chooseMetric(event.target));
})();

"use strict";

(() => {
  const page = JSON.parse(document.getElementById("report-data").textContent);
  const { figures, files, refresh } = page;
  const KEPT = `kdscale ${document.title}`;
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
    layout.height = undefined;
    layout.uirevision = "kept";
    for (const name of ["xaxis", "yaxis"]) {
      if (layout[name]) {
        layout[name] = { ...axis, ...layout[name] };
      }
    }
    return layout;
  }

  function draw(names) {
    const style = getComputedStyle(document.documentElement);
    for (const name of names) {
      const { figure } = figures[name];
      const place = document.getElementById(`plot-${name}`);
      Plotly.react(place, themed(figure.data, style), layoutOf(figure, style), config);
    }
  }

  function drawAll() {
    draw(Object.keys(figures));
  }

  function choose(name, select) {
    const { figure, series, choices } = figures[name];
    if (choices) {
      figures[name].figure = choices[select.value];
    } else {
      const { values, range } = series[select.value];
      figure.data.forEach((trace, index) => {
        trace.y = values[index];
      });
      figure.layout.yaxis.title.text = select.selectedOptions[0].textContent;
      figure.layout.yaxis.range = range;
      figure.layout.yaxis.uirevision = select.value;
    }
    const height = figures[name].figure.layout.height;
    if (height) {
      document.getElementById(`plot-${name}`).style.height = `${height}px`;
    }
    draw([name]);
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

  function save(name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([files[name]], { type: "text/plain" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // What a reader has chosen survives the page's loading itself again.
  function remember() {
    const state = { x: scrollX, y: scrollY, picks: {}, sorts: {} };
    document.querySelectorAll("select").forEach((select) => {
      state.picks[select.id] = select.value;
    });
    document.querySelectorAll("table.sortable").forEach((table, place) => {
      const index = [...table.tHead.rows[0].cells].findIndex((head) => head.ariaSort);
      if (index >= 0) {
        state.sorts[place] = [index, table.tHead.rows[0].cells[index].ariaSort];
      }
    });
    sessionStorage.setItem(KEPT, JSON.stringify(state));
  }

  function restore() {
    const state = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    if (state === null) {
      return;
    }
    for (const [id, value] of Object.entries(state.picks)) {
      const select = document.getElementById(id);
      if (select && [...select.options].some((option) => option.value === value)) {
        select.value = value;
        select.dispatchEvent(new Event("change"));
      }
    }
    const tables = document.querySelectorAll("table.sortable");
    for (const [place, [index, direction]] of Object.entries(state.sorts)) {
      const button = tables[place]?.tHead.rows[0].cells[index]?.querySelector("button");
      button?.click();
      if (direction === "descending") {
        button?.click();
      }
    }
    scrollTo(state.x, state.y);
  }

  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("button[data-save]").forEach((button) => {
    button.addEventListener("click", () => save(button.dataset.save));
  });
  for (const name of Object.keys(figures)) {
    const select = document.getElementById(`pick-${name}`);
    select?.addEventListener("change", () => choose(name, select));
  }
  if (Object.keys(figures).length > 0) {
    drawAll();
    dark.addEventListener("change", drawAll);
    print.addEventListener("change", () => {
      drawAll();
      document.querySelectorAll(".plot").forEach((place) => Plotly.Plots.resize(place));
    });
  }
  if (refresh > 0) {
    history.scrollRestoration = "manual";
    restore();
    addEventListener("pagehide", remember);
    setTimeout(() => location.reload(), 1000 * refresh);
  }
})();

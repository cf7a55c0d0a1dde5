// The page of a study: charts with their switches, the table of runs, training curves. No chart is needed for the rest.
"use strict";

const DASHES = ["solid", "dash", "dot"];
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Plotly comes compressed: a sixth of its size would be most of the page's otherwise.
async function loadPlotly() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

// Colors are variables of the style sheet, with other values on dark screens.
function painted(figure) {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  const text = JSON.stringify(figure).replace(/var\((--[\w-]+)\)/g, (_, name) => value(name));
  const { data, layout } = JSON.parse(text);
  const line = { gridcolor: value("--line"), linecolor: value("--quiet"), zerolinecolor: value("--quiet") };
  const axis = (own) => ({ ...line, zeroline: false, automargin: true, ...own });
  const base = {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false, hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 12, color: value("--text") },
    hoverlabel: { bgcolor: value("--card"), bordercolor: value("--quiet"), font: { color: value("--text") }, align: "left" },
    margin: { l: 48, r: 12, t: 8, b: 40 },
  };
  return { data, layout: { ...base, ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis) } };
}

const drawn = new Map(); // of each element with a chart: its figure

function draw(element, figure) {
  drawn.set(element, figure);
  const { data, layout } = painted(figure);
  return Plotly.react(element, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
}

function setScale(figure, axis, type) {
  const { tickvals, ticktext, range, ...rest } = figure.layout[axis];
  const ticks = type === "log" ? figure.ticks?.[axis] ?? { tickvals, ticktext } : {};
  figure.ticks = { ...figure.ticks, [axis]: figure.ticks?.[axis] ?? { tickvals, ticktext } };
  figure.layout[axis] = { ...rest, ...ticks, type };
}

async function drawCharts() {
  const charts = read("charts");
  for (const holder of all("[data-chart]")) {
    const figures = charts[holder.dataset.chart];
    const plots = all(".plot", holder);
    const redraw = () => plots.forEach((plot, index) => draw(plot, figures[index]));
    const show = (buttons) => {
      const hidden = new Set(buttons.filter((b) => b.ariaPressed === "false").map((b) => b.dataset.line));
      figures.flatMap((figure) => figure.data).forEach((trace) => (trace.visible = !hidden.has(trace.meta)));
      redraw();
    };
    const buttons = all("[data-line]", holder);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        button.ariaPressed = String(button.ariaPressed === "false");
        show(buttons);
      });
      button.addEventListener("dblclick", () => {
        const alone = buttons.every((other) => other === button || other.ariaPressed === "false");
        buttons.forEach((other) => (other.ariaPressed = String(alone || other === button)));
        show(buttons);
      });
    }
    for (const select of all("[data-scale]", holder)) {
      select.addEventListener("change", () => {
        figures.forEach((figure) => setScale(figure, `${select.dataset.scale}axis`, select.value));
        redraw();
      });
    }
    redraw();
    await new Promise(requestAnimationFrame); // one chart a frame: the page stays responsive
  }
}

function drawCurves() {
  const curves = read("curves-data");
  const holder = document.getElementById("curves");
  const scale = document.getElementById("curve-scale");
  const boxes = all("[data-curve]");
  const redraw = () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => curves[box.dataset.curve]);
    for (const panel of all("[data-stage]", holder)) {
      const here = chosen.filter((curve) => curve.stage === panel.dataset.stage);
      panel.hidden = here.length === 0;
      panel.querySelector(".keys").replaceChildren(...keysOf(here));
      if (here.length) draw(panel.querySelector(".plot"), curveFigure(here, scale.value));
    }
    holder.querySelector(".none").hidden = chosen.length > 0;
  };
  boxes.forEach((box) => box.addEventListener("change", redraw));
  scale.addEventListener("change", redraw);
  document.getElementById("clear-curves").addEventListener("click", () => {
    boxes.forEach((box) => (box.checked = false));
    redraw();
  });
  redraw();
}

// Seven colors and three dashes tell 21 curves apart.
const lookOf = (index) => ({ color: `var(--color-${(index % 7) + 1})`, dash: DASHES[index % 3] });

function curveFigure(curves, type) {
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const data = curves.flatMap((curve, index) => {
    const { color, dash } = lookOf(index);
    const said = (what) => (loss, i) => `<b>${escaped(curve.label)}</b><br>epoch ${curve.epoch.at(i)}<br>${what} ${loss.toPrecision(4)}`;
    const line = (what, x, y, more) => ({ type: "scatter", x, y, hoverinfo: "text", hovertext: y.map(said(what)), ...more });
    const training = line("training loss", curve.epoch, curve.loss, { mode: "lines", line: { color, dash, width: 2 } });
    if (curve.heldout === null) return [training];
    const marker = { color, symbol: "diamond-open", size: 10, line: { width: 2 } };
    const heldout = line("held-out loss", curve.epoch.slice(-1), [curve.heldout], { mode: "markers", marker });
    heldout.hovertext = [said("held-out loss")(curve.heldout, -1)];
    return [training, heldout];
  });
  return { data, layout: { xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "loss" }, type } } };
}

function keysOf(curves) {
  return curves.map((curve, index) => {
    const key = document.createElement("span");
    const { color, dash } = lookOf(index);
    key.textContent = curve.label;
    key.style.setProperty("--key", color);
    key.dataset.dash = dash;
    return key;
  });
}

function prepareRuns() {
  const table = document.getElementById("runs-table");
  const body = table.tBodies[0];
  const value = (row, column) => row.cells[column].dataset.value ?? "";
  const compare = (a, b) => (isNaN(a) || isNaN(b) || a === "" || b === "" ? a.localeCompare(b) : a - b);
  for (const button of all("thead button", table)) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const descending = head.ariaSort === "ascending";
      all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = descending ? "descending" : "ascending";
      const column = head.cellIndex;
      const missing = (row) => Number(value(row, column) === "");
      const rows = [...body.rows].sort((a, b) =>
        missing(a) - missing(b) || (descending ? -1 : 1) * compare(value(a, column), value(b, column)));
      body.append(...rows);
    });
  }
  const words = document.getElementById("filter");
  const choices = all("[data-filter]");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const chosen = choices.every((select) => [row.dataset[select.dataset.filter], ""].includes(select.value));
      row.hidden = !(wanted.every((word) => text.includes(word)) && chosen);
    }
    const shown = [...body.rows].filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = `${shown.toLocaleString("en")} of ${body.rows.length.toLocaleString("en")} shown`;
  };
  words.addEventListener("input", filter);
  choices.forEach((select) => select.addEventListener("change", filter));
  filter();
}

// A link to a closed part of the page opens it.
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.closest("details")?.setAttribute("open", "");
}

async function start() {
  // Inside a report the files are not beside the page: links to them would lead nowhere.
  if (window !== top || !/^(file|https?):/.test(location.protocol)) document.body.classList.add("alone");
  if (document.getElementById("runs-table")) prepareRuns();
  addEventListener("hashchange", openTarget);
  openTarget();
  try {
    await loadPlotly();
  } catch (error) {
    document.getElementById("no-charts").hidden = false;
    return;
  }
  await drawCharts();
  if (document.getElementById("curves")) drawCurves();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => drawn.forEach((figure, element) => draw(element, figure)));
  document.body.dataset.ready = "yes";
}

start();

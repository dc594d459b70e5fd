// Charts of a report, drawn as SVG from the figures in the page. Nothing is loaded, no text becomes markup.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 236, COLOURS = 10, SHADES = 7;
  const state = { x: "steps", run: "all", smooth: 0 };
  const chained = !data.overlay;

  // numbers

  function plain(value, digits = 4) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e9) return `${plain(value / 1e9, 3)} B`;
    if (size >= 1e6) return `${plain(value / 1e6, 3)} M`;
    return value.toLocaleString("en-US", { maximumSignificantDigits: Math.max(digits, Math.ceil(Math.log10(size + 1))) });
  }

  function linearTicks(low, high, count) {
    const raw = (high - low) / Math.max(1, count), scale = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * scale).find((one) => one >= raw * 0.999);
    const ticks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(+(n * step).toPrecision(12));
    return ticks;
  }

  function logTicks(low, high) {
    const all = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const factor of [1, 2, 5]) {
        const value = +(factor * 10 ** power).toPrecision(12);
        if (value >= low * 0.999 && value <= high * 1.001) all.push(value);
      }
    }
    const tens = all.filter((value) => Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6));
    if (all.length > 8 && tens.length > 1) return tens;
    return all.length > 1 ? all : linearTicks(low, high, 4);
  }

  // series

  const hasTokens = data.runs.every((run) => run.tables.every((table) => table.tokens.length === table.steps.length));

  function total(run) {
    return state.x === "tokens" ? run.tokens : run.steps;
  }

  function shownRuns() {
    if (!chained || state.run === "all") return data.runs.map((_, place) => place);
    return [+state.run];
  }

  function offset(place) {
    if (!chained || state.run !== "all") return 0;
    return data.runs.slice(0, place).reduce((sum, run) => sum + total(run), 0);
  }

  function smoothed(values) {
    let sum = 0, weight = 0;
    return values.map((value) => {
      if (value === null) return null;
      sum = state.smooth * sum + (1 - state.smooth) * value;
      weight = state.smooth * weight + (1 - state.smooth);
      return sum / weight;
    });
  }

  // one figure of one run: points in the chart's coordinates, with gaps where it is not finite
  function seriesOf(chart) {
    const found = [];
    for (const place of shownRuns()) {
      const run = data.runs[place], from = offset(place);
      for (const [metric, label, kind] of chart.lines) {
        const table = run.tables.find((one) => metric in one.columns);
        if (!table) continue;
        const y = table.columns[metric];
        const smooth = chart.smooth && state.smooth > 0 && kind === "training";
        const name = chained ? label : run.name;
        const entry = chart.names.indexOf(name);
        const text = kind !== "training" && kind !== name ? `${name}, ${kind}` : name;
        found.push({
          label: name, entry, kind, run: run.name, text,
          steps: table.steps, x: table[state.x].map((x) => x + from), raw: y, y: smooth ? smoothed(y) : y,
          smooth, lost: table.notFinite[metric] || 0,
        });
      }
    }
    return found;
  }

  // drawing

  function element(name, attributes, parent, text) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  }

  function colourOf(chart, entry) {
    if (chart.ordered && chained) {
      const count = Math.max(1, chart.names.length - 1);
      return `var(--shade-${Math.round((entry / count) * (SHADES - 1))})`;
    }
    return `var(--line-${entry % COLOURS})`;
  }

  function dashOf(chart, entry, kind) {
    if (kind === "target") return "6 4";
    return entry >= COLOURS && !(chart.ordered && chained) ? "8 2 2 2" : "";
  }

  function pathOf(xs, ys, toX, toY) {
    let path = "", pen = false;
    for (let n = 0; n < xs.length; n++) {
      const y = ys[n] === null ? null : toY(ys[n]);
      if (y === null || !Number.isFinite(y)) { pen = false; continue; }
      path += `${pen ? "L" : "M"}${toX(xs[n]).toFixed(1)} ${y.toFixed(1)}`;
      pen = true;
    }
    return path;
  }

  function range(shown, log) {
    let low = Infinity, high = -Infinity;
    for (const one of shown) {
      for (const y of one.y) {
        if (y === null || (log && y <= 0)) continue;
        if (y < low) low = y;
        if (y > high) high = y;
      }
    }
    return [low, high];
  }

  function draw(figure) {
    const { chart, plot } = figure;
    const width = Math.max(240, plot.clientWidth || 400);
    const all = seriesOf(chart), shown = all.filter((one) => !figure.hidden.has(one.label));
    plot.replaceChildren();
    figure.tip.hidden = true;
    let log = figure.log;
    let [low, high] = range(shown, log);
    if (log && low > high) { log = false; [low, high] = range(shown, false); }
    const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img" }, plot);
    element("title", {}, svg, `${chart.title}, ${chart.unit}`);
    if (low > high) {
      element("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle", class: "tick" }, svg, "nothing to draw");
      figure.view = null;
      return;
    }
    if (chart.zero && !log) { low = Math.min(0, low); high = Math.max(0, high); }
    if (chart.zero && low === 0 && high === 0) high = 1;
    if (low === high) { const space = Math.abs(low) * 0.05 || 1; low -= log ? low * 0.1 : space; high += space; }
    if (!log) {
      const pad = (high - low) * 0.04;
      low = low >= 0 ? Math.max(0, low - pad) : low - pad;
      high += pad;
    }
    const ticks = log ? logTicks(low, high) : linearTicks(low, high, 5);
    const widest = Math.max(...ticks.map((tick) => plain(tick).length));
    const box = { left: Math.max(30, widest * 6.6 + 10), right: width - 12, top: 26, bottom: HEIGHT - 32 };
    const places = shownRuns();
    const end = Math.max(1, chained ? places.reduce((sum, place) => sum + total(data.runs[place]), 0)
      : Math.max(...data.runs.map(total)), ...all.map((one) => one.x[one.x.length - 1] || 0));
    const toX = (x) => box.left + (x / end) * (box.right - box.left);
    const map = log ? Math.log10 : (y) => y;
    const toY = (y) => box.bottom - ((map(y) - map(low)) / (map(high) - map(low))) * (box.bottom - box.top);

    const unit = [chart.unit, log ? "log scale" : ""].filter(Boolean).join(", ");
    if (unit) element("text", { x: 4, y: 12, class: "unit" }, svg, unit);
    for (const tick of ticks) {
      const y = toY(tick).toFixed(1);
      element("line", { x1: box.left, x2: box.right, y1: y, y2: y, class: "grid" }, svg);
      element("text", { x: box.left - 6, y: +y + 3.5, "text-anchor": "end", class: "tick" }, svg, plain(tick));
    }
    for (const tick of linearTicks(0, end, Math.max(2, Math.floor((box.right - box.left) / 64)))) {
      if (tick > end) continue;
      const x = toX(tick);
      element("line", { x1: x, x2: x, y1: box.bottom, y2: box.bottom + 4, class: "axis" }, svg);
      const anchor = x > box.right - 18 ? "end" : "middle";
      element("text", { x: anchor === "end" ? box.right + 8 : x, y: box.bottom + 15, "text-anchor": anchor, class: "tick" }, svg, plain(tick));
    }
    element("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }, svg);
    element("text", { x: box.right, y: HEIGHT - 3, "text-anchor": "end", class: "unit" }, svg, state.x);
    if (chained && places.length > 1) {
      for (const place of places) {
        const from = toX(offset(place)), until = toX(offset(place) + total(data.runs[place]));
        if (place > 0) element("line", { x1: from, x2: from, y1: box.top - 4, y2: box.bottom, class: "border" }, svg);
        const name = data.runs[place].name;
        if (until - from > name.length * 5.8 + 6) element("text", { x: from + 4, y: box.top - 2, class: "stage" }, svg, name);
      }
    }
    const both = shown.some((one) => one.kind === "held-out") && shown.some((one) => one.kind === "training");
    for (const one of shown) {
      const colour = colourOf(chart, one.entry), dash = dashOf(chart, one.entry, one.kind);
      const style = `stroke:${colour}` + (dash ? `;stroke-dasharray:${dash}` : "");
      if (one.smooth) element("path", { d: pathOf(one.x, one.raw, toX, toY), class: "curve faint", style }, svg);
      element("path", { d: pathOf(one.x, one.y, toX, toY), class: `curve ${one.kind}${both ? " both" : ""}`, style }, svg);
      const marks = one.kind === "held-out" ? one.x.length <= 60 : one.x.length === 1;
      if (marks) {
        one.y.forEach((y, n) => {
          if (y === null || (log && y <= 0)) return;
          element("circle", { cx: toX(one.x[n]).toFixed(1), cy: toY(y).toFixed(1), r: 2.6, style: `fill:${colour}` }, svg);
        });
      }
      one.raw.forEach((y, n) => {
        if (y !== null) return;
        const x = toX(one.x[n]);
        element("path", { d: `M${x - 4} ${box.top - 1}h8l-4 7z`, style: `fill:${colour}` }, svg);
      });
    }
    figure.cross = element("line", { y1: box.top, y2: box.bottom, class: "cross", visibility: "hidden" }, svg);
    figure.view = { shown, toX, box, width, end };
    const lost = all.reduce((sum, one) => sum + one.lost, 0);
    figure.lost.textContent = lost ? `${lost} figures are not finite (triangles)` : "";
  }

  function hover(figure, event) {
    const { view, plot, tip, cross } = figure;
    if (!view) return;
    const bounds = plot.getBoundingClientRect();
    const at = (event.clientX - bounds.left) * (view.width / bounds.width);
    const rows = [];
    let nearest = null;
    for (const one of view.shown) {
      one.x.forEach((x, n) => {
        const gap = Math.abs(view.toX(x) - at);
        if (one.raw[n] !== null && (nearest === null || gap < nearest.gap)) nearest = { gap, x, step: one.steps[n], run: one.run };
      });
    }
    if (!nearest) return;
    for (const one of view.shown) {
      if (chained && one.run !== nearest.run) continue;
      let best = -1;
      one.x.forEach((x, n) => {
        if (one.raw[n] !== null && (best < 0 || Math.abs(x - nearest.x) < Math.abs(one.x[best] - nearest.x))) best = n;
      });
      if (best >= 0) rows.push({ one, value: one.raw[best], smooth: one.y[best], away: one.steps[best] !== nearest.step ? one.steps[best] : 0 });
    }
    rows.sort((a, b) => b.value - a.value);
    cross.setAttribute("x1", view.toX(nearest.x));
    cross.setAttribute("x2", view.toX(nearest.x));
    cross.setAttribute("visibility", "visible");
    tip.replaceChildren();
    const head = document.createElement("b");
    const tokens = state.x === "tokens" ? `, ${plain(nearest.x)} tokens` : "";
    head.textContent = `${chained ? nearest.run + ", " : ""}step ${nearest.step.toLocaleString("en-US")}${tokens}`;
    tip.append(head);
    for (const { one, value, smooth, away } of rows.slice(0, 14)) {
      const row = document.createElement("div"), key = document.createElement("i"), number = document.createElement("span");
      key.style.background = colourOf(figure.chart, one.entry);
      number.textContent = plain(value, 5) + (one.smooth ? ` (smooth ${plain(smooth, 4)})` : "");
      row.append(key, `${one.text}${away ? `, step ${away.toLocaleString("en-US")}` : ""} `, number);
      tip.append(row);
    }
    if (rows.length > 14) tip.append(`and ${rows.length - 14} more`);
    tip.hidden = false;
    const left = (view.toX(nearest.x) / view.width) * bounds.width;
    const beside = left + 14 + tip.offsetWidth <= bounds.width ? left + 14 : Math.max(0, left - tip.offsetWidth - 14);
    tip.style.left = `${Math.max(0, Math.min(beside, bounds.width - tip.offsetWidth))}px`;
    tip.style.top = `${plot.offsetTop + 30}px`;
  }

  function leave(figure) {
    figure.tip.hidden = true;
    if (figure.cross) figure.cross.setAttribute("visibility", "hidden");
  }

  function button(text, pressed, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.setAttribute("aria-pressed", pressed);
    if (text) made.textContent = text;
    made.addEventListener("click", act);
    return made;
  }

  function legend(figure) {
    const { chart } = figure, list = document.createElement("div");
    list.className = "legend";
    if (chart.names.length > 1 || chart.both) {
      for (const [entry, name] of chart.names.entries()) {
        const one = button("", true, (event) => {
          if (event.detail > 1) return;
          figure.hidden.has(name) ? figure.hidden.delete(name) : figure.hidden.add(name);
          update();
        });
        one.addEventListener("dblclick", () => {
          const alone = figure.hidden.size === chart.names.length - 1 && !figure.hidden.has(name);
          figure.hidden = new Set(alone ? [] : chart.names.filter((other) => other !== name));
          update();
        });
        one.title = "click: show or hide; double click: this one alone";
        const key = document.createElement("i");
        key.style.background = colourOf(chart, entry);
        if (entry >= COLOURS && !chart.ordered) key.className = "dashed";
        one.append(key, name);
        list.append(one);
      }
      const update = () => {
        [...list.children].forEach((one, n) => one.setAttribute("aria-pressed", !figure.hidden.has(chart.names[n])));
        draw(figure);
      };
    }
    return list;
  }

  const figures = [];
  function prepare(node) {
    const chart = data.charts[+node.dataset.chart];
    chart.names = chained ? [...new Set(chart.lines.map((line) => line[1]))]
      : data.runs.map((run) => run.name);
    const kinds = new Set(chart.lines.map((line) => line[2]));
    chart.both = kinds.has("training") && kinds.has("held-out") && !(chained && chart.lines.some((line) => line[1] === line[2]));
    const figure = { chart, plot: node.querySelector(".plot"), hidden: new Set(), log: false, view: null };
    figure.tip = document.createElement("div");
    figure.tip.className = "tip";
    figure.tip.hidden = true;
    figure.lost = document.createElement("small");
    const tools = document.createElement("span");
    tools.className = "tools";
    const log = button("log", false, () => {
      figure.log = !figure.log;
      log.setAttribute("aria-pressed", figure.log);
      draw(figure);
    });
    log.title = "logarithmic scale";
    tools.append(log);
    node.querySelector("figcaption").append(tools);
    figure.plot.after(legend(figure), figure.lost, figure.tip);
    if (chart.both) figure.plot.insertAdjacentHTML("afterend", '<small class="kinds">thin: training; with marks: held-out</small>');
    figure.plot.addEventListener("pointermove", (event) => hover(figure, event));
    figure.plot.addEventListener("pointerdown", (event) => hover(figure, event));
    figure.plot.addEventListener("pointerleave", () => leave(figure));
    figures.push(figure);
  }

  function controls(bar) {
    const choice = (label, options, act) => {
      const box = document.createElement("label"), select = document.createElement("select");
      for (const [value, text] of options) select.add(new Option(text, value));
      select.addEventListener("change", () => { act(select.value); redraw(); });
      box.append(label, " ", select);
      bar.append(box);
    };
    if (hasTokens) choice("over", [["steps", "steps"], ["tokens", "tokens"]], (value) => { state.x = value; });
    if (chained && data.runs.length > 1) {
      choice("of", [["all", "the whole chain"], ...data.runs.map((run, n) => [String(n), run.name])], (value) => { state.run = value; });
    }
    const box = document.createElement("label"), slider = document.createElement("input"), told = document.createElement("output");
    Object.assign(slider, { type: "range", min: 0, max: 0.98, step: 0.02, value: 0 });
    told.textContent = "0";
    slider.addEventListener("input", () => { state.smooth = +slider.value; told.textContent = slider.value; redraw(); });
    box.append("smoothing ", slider, told);
    bar.append(box);
    bar.hidden = false;
  }

  function redraw() { for (const figure of figures) if (figure.plot.clientWidth) draw(figure); }

  document.documentElement.classList.add("scripted");
  for (const node of document.querySelectorAll("figure[data-chart]")) prepare(node);
  const bar = document.getElementById("controls");
  if (bar && figures.length) controls(bar);
  redraw();
  const watcher = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const figure = figures.find((one) => one.plot === entry.target), width = Math.round(entry.contentRect.width);
      if (figure && width && figure.width !== width) { figure.width = width; draw(figure); }
    }
  });
  for (const figure of figures) watcher.observe(figure.plot);
})();

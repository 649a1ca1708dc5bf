// Similarities of a query's candidates by layer: one panel per component, blocks from left to right.

const MARGIN = { left: 32, right: 6, top: 6, bottom: 15 };

// Returns [{title, inBlocks, points: [{layer, x}]}]. x is the block, or an index for layers outside the blocks.
function panelsOf(layers) {
  const groups = new Map();
  layers.forEach((layer, position) => {
    const title = layer.block === null ? "outside the blocks" : layer.component;
    if (!groups.has(title)) groups.set(title, []);
    groups.get(title).push(position);
  });
  const panels = [...groups].map(([title, positions]) => {
    const inBlocks = layers[positions[0]].block !== null;
    const sizes = new Map();
    for (const at of positions) sizes.set(layers[at].block, (sizes.get(layers[at].block) ?? 0) + 1);
    const seen = new Map();
    const points = positions.map((at, place) => {
      const { block } = layers[at];
      const within = seen.get(block) ?? 0;
      seen.set(block, within + 1);
      // Layers of the same block are side by side.
      return { layer: at, x: inBlocks ? block + (within + 0.5) / sizes.get(block) - 0.5 : place };
    });
    return { title, inBlocks, points };
  });
  return panels.sort((a, b) => b.inBlocks - a.inBlocks);
}

function ticksOf(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + 1e-9; tick += 1) ticks.push(tick * step);
  return { ticks, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)) };
}

class LayerChart {
  constructor(container, readout, layers) {
    Object.assign(this, { container, readout, layers, series: [], layer: null });
    this.panels = panelsOf(layers);
    this.order = this.panels.flatMap((panel) => panel.points.map((point) => point.layer));
    for (const panel of this.panels) {
      panel.svg = draw("svg", { "aria-hidden": "true" });
      panel.svg.addEventListener("pointermove", (event) => this.point(this.nearest(panel, event.offsetX)));
      panel.svg.addEventListener("pointerdown", (event) => this.point(this.nearest(panel, event.offsetX)));
      container.append(make("figure", {}, make("figcaption", {}, panel.title), panel.svg));
    }
    new ResizeObserver(() => this.redraw()).observe(container);
    container.addEventListener("keydown", (event) => this.onKey(event));
    // Lifting a finger also fires pointerleave, but the readout should stay visible.
    container.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") this.point(null);
    });
    container.addEventListener("blur", () => this.point(null));
  }

  // series: [{name, role, values}]; role is "source", "compared", both or ""; values has one entry per layer.
  // Series without a role are drawn as a single range.
  show(series) {
    this.series = series;
    this.named = series.filter((each) => each.role).sort((a, b) => b.role.includes("source") - a.role.includes("source"));
    const others = series.filter((each) => !each.role).map((each) => each.values);
    const extreme = (of) => this.layers.map((_, layer) => of(...others.map((values) => values[layer])));
    this.others = others.length ? { number: others.length, low: extreme(Math.min), high: extreme(Math.max) } : null;
    this.redraw();
    this.point(null);
  }

  onKey(event) {
    if (modified(event)) return;
    const last = this.order.length - 1;
    const place = this.order.indexOf(this.layer);
    const places = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.point(this.order[Math.min(Math.max(places[event.key], 0), last)]);
  }

  nearest(panel, pixels) {
    const distance = (point) => Math.abs(panel.x(point.x) - pixels);
    return panel.points.reduce((best, point) => (distance(point) < distance(best) ? point : best)).layer;
  }

  redraw() {
    if (!this.series.length || !this.container.clientWidth) return;
    const values = this.series.flatMap((each) => each.values);
    const low = Math.min(0, ...values);
    const high = Math.max(0, ...values);
    for (const panel of this.panels) this.redrawPanel(panel, low, high > low ? high : low + 1);
    this.mark();
  }

  redrawPanel(panel, low, high) {
    const { clientWidth: width, clientHeight: height } = panel.svg;
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    const xs = panel.points.map((point) => point.x);
    const [first, last] = [Math.min(...xs) - 0.5, Math.max(...xs) + 0.5];
    panel.x = (x) => MARGIN.left + ((x - first) / (last - first)) * (right - MARGIN.left);
    panel.y = (y) => bottom - ((y - low) / (high - low)) * (bottom - MARGIN.top);
    panel.bottom = bottom;

    const { ticks, digits } = ticksOf(low, high, 5);
    const grid = ticks.flatMap((tick) => [
      draw("line", {
        class: Math.abs(tick) < 1e-9 ? "zero" : "grid", x1: MARGIN.left, x2: right, y1: panel.y(tick), y2: panel.y(tick),
      }),
      draw("text", { x: MARGIN.left - 5, y: panel.y(tick) + 3.5, "text-anchor": "end" }, decimals(tick, digits)),
    ]);
    const blocks = panel.inBlocks ? ticksOf(first, last, Math.max(2, width / 40)).ticks.filter(Number.isInteger) : [];
    const numbers = blocks.map((block) =>
      draw("text", { x: panel.x(block), y: height - 2, "text-anchor": "middle" }, String(block)),
    );
    panel.marks = draw("g");
    panel.svg.replaceChildren(
      ...grid, ...numbers, ...this.range(panel), ...this.named.flatMap((each) => this.line(panel, each)), panel.marks,
    );
  }

  // Range of the other candidates.
  range(panel) {
    if (!this.others) return [];
    const { low, high } = this.others;
    if (!this.isLine(panel)) {
      return panel.points.map(({ layer, x }) =>
        draw("line", {
          class: "others", x1: panel.x(x), x2: panel.x(x), y1: panel.y(low[layer]), y2: panel.y(high[layer]),
        }),
      );
    }
    const places = (values, points) => points.map(({ layer, x }) => `${panel.x(x).toFixed(1)} ${panel.y(values[layer]).toFixed(1)}`);
    const outline = [...places(low, panel.points), ...places(high, [...panel.points].reverse())];
    return [draw("path", { class: "others", d: `M${outline.join("L")}Z` })];
  }

  isLine(panel) {
    return panel.inBlocks && panel.points.length > 1;
  }

  // Layers outside the blocks have no order, so they are drawn as markers.
  line(panel, { role, values }) {
    const places = panel.points.map(({ layer, x }) => [panel.x(x).toFixed(1), panel.y(values[layer]).toFixed(1)]);
    if (this.isLine(panel)) {
      return [draw("path", { class: role, d: `M${places.map((place) => place.join(" ")).join("L")}` })];
    }
    return places.map(([x, y]) => this.spot(role, x, y));
  }

  // The source is a disc, the compared candidate a diamond.
  spot(role, x, y) {
    return role.includes("source")
      ? draw("circle", { class: role, cx: x, cy: y, r: 3 })
      : draw("path", { class: `spot ${role}`, d: `M${x} ${y}m-4.2 0l4.2 -4.2l4.2 4.2l-4.2 4.2z` });
  }

  point(layer) {
    this.layer = layer;
    this.mark();
    const { label, component, block } = this.layers[layer] ?? {};
    const where = block === null || block === undefined ? component : `${component}, block ${block}`;
    this.readout.replaceChildren(
      make("b", {}, layer === null ? "Hover over a layer or use the arrow keys" : `${label} (${where})`),
      ...this.named.map(({ name, role, values }) => this.key(name, role, layer === null ? "" : decimals(values[layer]))),
      this.othersKey(layer),
    );
  }

  key(name, role, value) {
    return make(
      "span",
      { class: `key ${role}` },
      make("span", { class: "name", title: name }, name),
      make("span", { class: "value" }, value),
    );
  }

  othersKey(layer) {
    if (!this.others) return "";
    const { number, low, high } = this.others;
    const ends = layer === null ? [] : [...new Set([decimals(low[layer]), decimals(high[layer])])];
    return this.key(number === 1 ? "the other candidate" : `the ${number} others`, "others", ends.join(" to "));
  }

  mark() {
    for (const panel of this.panels) {
      if (!panel.marks) continue;
      const point = panel.points.find((each) => each.layer === this.layer);
      if (!point) {
        panel.marks.replaceChildren();
        continue;
      }
      const x = panel.x(point.x);
      const spots = this.named.map(({ role, values }) => this.spot(role, x, panel.y(values[this.layer])));
      panel.marks.replaceChildren(
        draw("line", { class: "guide", x1: x, x2: x, y1: MARGIN.top, y2: panel.bottom }), ...spots,
      );
    }
  }

  // The same values as an accessible, sortable table.
  table() {
    const heading = (text, number) =>
      make("th", { scope: "col", class: number && "number" }, make("button", { type: "button" }, text));
    const cell = (text, value, number) => make("td", { class: number && "number", "data-value": value }, text);
    const rows = this.layers.map((layer, at) =>
      make(
        "tr",
        {},
        cell(layer.label, layer.label),
        ...this.series.map(({ values }) => cell(decimals(values[at]), values[at], true)),
      ),
    );
    const head = make("tr", {}, heading("layer"), ...this.series.map(({ name }) => heading(name, true)));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    sortable(table);
    return table;
  }
}

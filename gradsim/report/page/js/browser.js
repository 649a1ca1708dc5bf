// The pair browser: selection of a query and a candidate, and the details of the pair.

class Browser {
  constructor(root) {
    this.root = root;
    const find = (selector) => root.querySelector(selector);
    this.search = find(".search input");
    this.chips = find(".chips");
    this.found = find(".found");
    this.notice = find(".notice");
    this.heading = find(".chosen-head h3");
    this.decision = find(".decision");
    this.steps = [...root.querySelectorAll(".steps button")];
    this.table = find(".layer-table .table");
    this.texts = find(".texts");
    this.allQueries = new ChoiceList(find(".queries.all"), (id) => this.chooseQuery(id));
    this.hits = new ChoiceList(find(".queries.hits"), (id) => this.chooseQuery(id));
    this.queryList = this.allQueries; // the one of the two that is shown
    this.candidateList = new ChoiceList(find(".candidates"), (id) => this.chooseCandidate(id));
    this.chart = new LayerChart(find(".by-layer"), find(".readout"), layers);
    this.filter = "all";

    this.search.addEventListener("input", () => this.list());
    this.search.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown" || !this.queryList.items.length) return;
      event.preventDefault();
      this.queryList.choose(this.queryList.items[0], true);
    });
    this.chips.addEventListener("change", (event) => {
      this.filter = event.target.value;
      this.list();
    });
    for (const button of this.steps) button.addEventListener("click", () => this.step(Number(button.dataset.step)));
  }

  // Shows a setting's queries, keeping the current query and candidate if they exist there.
  async open(setting, query = this.query, candidate = this.candidate) {
    this.opening = setting;
    this.say("");
    const pairs = await pairsOf(setting);
    if (this.opening !== setting) return; // another setting was opened in the meantime
    this.pairs = pairs;
    const filters = Object.entries(pairs.filters).filter(([name, { queries }]) => name === "all" || queries.length);
    if (!filters.some(([name]) => name === this.filter)) this.filter = "all";
    const legend = this.chips.querySelector("legend");
    this.chips.replaceChildren(legend, ...filters.map(([name, filter]) => this.chip(name, filter)));
    this.search.placeholder = pairs.texts ? "Search ids and texts" : "Search ids";
    const first = pairs.filters.wrong.queries[0] ?? pairs.filters.closest.queries[0] ?? 0;
    this.query = pairs.positions.has(query) ? query : pairs.id(first);
    this.candidate = candidate;
    this.list();
    this.showQuery();
  }

  // Reports a link target that is not on the page.
  say(text) {
    this.notice.textContent = text;
    this.notice.hidden = !text;
  }

  chip(name, { label, queries }) {
    const input = make("input", { type: "radio", name: "filter", value: name });
    input.checked = name === this.filter;
    return make("label", {}, input, make("span", {}, `${label} `, make("b", {}, queries.length.toLocaleString("en"))));
  }

  // Lists the queries of the filter. What a search finds has a list of its own, which is empty without a search.
  list() {
    const { pairs } = this;
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.listed = pairs.filters[this.filter].queries.filter((query) => pairs.matches(query, words));
    const number = this.listed.length.toLocaleString("en");
    const cut = this.listed.length > MOST_ITEMS ? `, first ${MOST_ITEMS} shown` : "";
    this.found.textContent = (this.listed.length === 1 ? "1 query" : `${number} queries`) + cut;
    this.queryList = words.length ? this.hits : this.allQueries;
    for (const list of [this.hits, this.allQueries]) {
      list.list.hidden = list !== this.queryList;
      if (list.list.hidden) list.show([]);
    }
    this.queryList.show(this.listed.slice(0, MOST_ITEMS).map((query) => this.queryItem(query)), this.query);
    this.enableSteps();
  }

  queryItem(query) {
    const { pairs } = this;
    const verdict = pairs.verdict(query);
    const margin = pairs.margin(query);
    const signs = { right: "✓", wrong: "✗", tied: "=" };
    const snippet = pairs.snippet(query);
    return make(
      "li",
      { "data-item": pairs.id(query) },
      make("span", { class: "id" }, pairs.id(query)),
      make(
        "span",
        { class: `credit ${verdict}`, title: `${verdict}; similarity of the source minus best other candidate` },
        make("span", { class: "unseen" }, `${verdict}, `),
        `${margin === null ? "" : decimals(margin, 3)} ${signs[verdict]}`,
      ),
      snippet ? make("span", { class: "snippet" }, snippet) : null,
    );
  }

  chooseQuery(id) {
    this.query = id;
    this.candidate = null;
    this.say("");
    this.showQuery();
    this.remember();
  }

  chooseCandidate(id) {
    this.candidate = id;
    this.showCandidate();
    this.remember();
  }

  step(by) {
    const place = this.listed.indexOf(this.pairs.positions.get(this.query)) + by;
    const item = this.queryList.items[place];
    if (item) this.queryList.choose(item, false);
  }

  enableSteps() {
    const place = this.listed.indexOf(this.pairs.positions.get(this.query));
    const [previous, next] = this.steps;
    previous.disabled = place <= 0;
    next.disabled = place >= this.queryList.items.length - 1;
  }

  remember() {
    const parts = [this.pairs.setting, this.query, this.candidate].filter((part) => part !== null);
    history.replaceState(null, "", `#pair=${parts.map(encodeURIComponent).join("/")}`);
  }

  showQuery() {
    const query = this.pairs.positions.get(this.query);
    this.candidates = this.pairs.candidates(query);
    // By default, choose the most similar candidate other than the source.
    if (!this.candidates.some(({ id }) => id === this.candidate)) {
      this.candidate = (this.candidates.find((each) => !each.isSource) ?? this.candidates[0]).id;
    }
    this.heading.textContent = `Query ${this.query}`;
    this.decision.textContent = this.pairs.story(query);
    const values = this.candidates.map(({ similarity }) => similarity);
    const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
    const share = (value) => (high > low ? (value - low) / (high - low) : 0);
    this.candidateList.show(this.candidates.map((each) => this.candidateItem(each, share)), this.candidate);
    this.enableSteps();
    this.showCandidate();
  }

  candidateItem({ id, place, rank, similarity, isSource }, share) {
    const [zero, end] = [share(0), share(similarity)];
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
    bar.style.setProperty("--zero", zero);
    bar.style.setProperty("--from", Math.min(zero, end));
    bar.style.setProperty("--length", Math.abs(end - zero));
    return make(
      "li",
      { "data-item": id, class: isSource && "source" },
      make("span", { class: "place" }, String(place + 1)),
      make("span", { class: "name" }, id, isSource ? make("b", {}, "source") : null),
      bar,
      make("span", { class: "value" }, decimals(similarity)),
      make("span", { class: "rank", title: "rank in the list of candidates" }, `BM25 ${rank + 1}`),
    );
  }

  showCandidate() {
    for (const item of this.candidateList.items) {
      item.classList.toggle("compared", item.dataset.item === this.candidate);
    }
    const role = ({ id, isSource }) =>
      [isSource && "source", id === this.candidate && "compared"].filter(Boolean).join(" ");
    this.chart.show(
      this.candidates.map((each) => ({
        name: each.isSource ? `${each.id} (source)` : each.id,
        role: role(each),
        values: this.pairs.byLayer(each.pair),
      })),
    );
    this.table.replaceChildren(this.chart.table());
    const chosen = this.candidates.find(({ id }) => id === this.candidate);
    this.texts.replaceChildren(
      this.article("Query", this.query, this.pairs.texts),
      this.article(chosen.isSource ? "Candidate, the true source" : "Candidate", chosen.id, this.pairs.originals),
    );
  }

  article(title, id, texts) {
    const messages = texts?.[id];
    const body = messages
      ? messages.flatMap(([role, content]) => [
          make("p", { class: "role" }, role === "user" ? "prompt" : role === "assistant" ? "answer" : role),
          make("div", { class: "content" }, content),
        ])
      : [make("p", { class: "note" }, "This text is not available.")];
    return make(
      "article",
      {},
      make("h5", {}, `${title} `, make("code", {}, id)),
      make("div", { class: "body", tabindex: "0", role: "region", "aria-label": `${title} ${id}` }, ...body),
    );
  }
}

const browserRoot = document.getElementById("browser");

const isLink = () => location.hash.startsWith("#pair=");

// Parses #pair=SETTING/QUERY/CANDIDATE; returns null for any other address.
function linkedPair() {
  const found = /^#pair=([^/]+)\/([^/]+)(?:\/([^/]+))?$/.exec(location.hash);
  try {
    return found?.slice(1).map((part) => (part === undefined ? null : decodeURIComponent(part))) ?? null;
  } catch {
    return null; // malformed percent-encoding
  }
}

if (browserRoot) {
  const browser = new Browser(browserRoot);
  const everySetting = [...document.querySelectorAll("script[data-pairs]")].map((script) => script.dataset.pairs);

  const openLinked = async () => {
    if (!isLink()) return false;
    const [setting, query, candidate] = linkedPair() ?? [];
    const isKnown = everySetting.includes(setting);
    const shown = isKnown ? setting : (browser.opening ?? shownSetting ?? everySetting[0]);
    const opened = isKnown ? browser.open(setting, query, candidate) : browser.open(shown);
    showSetting(shown);
    await opened;
    if (!isKnown) browser.say("The link does not match any query on this page.");
    else if (browser.query !== query) browser.say(`Query ${query} is not on this page.`);
    document.getElementById("queries").scrollIntoView({ behavior: "instant" });
    return true;
  };
  settingListeners.push(async (name) => {
    if (browser.opening === name || !everySetting.includes(name)) return;
    await browser.open(name);
    if (isLink() && browser.pairs.setting === name) browser.remember();
  });
  window.addEventListener("hashchange", openLinked);
  if (!(await openLinked())) await browser.open(shownSetting ?? everySetting[0]);
}

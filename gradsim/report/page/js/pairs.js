// Queries of a setting and their candidates.

const STEPS = 32767;

class Pairs {
  // `index`: as written by gradsim.report.browser. `similarities`: one value per pair and layer, grouped by pair.
  constructor(setting, index, similarities, layers, texts, originals) {
    Object.assign(this, { setting, layers, texts, originals });
    this.label = index.label;
    this.index = index;
    this.similarities = similarities;
    this.positions = new Map(index.queries.map((id, position) => [id, position]));
    const by = (values) => (a, b) => values[a] - values[b];
    const every = index.queries.map((_, position) => position);
    const margin = index.margin.map((value) => value ?? Infinity);
    const divergence = index.divergence;
    this.filters = {
      all: { label: "All", queries: every },
      wrong: { label: "Wrong", queries: every.filter((q) => index.credit[q] < 1).sort(by(margin)) },
      closest: {
        label: "Closest",
        queries: every.filter((q) => index.margin[q] !== null).sort(by(margin.map(Math.abs))).slice(0, index.closest),
      },
      forced: { label: "Forced", queries: every.filter((q) => index.forced[q]) },
      divergent: {
        label: "Most divergent",
        queries: divergence ? [...every].sort(by(divergence.rank)).slice(0, divergence.most) : [],
      },
    };
  }

  id(query) {
    return this.index.queries[query];
  }

  verdict(query) {
    const credit = this.index.credit[query];
    return credit === 1 ? "right" : credit === 0 ? "wrong" : "tied";
  }

  margin(query) {
    return this.index.margin[query];
  }

  // Candidates of a query, most similar first.
  candidates(query) {
    const { starts, candidate, originals, place: places, rank, similarity } = this.index;
    const end = query + 1 < starts.length ? starts[query + 1] : candidate.length;
    return Array.from({ length: end - starts[query] }, (_, place) => {
      const pair = starts[query] + place;
      const id = originals[candidate[pair]];
      return { pair, id, place: places[pair], rank: rank[pair], similarity: similarity[pair], isSource: id === this.id(query) };
    });
  }

  byLayer(pair) {
    const number = this.layers.length;
    return Array.from(this.similarities.subarray(pair * number, (pair + 1) * number), (value) => value / STEPS);
  }

  // Beginning of the query's text, or an empty string.
  snippet(query) {
    return this.texts?.[this.id(query)]?.[0]?.[1].slice(0, 120) ?? "";
  }

  matches(query, words) {
    const messages = this.texts?.[this.id(query)] ?? [];
    const text = [this.id(query), ...messages.map((message) => message[1])].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // Description of the decision.
  story(query) {
    const candidates = this.candidates(query);
    const source = candidates.find((each) => each.isSource);
    const margin = this.margin(query);
    const said = [];
    if (margin === null) said.push("Its source is the only candidate.");
    else if (this.verdict(query) === "right") {
      said.push(`Right: the source is the most similar candidate, by a margin of ${decimals(margin)}.`);
    } else if (this.verdict(query) === "tied") said.push("Tied: the source shares the highest similarity with another candidate.");
    else {
      const { chosen, source: own, other } = this.index;
      said.push(
        `Wrong: ${chosen[query]} is more similar (${decimals(other[query])}) than the source ` +
          `(${decimals(own[query])}), by ${decimals(-margin)}.`,
      );
    }
    // Imported similarities may differ from those computed from the inner products.
    if (this.verdict(query) !== "tied" && this.index.chosen[query] !== candidates[0].id) {
      said.push("The list is sorted by the inner products, which disagree with the similarities behind the decision.");
    }
    if (this.index.forced[query]) said.push("BM25 did not list the source; it was forced.");
    else if (this.index.forced[query] === null) said.push(`The source has rank ${source.rank + 1} in the list; whether it was forced is not recorded.`);
    else said.push(`BM25 ranks the source ${ordinal(source.rank + 1)}.`);
    const divergence = this.index.divergence;
    if (divergence) {
      said.push(
        `The similarities in ${divergence.layer}, the best single layer, have a cosine of ` +
          `${decimals(divergence.cosine[query], 3)} with those of the full gradient: ` +
          `${ordinal(divergence.rank[query] + 1)} in divergence of ${this.index.total.toLocaleString("en")} queries.`,
      );
    }
    return said.join(" ");
  }
}

function ordinal(number) {
  const teen = number % 100 > 10 && number % 100 < 14;
  return number + (teen ? "th" : (["th", "st", "nd", "rd"][number % 10] ?? "th"));
}

const layersScript = document.getElementById("layers-data");
const layers = layersScript ? JSON.parse(layersScript.textContent) : [];
const known = new Map();
let originalTexts = null;

// Returns the pairs of a setting, unpacked on first use.
function pairsOf(setting) {
  originalTexts ??= unpackedJson(block("texts", "originals"));
  if (!known.has(setting)) {
    const read = async () => {
      const index = JSON.parse(block("pairs", setting).textContent);
      const [similarities, texts, originals] = await Promise.all([
        unpacked(block("similarities", setting)),
        unpackedJson(block("texts", setting)),
        originalTexts,
      ]);
      return new Pairs(setting, index, new Int16Array(similarities), layers, texts, originals);
    };
    known.set(setting, read());
  }
  return known.get(setting);
}

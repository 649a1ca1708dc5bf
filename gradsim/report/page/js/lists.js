// A list with one selected item, controlled by pointer or keyboard. `data-item` holds the key of an item.

const MOST_ITEMS = 1000;

class ChoiceList {
  constructor(list, onChoose) {
    this.list = list;
    this.onChoose = onChoose;
    list.addEventListener("click", (event) => {
      const item = event.target.closest("li");
      if (item) this.choose(item, false);
    });
    list.addEventListener("keydown", (event) => this.onKey(event));
  }

  get items() {
    return [...this.list.children];
  }

  get chosen() {
    return this.list.querySelector('[aria-selected="true"]');
  }

  // Replaces all items; no item has to match the chosen key.
  show(items, chosenKey) {
    this.list.replaceChildren(...items);
    for (const item of items) {
      item.setAttribute("role", "option");
      this.mark(item, item.dataset.item === chosenKey);
    }
    // Keep one item focusable with Tab.
    if (!this.chosen && items.length) items[0].tabIndex = 0;
    this.reveal();
  }

  mark(item, isChosen) {
    item.setAttribute("aria-selected", String(isChosen));
    item.tabIndex = isChosen ? 0 : -1;
  }

  choose(item, focus) {
    for (const other of this.items) this.mark(other, other === item);
    if (focus) item.focus({ preventScroll: true });
    this.reveal();
    this.onChoose(item.dataset.item);
  }

  // Scrolls the list, never the page.
  reveal() {
    const { list, chosen } = this;
    if (!chosen || list.scrollHeight <= list.clientHeight) return;
    const [inner, outer] = [chosen.getBoundingClientRect(), list.getBoundingClientRect()];
    if (inner.top < outer.top) list.scrollTop -= outer.top - inner.top;
    else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
  }

  onKey(event) {
    if (modified(event)) return;
    const { items } = this;
    const at = items.indexOf(this.chosen ?? event.target.closest("li"));
    const last = items.length - 1;
    const places = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: last,
    };
    if (!(event.key in places) && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const place = Math.min(Math.max(places[event.key] ?? at, 0), last);
    if (place >= 0) this.choose(items[place], true);
  }
}

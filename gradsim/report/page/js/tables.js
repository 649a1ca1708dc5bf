// Sorts a table by the clicked column; a second click reverses the order.

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      const numeric = heading.classList.contains("number");
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) =>
        numeric ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b));
      const [filled, empty] = [[], []];
      for (const row of table.tBodies[0].rows) (value(row) === "" ? empty : filled).push(row);
      filled.sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
      table.tBodies[0].append(...filled, ...empty);
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    });
  });
}

document.querySelectorAll("table").forEach(sortable);

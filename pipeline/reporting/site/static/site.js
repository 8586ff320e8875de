// Tables that sort by a click on a heading: ascending, descending, as they came. Without this script they stay so.
"use strict";

const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || text === "–" ? null : text;
};

const compare = (one, other) => {
  if (one === null || other === null) return (one === null) - (other === null);
  const difference = Number(one) - Number(other);
  return Number.isNaN(difference) ? one.localeCompare(other, "en", { numeric: true }) : difference;
};

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const label = head.querySelector("span");
    if (!label) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label.textContent;
    label.replaceWith(button);
    button.addEventListener("click", () => {
      const order = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      for (const other of heads) other.removeAttribute("aria-sort");
      const sorted = [...rows];
      if (order !== null) {
        head.setAttribute("aria-sort", order ?? "ascending");
        const sign = order === "descending" ? -1 : 1;
        const empty = (row) => value(row, column) === null;
        // What has no value stays below, whichever way.
        sorted.sort((one, other) => (empty(one) || empty(other) ? 1 : sign)
          * compare(value(one, column), value(other, column)));
      }
      body.append(...sorted);
    });
  });
}

// A box is a stop of the tab key only while there is something to scroll to.
const boxes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".wide")) boxes.observe(box);

// Whoever comes for a run sees at once what it was made with.
const unfold = () => {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  row?.querySelector("details")?.setAttribute("open", "");
};
window.addEventListener("hashchange", unfold);
unfold();

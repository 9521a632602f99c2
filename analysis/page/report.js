"use strict";
// Sort by a click on a heading: figures by their value (450.5K, +0.93 [...], 1.8 min), the rest as text.
const UNITS = { K: 1e3, M: 1e6, G: 1e9, B: 1e9, min: 60, h: 3600 };
function figure(text) {
  const found = text.replaceAll(",", "").match(/^([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*([A-Za-z]*)/);
  return found ? parseFloat(found[1]) * (UNITS[found[2]] ?? 1) : null;
}
function compare(a, b) {
  const [x, y] = [figure(a), figure(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x === null ? 1 : -1; // what is not known comes last
  return a.localeCompare(b);
}
for (const table of document.querySelectorAll("div.table > table:not(.plain)")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(a.cells[column].textContent, b.cells[column].textContent) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
// A link to a record opens it.
function open() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus();
  }
}
addEventListener("hashchange", open);
open();

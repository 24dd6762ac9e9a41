"use strict";
(() => {
  document.body.classList.add("live");
  const table = document.getElementById("tables");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const only = document.getElementById("only");
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.dataset.words;
      const fits = words.every((word) => text.includes(word)) && (!only.checked || row.dataset.state !== "current");
      row.hidden = !fits;
      if (fits) count += 1;
    }
    shown.textContent = count === rows.length ? `${rows.length} tables` : `${count} of ${rows.length} tables`;
  };
  filter.addEventListener("input", show);
  only.addEventListener("change", show);
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const sign = descending ? -1 : 1;
      rows.sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        const [x, y] = [Number(a), Number(b)];
        const numeric = a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y);
        return sign * (numeric ? x - y : a.localeCompare(b));
      });
      body.append(...rows);
    });
  });
  show();
})();

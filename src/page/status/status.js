"use strict";
(() => {
  const page = document.body;
  page.classList.add("live");
  const title = document.title;
  const parts = new Map([...document.querySelectorAll(".page")].map((part) => [part.id, part]));
  let shownPart = null;
  const place = () => {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return "";
    }
  };
  const route = () => {
    const before = shownPart;
    shownPart = parts.get(place()) ?? null;
    page.classList.toggle("at-table", shownPart !== null);
    for (const part of parts.values()) part.classList.toggle("shown", part === shownPart);
    document.title = shownPart ? `${shownPart.id} - ${title}` : title;
    if (shownPart) {
      window.scrollTo(0, 0);
      shownPart.querySelector("h2").focus();
    } else if (before) {
      [...document.querySelectorAll("#list a")].find((link) => link.hash.slice(1) === before.id)?.focus();
    }
  };
  window.addEventListener("hashchange", route);
  route();

  const table = document.getElementById("list");
  const filter = document.getElementById("filter");
  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shownPart) location.hash = "overview";
    if (event.key === "/" && event.target !== filter && filter && !shownPart) {
      event.preventDefault();
      filter.focus();
    }
  });
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const shown = document.getElementById("shown");
  const only = document.getElementById("only");
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.dataset.words.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!only.checked || row.dataset.state !== "current");
      row.hidden = !fits;
      if (fits) count += 1;
    }
    shown.textContent = count === rows.length ? `${rows.length} tables` : `${count} of ${rows.length} tables`;
  };
  filter.addEventListener("input", show);
  filter.addEventListener("keydown", (event) => {
    const first = [...body.rows].find((row) => !row.hidden);
    if (event.key === "Enter" && filter.value && first) location.hash = first.querySelector("a").getAttribute("href");
  });
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

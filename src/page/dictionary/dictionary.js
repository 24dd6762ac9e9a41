"use strict";
(() => {
  document.body.classList.add("live");
  const [search, found] = ["search", "found"].map((id) => document.getElementById(id));
  const lower = (element) => element.textContent.toLowerCase();
  const tables = [...document.querySelectorAll("article")].map((article) => ({
    article,
    link: document.querySelector(`#list a[href="#${CSS.escape(article.id)}"]`),
    head: lower(article.querySelector(".head")),
    text: lower(article),
    rows: [...article.querySelectorAll("tbody tr")].map((row) => ({ row, text: lower(row) })),
  }));

  // A table matches if it contains all words. Rows that contain those which its name and description lack are marked.
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { article, link, head, text, rows } of tables) {
      const matches = words.every((word) => text.includes(word));
      const rest = words.filter((word) => !head.includes(word));
      for (const each of rows) {
        each.row.classList.toggle("hit", matches && rest.length > 0 && rest.every((word) => each.text.includes(word)));
      }
      article.hidden = !matches;
      link.parentElement.hidden = !matches;
      if (matches) count += 1;
    }
    document.body.classList.toggle("filtered", words.length > 0);
    found.textContent = words.length ? `${count} of ${tables.length} tables match` : `${tables.length} tables`;
  };

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    // The table of that name, else one whose name contains it, else the first one.
    const [text, shown] = [search.value.trim().toLowerCase(), tables.filter(({ article }) => !article.hidden)];
    const name = ({ article }) => article.id.toLowerCase();
    const first = shown.find((each) => [name(each), name(each).split(".").pop()].includes(text)) ?? shown.find((each) => name(each).includes(text)) ?? shown[0];
    if (event.key !== "Enter" || !first) return;
    location.hash = first.article.id;
    (first.article.querySelector("tr.hit") ?? first.article).scrollIntoView();
    first.article.querySelector("h2").focus({ preventScroll: true });
  });
  window.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== search) {
      event.preventDefault();
      search.focus();
    }
    if (event.key === "Escape" && search.value) {
      search.value = "";
      filter();
    }
  });
  // A link to a table that the search has hidden shows all tables.
  window.addEventListener("hashchange", () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target?.closest("[hidden], .filtered #diagram")) return;
    search.value = "";
    filter();
    target.scrollIntoView();
  });
  filter();
})();

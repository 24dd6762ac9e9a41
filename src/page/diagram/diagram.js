"use strict";
(() => {
  const body = document.body;
  body.classList.add("live");
  const byId = (id) => document.getElementById(id);
  const [picture, stage, panel, search, found] = ["picture", "stage", "panel", "search", "found"].map(byId);
  const boxes = [...picture.querySelectorAll(".table")];
  const lines = [...picture.querySelectorAll(".lines .line")];
  const articles = [...document.querySelectorAll("#tables article")];
  const links = [...document.querySelectorAll("#list a")];
  const whole = picture.viewBox.baseVal;
  const home = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
  let view = { ...home };

  // The visible part of the picture. Limited to the picture and to a maximum zoom.
  const look = (next) => {
    const width = Math.min(Math.max(next.width, 300), home.width * 1.5);
    const height = width * (next.height / next.width);
    const middle = { x: next.x + next.width / 2, y: next.y + next.height / 2 };
    view = { x: middle.x - width / 2, y: middle.y - height / 2, width, height };
    picture.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  };
  const place = (event) => {
    const matrix = picture.getScreenCTM().inverse();
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
  };
  const zoom = (factor, at) => {
    const point = at ?? { x: view.x + view.width / 2, y: view.y + view.height / 2 };
    const width = Math.min(Math.max(view.width * factor, 300), home.width * 1.5);
    const real = width / view.width;
    look({ x: point.x - (point.x - view.x) * real, y: point.y - (point.y - view.y) * real, width, height: view.height * real });
  };
  const show = (elements) => {
    const room = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
    for (const element of elements) {
      const box = element.getBBox();
      const move = element.transform.baseVal.consolidate().matrix;
      room.left = Math.min(room.left, move.e);
      room.top = Math.min(room.top, move.f);
      room.right = Math.max(room.right, move.e + box.width);
      room.bottom = Math.max(room.bottom, move.f + box.height);
    }
    const pad = 40;
    look({ x: room.left - pad, y: room.top - pad, width: room.right - room.left + 2 * pad, height: room.bottom - room.top + 2 * pad });
  };

  const choose = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    const article = articles.find((each) => each.id === name);
    for (const link of links) link.removeAttribute("aria-current");
    for (const each of [...boxes, ...lines]) each.classList.remove("near", "here");
    picture.classList.toggle("chosen", Boolean(article));
    panel.hidden = !article;
    panel.replaceChildren();
    if (!article) return;
    const table = article.dataset.table;
    const near = new Set([table]);
    for (const line of lines) {
      const { from, to } = line.dataset;
      if (from === table || to === table) {
        line.classList.add("near");
        near.add(from).add(to);
      }
    }
    for (const box of boxes) {
      box.classList.toggle("near", near.has(box.dataset.table));
      box.classList.toggle("here", box.dataset.table === table);
    }
    const link = links[Number(table)];
    link.setAttribute("aria-current", "true");
    link.scrollIntoView({ block: "nearest" });
    const close = document.createElement("button");
    close.className = "close";
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => { location.hash = ""; });
    const copy = article.cloneNode(true);
    copy.removeAttribute("id");
    panel.append(close, copy);
    panel.scrollTop = 0;
    // All relations of the table if text stays readable; otherwise the table in the centre.
    show(boxes.filter((box) => near.has(box.dataset.table)));
    if (view.width > 1500 || view.height > 1100) {
      show(boxes.filter((box) => box.dataset.table === table));
      zoom(1100 / view.width);
    }
  };

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    links.forEach((link, number) => {
      const text = articles[number].textContent.toLowerCase();
      const name = articles[number].id.toLowerCase();
      const fits = words.every((word) => name.includes(word)) || (words.length > 0 && words.every((word) => text.includes(word)));
      link.parentElement.hidden = !fits;
      if (fits) count += 1;
    });
    found.textContent = words.length ? `${count} of ${links.length} tables match` : `${links.length} tables`;
  };

  let dragged = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button === 0) dragged = { x: event.clientX, y: event.clientY, view: { ...view }, far: false };
  });
  window.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const scale = picture.getScreenCTM().a;
    const [x, y] = [(event.clientX - dragged.x) / scale, (event.clientY - dragged.y) / scale];
    if (Math.hypot(event.clientX - dragged.x, event.clientY - dragged.y) > 4) dragged.far = true;
    if (dragged.far) {
      stage.classList.add("dragged");
      look({ ...dragged.view, x: dragged.view.x - x, y: dragged.view.y - y });
    }
  });
  window.addEventListener("pointerup", () => {
    stage.classList.remove("dragged");
    if (dragged?.far) window.addEventListener("click", (event) => event.preventDefault(), { capture: true, once: true });
    setTimeout(() => { dragged = null; });
  });
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(1.0015 ** event.deltaY, place(event));
  }, { passive: false });
  byId("in").addEventListener("click", () => zoom(0.75));
  byId("out").addEventListener("click", () => zoom(1 / 0.75));
  byId("fit").addEventListener("click", () => look(home));
  byId("all").addEventListener("change", (event) => picture.classList.toggle("every", event.target.checked));
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    // The table of that name, else one whose name contains it, else one with such a column.
    const [text, shown] = [search.value.trim().toLowerCase(), links.filter((link) => !link.parentElement.hidden)];
    const name = (link) => articles[links.indexOf(link)].id.toLowerCase();
    const first = shown.find((link) => [name(link), name(link).split(".").pop()].includes(text)) ?? shown.find((link) => name(link).includes(text)) ?? shown[0];
    if (event.key === "Enter" && first) location.hash = first.getAttribute("href");
  });
  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape") location.hash = "";
    if (event.target === search) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    if (event.key === "+") zoom(0.75);
    if (event.key === "-") zoom(1 / 0.75);
    if (event.key === "0") look(home);
  });
  window.addEventListener("hashchange", choose);
  filter();
  choose();
})();

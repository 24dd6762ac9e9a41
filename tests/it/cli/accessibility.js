// Run in a page by the tests. Returns what does not fit the window, and text with too little contrast.
(() => {
  const shownText = (element) => [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim() !== "");
  const isShown = (element) =>
    element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && !element.closest(".hidden-label, .skip:not(:focus), title, script, style");
  const name = (element) => {
    const text = element.textContent.trim().slice(0, 30);
    return `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""}.${element.getAttribute("class") ?? ""} "${text}"`;
  };

  // Colours, as red, green, blue, alpha.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (front, back) => [0, 1, 2].map((channel) => front[channel] * front[3] + back[channel] * (1 - front[3])).concat(1);
  const luminance = ([red, green, blue]) => {
    const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  // What is behind an element: backgrounds of its ancestors and, in pictures, the shapes that were drawn before it.
  const background = (element) => {
    const layers = [];
    const box = element.getBoundingClientRect();
    for (let at = element; at; at = at.parentElement) {
      if (at.ownerSVGElement) {
        const shapes = [...at.parentElement.children].slice(0, [...at.parentElement.children].indexOf(at)).reverse();
        for (const shape of shapes.filter((shape) => ["rect", "path", "circle"].includes(shape.tagName))) {
          const area = shape.getBoundingClientRect();
          const covers = area.left <= box.left + 1 && area.right >= box.right - 1 && area.top <= box.top + 1 && area.bottom >= box.bottom - 1;
          if (covers && !shape.closest("defs")) layers.push(colour(getComputedStyle(shape).fill));
        }
      }
      layers.push(colour(getComputedStyle(at).backgroundColor));
    }
    const ground = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((back, front) => over(front, back), ground);
  };
  const faint = [];
  const check = (element, text, what) => {
    const back = background(element);
    const ratio = contrast(over(colour(text), back), back);
    if (ratio < 4.5) faint.push(`${what} ${ratio.toFixed(2)}: ${name(element)}`);
  };

  const cut = [];
  const scrolls = (element) => {
    for (let at = element.parentElement; at; at = at.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(at).overflowX) && at.scrollWidth > at.clientWidth) return true;
    }
    return false;
  };
  for (const element of document.querySelectorAll("body, body *")) {
    if (!isShown(element)) continue;
    const style = getComputedStyle(element);
    if (shownText(element).length > 0) check(element, element.ownerSVGElement ? style.fill : style.color, "text");
    for (const pseudo of ["::before", "::after"]) {
      const added = getComputedStyle(element, pseudo);
      if (!["none", "normal", '""'].includes(added.content)) check(element, added.color, pseudo);
    }
    if (element.placeholder) check(element, getComputedStyle(element, "::placeholder").color, "placeholder");
    const isPicture = element.ownerSVGElement !== null && element.ownerSVGElement !== undefined;
    const { left, right } = element.getBoundingClientRect();
    if (!isPicture && shownText(element).length > 0 && (right > innerWidth + 0.5 || left < -0.5) && !scrolls(element)) {
      cut.push(`${name(element)} from ${left.toFixed(0)} to ${right.toFixed(0)}`);
    }
    // Content of a box that does not scroll.
    const hides = ["hidden", "clip"].includes(style.overflowX) && element.scrollWidth > element.clientWidth + 1;
    if (hides && !element.querySelector(":scope > svg") && element !== document.body) cut.push(`${name(element)} hides its content`);
    const isScroller = ["auto", "scroll"].includes(style.overflowX) && element.scrollWidth > element.clientWidth + 1;
    if (isScroller && element.tabIndex < 0 && !element.querySelector("a, button, input, [tabindex='0']")) {
      cut.push(`${name(element)} cannot be scrolled by keys`);
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) cut.push(`the page is ${document.documentElement.scrollWidth} wide`);
  return { cut, faint: [...new Set(faint)] };
})();

// Run in a page by the tests. Returns what does not fit the window, and text with too little contrast.
(() => {
  const shownText = (element) => [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim() !== "");
  const isShown = (element) =>
    element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && !element.closest(".hidden-label, .skip:not(:focus), title, script, style");
  const name = (element) => {
    const text = element.textContent.trim().slice(0, 30);
    return `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""}.${element.getAttribute("class") ?? ""} "${text}"`;
  };

  // Colours, as red, green, blue, alpha. Each is drawn once, for that is slow.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const cached = (make) => {
    const known = new Map();
    return (key) => {
      if (!known.has(key)) known.set(key, make(key));
      return known.get(key);
    };
  };
  const colour = cached((text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  });
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
  const fill = cached((shape) => colour(getComputedStyle(shape).fill));
  const area = cached((shape) => shape.getBoundingClientRect());
  const shapes = cached((parent) => [...parent.children].filter((shape) => ["rect", "path", "circle"].includes(shape.tagName) && !shape.closest("defs")));
  const ground = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
  const page = cached((element) => (element ? over(colour(getComputedStyle(element).backgroundColor), page(element.parentElement)) : ground));
  const background = (element) => {
    if (!element.ownerSVGElement) return page(element);
    const layers = [];
    const box = element.getBoundingClientRect();
    let at = element;
    for (; at.ownerSVGElement; at = at.parentElement) {
      const before = (shape) => at.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING;
      for (const shape of shapes(at.parentElement).filter(before).reverse()) {
        const { left, right, top, bottom } = area(shape);
        if (left <= box.left + 1 && right >= box.right - 1 && top <= box.top + 1 && bottom >= box.bottom - 1) layers.push(fill(shape));
      }
    }
    return layers.reverse().reduce((back, front) => over(front, back), page(at));
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

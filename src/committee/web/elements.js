/* Elements from values. Text is always text: names from data are never read as HTML. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});

  page.find = (id) => document.getElementById(id);

  /* make("p", {class: "small", onclick: f}, "text", element, ...) */
  page.make = (tag, properties = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((each) => each !== null && each !== undefined && each !== false));
    return made;
  };

  page.percent = (value, digits = 2) => `${(100 * value).toFixed(digits)}\u00a0%`;
  page.count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  page.percentShort = (value) =>
    value > 0.9995 && value < 1 ? ">99.9\u00a0%" : value < 0.0005 && value > 0 ? "<0.1\u00a0%" : page.percent(value, 1);

  /* A bar: its length is set by the script, since the page's policy forbids style attributes. */
  page.bar = (value, kind = "") => {
    const fill = page.make("i", { class: kind });
    fill.style.width = `${Math.max(0.5, 100 * value)}%`;
    return page.make("span", { class: "bar", "aria-hidden": "true" }, fill);
  };
})();

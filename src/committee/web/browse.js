/* What a run's record tells: how often it is right, which classes it mixes up, its errors, samples, members. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});
  const { make, percent, count } = page;
  const FIRST = 24;
  const MATRIX = 30; // classes up to which a matrix can be read
  const PAIRS = 16; // of classes that are mixed up, where it cannot
  const JUDGED = {
    test: "images that it had not learnt from",
    "out-of-fold": "training images, each judged by the members that had not learnt from it,",
  };

  const tile = (error) =>
    make(
      "li",
      { class: "tile" },
      make("img", { src: error.image, alt: `${error.where}: a ${error.true}`, class: "pixels" }),
      make("span", { class: "wrong" }, `called ${error.predicted}, ${percent(error.probability, 0)}`),
      make("span", {}, `really ${error.true}`),
    );

  function headline(run) {
    const [low, high] = run.interval;
    return make(
      "div",
      { class: "headline" },
      make("p", { class: "big" }, percent(run.accuracy)),
      make(
        "p",
        { class: "what" },
        `of ${run.images.toLocaleString("en")} ${JUDGED[run.of] || "images"} were classified correctly. So many images tell that it is right for ${percent(low)} to ${percent(high)} of all images like them (95\u00a0% interval).`,
      ),
    );
  }

  function matrix(run, choose) {
    const { classes, confusion } = run;
    const row = (counts, t) => {
      const total = counts.reduce((a, b) => a + b, 0) || 1;
      const cells = counts.map((n, p) => {
        if (!n) return make("td", {});
        if (t === p) return make("td", { class: "right" }, String(n));
        const strength = Math.min(4, Math.ceil((40 * n) / total));
        const name = `${count(n, "image")} of ${classes[t]} called ${classes[p]}: show`;
        return make("td", {}, make("button", { type: "button", class: `wrong w${strength}`, "aria-label": name, onclick: () => choose(t, p) }, String(n)));
      });
      return make("tr", {}, make("th", { scope: "row" }, classes[t]), ...cells);
    };
    const head = make("tr", {}, make("td", {}), ...classes.map((name) => make("th", { scope: "col" }, name)));
    return make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion matrix" },
      make("table", { class: "matrix" }, make("thead", {}, head), make("tbody", {}, ...confusion.map(row))),
    );
  }

  /* The classes that are mixed up most often, most often first. */
  function pairs(run, choose) {
    const found = run.confusion.flatMap((counts, t) => counts.map((n, p) => [n, t, p])).filter(([n, t, p]) => n && t !== p);
    const shown = found.sort((a, b) => b[0] - a[0]).slice(0, PAIRS);
    return make(
      "ul",
      { class: "pairs" },
      ...shown.map(([n, t, p]) =>
        make("li", {}, make("button", { type: "button", onclick: () => choose(t, p) }, `${run.classes[t]} called ${run.classes[p]}: ${n.toLocaleString("en")}`)),
      ),
    );
  }

  function membersTable(run) {
    const rows = run.members.map((each, i) =>
      make("tr", {}, make("th", { scope: "row" }, `member ${i + 1}`), make("td", {}, percent(each.accuracy))),
    );
    rows.push(make("tr", { class: "all" }, make("th", { scope: "row" }, "together"), make("td", {}, percent(run.accuracy))));
    return make("table", { class: "list" }, make("tbody", {}, ...rows));
  }

  /* Whether the committee is better than its members; out of fold, each is judged on images of its own. */
  function together(run) {
    const all = run.members.length;
    if (all < 2) return "";
    if (run.of !== "test")
      return "Each was judged on the images that it had not learnt from, which differ from member to member; so these figures compare only roughly.";
    const worse = run.members.filter((each) => each.accuracy < run.accuracy).length;
    return `On the same test images, ${worse === all ? `each of the ${all}` : worse ? `${worse} of the ${all}` : "none of them"} alone ${worse === 1 || worse === all || !worse ? "was" : "were"} right less often than all together.`;
  }

  page.browseShown = (run) => {
    if (!run) return [make("p", {}, "Only the exported model is served, without the run that made it. Serve the run's folder to browse its errors, samples and members.")];
    const gallery = make("ul", { class: "gallery" });
    const heading = make("h3", { tabindex: "-1" });
    const remark = make("p", { class: "small" });
    const all = make("button", { type: "button", hidden: true, onclick: () => show(null) }, "Show all errors again");
    function show(cell) {
      const found = cell ? run.errors.filter((each) => each.true === run.classes[cell[0]] && each.predicted === run.classes[cell[1]]) : run.errors;
      heading.textContent = cell ? `${run.classes[cell[0]]} called ${run.classes[cell[1]]}` : "The most confident errors";
      gallery.replaceChildren(...found.slice(0, FIRST).map(tile));
      remark.textContent = found.length ? "" : "The run's folder holds no picture of these errors.";
      all.hidden = !cell;
      if (cell) heading.focus();
    }
    show(null);
    const facts = Object.entries(run.facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    const readable = run.classes.length <= MATRIX;
    const table = (readable ? matrix : pairs)(run, (t, p) => show([t, p]));
    const samples = run.samples.map((each) =>
      make("li", {}, make("span", { class: "name", title: each.label }, each.label), make("span", { class: "row" }, ...each.images.map((uri) => make("img", { src: uri, alt: "", class: "pixels" })))),
    );
    return [
      headline(run),
      make("div", { class: "pair" },
        make("section", {},
          make("h2", {}, "What it mixes up"),
          make("p", { class: "small" }, readable ? "Rows: what an image really is. Columns: what the committee said. Grey is right; choose an orange number to see these errors." : `The most frequent errors; choose one to see its images. A table of all ${run.classes.length} classes is in the report.`),
          table),
        make("section", {}, make("h2", {}, "Its errors"), heading, remark, gallery, all)),
      samples.length ? make("section", {}, make("h2", {}, "What it learnt from"), make("ul", { class: run.classes.some((name) => name.length > 3) ? "samples words" : "samples" }, ...samples)) : null,
      make("div", { class: "pair" },
        make("section", {}, make("h2", {}, "Its members"), make("p", { class: "small" }, "Each learnt for itself. " + together(run)), membersTable(run)),
        make("section", {}, make("h2", {}, "Data and recipe"), make("dl", { class: "facts" }, ...facts))),
    ].filter(Boolean);
  };
})();

/* An answer of the committee -> what a person reads. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});
  const { make, bar, percent, percentShort } = page;
  const SHOWN = 5;

  /* "3 or 5"; of more than SHOWN, the first ones and how many others. */
  function listed(names) {
    if (names.length > SHOWN) return `${names.slice(0, SHOWN - 1).join(", ")} or one of ${names.length - SHOWN + 1} others`;
    return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names[names.length - 1]}`;
  }

  const UNCERTAIN = 0.6; // below it, the second class is named, where neither sets nor a precision were asked for
  const wanted = (share) => `${(100 * share).toFixed(1).replace(/\.0$/, "")}\u00a0%`;

  /* How sure the committee is, in words: [sentence, whether it is a warning]. */
  function verdict(answer, model) {
    if (answer.unlike)
      return [`This does not look like what I know${answer.why ? `: ${answer.why}` : ""}. Do not rely on my answer.`, true];
    const [, second] = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
    const unsure = answer.abstain ? "I am not sure, and would rather not answer" : "I am not sure";
    if (answer.set && answer.set.length > 1)
      return [`${unsure}: ${listed(answer.set)}. Over many images, what I name should include the right one ${wanted(model.coverage)} of the time.`, true];
    if (answer.abstain) return [`${unsure}. Where I do answer, I should be right ${wanted(model.precision)} of the time.`, true];
    const promises = answer.set || model.precision !== null;
    if (!promises && second && answer.probability < UNCERTAIN)
      return [`I am less than ${percent(UNCERTAIN, 0)} certain: it may also be ${second[0]}.`, true];
    return [`I am ${certain(answer.probability)} certain.`, false];
  }
  const certain = (value) => (value > 0.9995 ? "more than 99.9\u00a0%" : percent(value, 1));

  function agreement(answer) {
    const others = answer.members.filter((each) => each.label !== answer.label).length;
    const all = answer.members.length;
    if (all === 1) return "One member answers alone.";
    if (!others) return `All ${all} members agree.`;
    return `${others} of ${all} members ${others === 1 ? "says" : "say"} something else.`;
  }

  function probabilities(answer) {
    const rows = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
    const row = ([label, value], i) =>
      make("li", {}, make("span", { class: "name", title: label }, label), bar(value, i ? "" : "first"), make("span", { class: "value" }, percentShort(value)));
    const list = make("ul", { class: "bars" }, ...rows.slice(0, SHOWN).map(row));
    if (rows.length <= SHOWN) return [list];
    const rest = make("ul", { class: "bars" }, ...rows.slice(SHOWN).map((each) => row(each, 1)));
    return [list, make("details", { id: "more" }, make("summary", {}, `${rows.length - SHOWN} more`), rest)];
  }

  function members(answer) {
    const chips = answer.members.map((each, i) =>
      make(
        "li",
        { class: each.label === answer.label ? "" : "other" },
        make("b", {}, each.label),
        bar(each.probability, each.label === answer.label ? "first" : "warn"),
        make("span", { class: "unseen" }, `, member ${i + 1}, ${percentShort(each.probability)}`),
      ),
    );
    return make("ul", { class: "members", "aria-label": "Each member's vote" }, ...chips);
  }

  function seen(answer) {
    if (!answer.pixels) return null;
    const how = answer.prepared
      ? "Found on your picture, and brought to the size, place and stroke of the images it learnt from."
      : "Your picture, at the size of the images it learnt from.";
    return make(
      "figure",
      { class: "seen" },
      make("img", { src: answer.pixels, alt: "The pixels that the committee sees", class: "pixels" }),
      make("figcaption", {}, make("b", {}, "What it sees. "), how),
    );
  }

  function nearest(answer) {
    if (!answer.nearest || !answer.nearest.length) return null;
    const images = answer.nearest.map((each) =>
      make("li", {}, make("img", { src: each.image, alt: "", class: "pixels" }), make("span", { title: each.label }, each.label)),
    );
    return make("div", {}, make("h2", { class: "label" }, "The most similar images it learnt from"), make("ul", { class: "thumbs plain" }, ...images));
  }

  function correction(answer, classes, store) {
    if (!store || !answer.pixels) return null;
    const said = make("p", { class: "small", role: "status" });
    const choice = make(
      "select",
      { id: "really", "aria-label": "What it really is" },
      make("option", { value: "" }, "choose …"),
      ...classes.map((name) => make("option", { value: name }, name)),
    );
    const send = make("button", { type: "button", id: "store" }, "Remember");
    send.addEventListener("click", async () => {
      if (!choice.value) {
        said.textContent = "Choose first what it really is.";
        choice.focus();
        return;
      }
      send.disabled = true;
      try {
        await store(choice.value);
        said.textContent = `Thank you. Stored as ${choice.value}, for whoever trains the committee next.`;
      } catch (error) {
        said.textContent = error.message;
        send.disabled = false;
      }
    });
    return make("div", { class: "correct" }, make("label", { for: "really" }, "This is really a"), choice, send, said);
  }

  /* The elements of an answer; store(label) keeps a correction, null where none are kept. */
  page.answerShown = (answer, model, store) => {
    const [sentence, warns] = verdict(answer, model);
    const head = make(
      "div",
      { class: "top" },
      make(
        "div",
        {},
        make("p", { class: "kicker" }, "It says"),
        make("p", { class: `said${answer.label.length > 3 ? " words" : ""}`, id: "label" }, answer.label),
        make("p", { class: `sure${warns ? " warn" : ""}`, id: "sure" }, sentence),
      ),
      seen(answer),
    );
    return [
      head,
      ...probabilities(answer),
      make("h2", { class: "label" }, "How the members voted"),
      make("p", { class: "small", id: "agreement" }, agreement(answer)),
      members(answer),
      nearest(answer),
      correction(answer, model.classes, store),
    ].filter(Boolean);
  };
  page.answerSpoken = (answer, model) => `${answer.label}. ${verdict(answer, model)[0]}`;
})();

/* The page: tabs, what is drawn or uploaded -> the engine -> the answer. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});
  const { engine, find, make, percent, count } = page;
  const DETAILS = ["members", "pixels", "nearest"];
  const MOST = 50; // images at a time

  let model = null;
  let run = null;
  let asked = 0; // answers to older questions are dropped
  let speaking = 0;

  page.say = (text) => {
    find("live").textContent = text;
  };
  function speakSoon(text) {
    clearTimeout(speaking);
    speaking = setTimeout(() => page.say(text), 700);
  }
  function problem(error) {
    find("problem").hidden = !error;
    find("problem").textContent = error ? error.message : "";
  }

  function show(answer, image) {
    const open = find("more") && find("more").open;
    const store = model.corrections ? (label) => engine.correct({ image, pixels: answer.pixels, label, answer: answer.label }) : null;
    find("empty").hidden = true;
    find("said").hidden = false;
    find("said").replaceChildren(...page.answerShown(answer, model, store));
    if (open && find("more")) find("more").open = true;
    speakSoon(page.answerSpoken(answer, model));
  }
  function showNothing() {
    asked += 1;
    find("said").hidden = true;
    find("empty").hidden = false;
  }

  /* An image's answer; asked again while the server says that it soon can, as long as somebody wants to know. */
  async function patiently(image, options, wanted) {
    for (;;) {
      try {
        return await engine.predict(image, { details: DETAILS, ...options });
      } catch (error) {
        if (!error.retryAfter || !wanted()) throw error;
        problem(error);
        await new Promise((done) => setTimeout(done, 1000 * error.retryAfter));
        if (!wanted()) throw error;
      }
    }
  }
  /* Shows an image's answer or why there is none, unless something else was asked meanwhile: {answer} or {error}. */
  async function ask(image, options) {
    asked += 1;
    const mine = asked;
    try {
      const answer = await patiently(image, options, () => mine === asked);
      if (mine === asked) {
        problem(null);
        show(answer, image);
      }
      return { answer };
    } catch (error) {
      if (mine !== asked) return {};
      showNothing();
      problem(error);
      return { error };
    }
  }

  function startDrawing(brush) {
    let busy = false;
    let waiting = false;
    async function answerDrawing() {
      if (busy) {
        waiting = true;
        return;
      }
      busy = true;
      do {
        waiting = false;
        if (!sheet.isEmpty()) {
          const copy = make("canvas", { width: canvas.width, height: canvas.height });
          copy.getContext("2d").drawImage(canvas, 0, 0);
          await Promise.all([ask(copy, { prepare: "digits" }), new Promise((done) => setTimeout(done, 60))]);
        }
      } while (waiting);
      busy = false;
    }
    const canvas = find("sheet");
    const changed = () => {
      const empty = sheet.isEmpty();
      find("hint").hidden = !empty;
      find("undo").disabled = find("clear").disabled = empty;
      if (empty) {
        showNothing();
        page.say("The sheet is empty");
      } else answerDrawing();
    };
    const sheet = page.drawing(canvas, find("pen"), brush, changed);
    page.sheetIsEmpty = sheet.isEmpty;
    page.answerDrawing = answerDrawing;
    find("undo").addEventListener("click", sheet.undo);
    find("clear").addEventListener("click", sheet.clear);
    document.addEventListener("keydown", (event) => {
      const isUndo = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
      if (!isUndo || find("panel-draw").hidden || sheet.isEmpty()) return;
      event.preventDefault();
      sheet.undo();
    });
  }

  const given = [];
  function choose(entry) {
    for (const each of given) each.button.setAttribute("aria-pressed", String(each === entry));
    if (entry.answer) {
      asked += 1;
      problem(null);
      show(entry.answer, entry.file);
    } else if (entry.error) {
      showNothing();
      problem(entry.error);
    } else ask(entry.file).then((said) => note(entry, said));
  }
  function note(entry, { answer, error }) {
    [entry.answer, entry.error] = [answer, error];
    entry.text.textContent = entry.text.title = answer ? answer.label : error ? "?" : "…";
    if (answer && entry.picture.complete && !entry.picture.naturalWidth) entry.picture.src = answer.pixels; // a TIFF
  }
  async function add(files) {
    const found = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
    const images = found.slice(0, MOST);
    if (!images.length) return problem(new Error("An image is expected, got another kind of file; choose a PNG or JPEG."));
    problem(null);
    const entries = images.map((file) => {
      const text = make("span", {}, "…");
      const picture = make("img", { src: URL.createObjectURL(file), alt: file.name || "pasted image" });
      const entry = { file, text, picture, button: make("button", { type: "button", "aria-pressed": "false", onclick: () => choose(entry) }, picture, text) };
      return entry;
    });
    given.push(...entries);
    find("given").prepend(...entries.map((entry) => make("li", {}, entry.button)));
    choose(entries[0]);
    if (found.length > MOST) problem(new Error(`At most ${MOST} images at a time are taken, got ${found.length}; the others were left out.`));
    for (const entry of entries.slice(1)) {
      if (entry.answer || entry.error) continue;
      await patiently(entry.file, {}, () => true).then((answer) => note(entry, { answer }), (error) => note(entry, { error }));
    }
  }
  function startUploads() {
    for (const [button, input] of [["choose", "files"], ["shoot", "camera"]]) {
      find(button).addEventListener("click", () => find(input).click());
      find(input).addEventListener("change", (event) => {
        add(event.target.files);
        event.target.value = "";
      });
    }
    const drop = find("drop");
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      select("upload");
      add(event.dataTransfer.files);
    });
    document.addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      select("upload");
      add(event.clipboardData.files);
    });
  }
  const blobOf = (uri) => {
    const bytes = Uint8Array.from(atob(uri.split(",")[1]), (letter) => letter.charCodeAt(0));
    return new Blob([bytes], { type: uri.slice(5, uri.indexOf(";")) });
  };
  function showExamples() {
    const some = run ? run.samples.flatMap((each) => each.images.slice(0, 1).map((uri) => [each.label, uri])).slice(0, 20) : [];
    find("examples-box").hidden = !some.length;
    find("examples").replaceChildren(
      ...some.map(([label, uri]) =>
        make("li", {}, make("button", { type: "button", "aria-label": `Example: ${label}`, onclick: () => ask(blobOf(uri)) }, make("img", { src: uri, alt: "", class: "pixels" }))),
      ),
    );
  }

  let tabs = ["draw", "upload", "browse"];
  function select(name, focus = false) {
    const was = tabs.find((each) => find(`tab-${each}`).getAttribute("aria-selected") === "true");
    for (const each of tabs) {
      find(`tab-${each}`).setAttribute("aria-selected", String(each === name));
      find(`tab-${each}`).tabIndex = each === name ? 0 : -1;
      find(`panel-${each}`).hidden = each !== name;
    }
    find("work").hidden = name === "browse";
    if (focus) find(`tab-${name}`).focus();
    if (was !== name && name !== "browse") {
      problem(null);
      showNothing();
      if (name === "draw" && !page.sheetIsEmpty()) page.answerDrawing();
    }
    find("empty").firstElementChild.textContent =
      name === "draw" ? "The answer appears here, and changes while you draw." : "The answer to your image appears here.";
  }
  function startTabs() {
    if (!model.writing) {
      find("tab-draw").remove();
      find("panel-draw").hidden = true;
      tabs = ["upload", "browse"];
    }
    tabs.forEach((name, i) => {
      const tab = find(`tab-${name}`);
      tab.addEventListener("click", () => select(name));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        select(tabs[to % tabs.length], true);
      });
    });
    select(tabs[0]);
  }

  function introduce() {
    const names = model.classes;
    const known = names.length <= 12 ? names.join(", ") : `${names.slice(0, 8).join(", ")} and ${names.length - 8} more`;
    const who = model.members === 1 ? "A small neural network looks" : `${model.members} small neural networks look`;
    const vote = model.members === 1 ? "and answers" : "and vote";
    const { accuracy } = model;
    const [rate, images] = accuracy ? [percent(accuracy.accuracy), accuracy.images.toLocaleString("en")] : [];
    const right = !accuracy
      ? ""
      : accuracy.of !== "test"
        ? ` Each of ${images} training images was judged by those of them that had not learnt from it: ${rate} of these answers were right.`
        : model.members === 1
          ? ` It was right for ${rate} of ${images} images that it had not learnt from.`
          : ` Together they were right for ${rate} of ${images} images that they had not learnt from.`;
    document.title = `${model.name} · committee`;
    find("kicker").textContent = model.members === 1 ? `${model.data}` : `${model.data}: a committee of ${model.members}`;
    find("title").textContent = model.writing ? "Write something. What does it read?" : "What is in this picture?";
    find("lead").textContent = `${who} at your picture ${vote} on what it is. ${model.members === 1 ? "It knows" : "They know"} ${count(names.length, "kind")}: ${known}.${right}`;
    find("footer").textContent = `${model.name} · recipe ${model.recipe} · ${model.engine === "onnx" ? "ONNX Runtime, made by committee" : "committee"} ${model.version} · model ${model.digest.slice(0, 12)}`;
  }

  async function start() {
    try {
      model = await engine.model();
    } catch (error) {
      problem(error);
      if (error.retryAfter) setTimeout(start, 1000 * error.retryAfter);
      else find("lead").textContent = "";
      return;
    }
    problem(null);
    introduce();
    try {
      run = await engine.run();
    } catch (error) {
      problem(error);
    }
    find("main").hidden = false;
    if (model.writing) startDrawing((run && run.brush) || 0.07);
    startUploads();
    startTabs();
    showExamples();
    find("panel-browse").replaceChildren(...page.browseShown(run));
  }
  start();
})();

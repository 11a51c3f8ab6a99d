/* What answers in the one-file page: ONNX Runtime in this browser, with the committee that the page carries; the
   contract is at the head of engine_server.js. The preparation is prepare.js; `committee.export.page` puts everything
   into the page: data as JSON in #committee-data, binary parts gzipped in base64 in elements of their own. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});
  const data = JSON.parse(document.getElementById("committee-data").textContent);
  const [height, width, channels] = data.model.image_shape;
  const size = height * width * channels;
  const names = data.model.classes;

  async function bytesOf(id) {
    const text = document.getElementById(id).textContent.trim();
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const runtimeReady = new Promise((done) => {
    if (window.ort) done();
    else window.addEventListener("committee-runtime", () => done(), { once: true });
  });

  async function startSession() {
    await runtimeReady;
    const { env, InferenceSession } = window.ort;
    env.wasm.numThreads = 1;
    env.wasm.proxy = false;
    env.wasm.wasmBinary = (await bytesOf("runtime-wasm")).buffer;
    return InferenceSession.create(await bytesOf("model"), { executionProviders: ["wasm"], logSeverityLevel: 3 });
  }
  const session = startSession();

  /* pixels of one or more images -> their probabilities, members' probabilities [member][image][class], familiar, ... */
  let running = Promise.resolve();
  function answersFor(pixels, count) {
    const kind = data.model.pixel_range === 255 ? "uint8" : "uint16";
    running = running.catch(() => {}).then(async () => {
      const input = new window.ort.Tensor(kind, pixels, [count, height, width, channels]);
      return (await session).run({ images: input });
    });
    return running;
  }

  async function planeOf(image) {
    let source = image;
    if (image instanceof Blob) {
      try {
        source = await createImageBitmap(image, { colorSpaceConversion: "none" }); // as Pillow reads it
      } catch {
        throw new Error("This browser cannot read the image; give a JPEG, PNG or WebP file.");
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = source.width;
    canvas.height = source.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0);
    return context.getImageData(0, 0, source.width, source.height);
  }

  function address(pixels, start) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const shown = context.createImageData(width, height);
    const shift = data.model.pixel_range === 255 ? 0 : 8;
    for (let i = 0; i < height * width; i += 1) {
      const at = start + i * channels;
      for (let c = 0; c < 3; c += 1) shown.data[4 * i + c] = pixels[at + (channels >= 3 ? c : 0)] >> shift;
      shown.data[4 * i + 3] = channels === 2 || channels === 4 ? pixels[at + channels - 1] >> shift : 255;
    }
    context.putImageData(shown, 0, 0);
    return canvas.toDataURL("image/png");
  }

  /* --- the nearest of the training images that the page carries, as in committee.web.nearest ---------------------- */

  function blurred(pixels, start) {
    let [rows, columns] = [height, width];
    let values = new Float32Array(size);
    for (let i = 0; i < size; i += 1) values[i] = (pixels[start + i] - pixels[start + (i % channels)]) / data.model.pixel_range;
    const weights = [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16];
    for (const axis of [0, 1]) {
      const [newRows, newColumns] = axis === 0 ? [Math.ceil(rows / 2), columns] : [rows, Math.ceil(columns / 2)];
      const next = new Float32Array(newRows * newColumns * channels);
      for (let r = 0; r < newRows; r += 1)
        for (let c = 0; c < newColumns; c += 1)
          for (let k = 0; k < 5; k += 1) {
            const [row, column] = axis === 0 ? [2 * r + k - 2, c] : [r, 2 * c + k - 2];
            if (row < 0 || row >= rows || column < 0 || column >= columns) continue;
            for (let d = 0; d < channels; d += 1)
              next[(r * newColumns + c) * channels + d] += weights[k] * values[(row * columns + column) * channels + d];
          }
      [values, rows, columns] = [next, newRows, newColumns];
    }
    const length = Math.max(Math.hypot(...values), 1e-6);
    return values.map((value) => value / length);
  }

  let known = null;
  async function nearest(pixels) {
    if (!data.training.count) return [];
    if (!known) {
      const content = await bytesOf("training-images");
      const images = data.model.pixel_range === 255 ? content : new Uint16Array(content.buffer);
      known = { images, vectors: Array.from({ length: data.training.count }, (_, i) => blurred(images, i * size)) };
    }
    const mine = blurred(pixels, 0);
    const likeness = known.vectors.map((vector) => vector.reduce((sum, value, i) => sum + value * mine[i], 0));
    const order = [...likeness.keys()].sort((a, b) => likeness[b] - likeness[a]).slice(0, 6);
    return order.map((i) => ({
      image: address(known.images, i * size),
      label: names[data.training.labels[i]],
      position: data.training.positions[i],
    }));
  }

  /* --- why an image is unlike the training images, as in committee.metrics.familiarity ---------------------------- */

  function measures(pixels, members) {
    const colours = channels >= 3 ? 3 : 1;
    const [white, count] = [colours * data.model.pixel_range, height * width];
    const grey = new Float64Array(count);
    let [colour, total, squares, border, edges, down, across] = [0, 0, 0, 0, 0, 0, 0];
    for (let i = 0; i < count; i += 1) {
      const own = Array.from(pixels.subarray(i * channels, i * channels + colours));
      grey[i] = own.reduce((a, b) => a + b, 0);
      colour += Math.max(...own) - Math.min(...own);
      total += grey[i];
      squares += grey[i] * grey[i];
    }
    for (let r = 0; r < height; r += 1)
      for (let c = 0; c < width; c += 1) {
        const value = grey[r * width + c];
        if (r === 0 || r === height - 1 || c === 0 || c === width - 1) {
          border += value;
          edges += 1;
        }
        if (r) down += Math.abs(value - grey[(r - 1) * width + c]);
        if (c) across += Math.abs(value - grey[r * width + c - 1]);
      }
    const doubts = members.map((row) => -Math.log(Math.max(1e-12, ...row)));
    return {
      border: border / (edges * white),
      brightness: total / (count * white),
      contrast: Math.sqrt(Math.max(count * squares - total * total, 0)) / (count * white),
      detail:
        down / (Math.max((height - 1) * width, 1) * white) + across / (Math.max(height * (width - 1), 1) * white),
      colour: colour / (count * data.model.pixel_range),
      doubt: doubts.reduce((a, b) => a + b, 0) / doubts.length,
    };
  }

  function why(pixels, members) {
    const values = measures(pixels, members);
    let rarest = { share: Infinity };
    for (const [name, distribution] of Object.entries(data.familiarity.measures))
      for (const above of name === "doubt" ? [true] : [true, false]) {
        const value = above ? values[name] : -values[name];
        const quantiles = above ? distribution.quantiles : distribution.quantiles.map((each) => -each).reverse();
        const end = quantiles[Math.round((1 - data.tail) * (quantiles.length - 1))];
        const beyond = (value - end) / distribution.excess[above ? 1 : 0];
        const body = 1 - quantiles.filter((each) => each < value).length / quantiles.length;
        const share = beyond > 0 ? Math.log(data.tail) - beyond : Math.log(Math.max(body, data.tail));
        if (share < rarest.share) rarest = { share, name, above };
      }
    if (rarest.name === "border" || rarest.name === "brightness") {
      const middle = (name) => {
        const { quantiles } = data.familiarity.measures[name];
        return quantiles[Math.floor(quantiles.length / 2)];
      };
      const [ours, theirs] = [polarity(values.border, values.brightness), polarity(middle("border"), middle("brightness"))];
      if (ours && theirs && ours !== theirs) return `${ours} where those were ${theirs}`;
    }
    return data.words[rarest.name][rarest.above ? 1 : 0];
  }

  function polarity(border, whole) {
    if (border < 0.35 && whole > border) return "light on dark";
    return border > 0.55 && whole < border ? "dark on light" : "";
  }

  /* --- the engine ------------------------------------------------------------------------------------------------- */

  const choice = (row) => row.reduce((best, value, i) => (value > row[best] ? i : best), 0);

  function said(image, prepared, outputs) {
    const probabilities = Array.from(outputs.probabilities.data);
    const members = Array.from({ length: data.model.members }, (_, m) =>
      Array.from(outputs.members.data.subarray(m * names.length, (m + 1) * names.length)),
    );
    const [label, familiar] = [choice(probabilities), outputs.familiar.data[0]];
    const votes = members.map(choice);
    const unlike = familiar < data.unfamiliar_below;
    const inSet = outputs.in_set && names.map((_, c) => c).filter((c) => outputs.in_set.data[c]);
    return {
      image: image.name || null,
      label: names[label],
      probability: probabilities[label],
      probabilities: Object.fromEntries(names.map((name, c) => [name, probabilities[c]])),
      members: votes.map((vote, m) => ({ label: names[vote], probability: members[m][vote] })),
      disagreement: votes.length > 1 ? votes.filter((vote) => vote !== label).length / votes.length : null,
      familiar: Number.isNaN(familiar) ? null : familiar,
      unlike,
      why: unlike ? why(prepared.pixels, members) : "",
      abstain: Boolean(outputs.abstain && outputs.abstain.data[0]),
      set: inSet ? inSet.sort((a, b) => probabilities[b] - probabilities[a]).map((c) => names[c]) : null,
      prepared: prepared.prepared,
      pixels: address(prepared.pixels, 0),
    };
  }

  page.engine = {
    model: async () => {
      await session.catch((error) => {
        throw new Error(`This browser cannot run the committee (${error.message}); a current Chrome, Edge, Firefox or Safari can.`);
      });
      return data.model;
    },
    run: async () => data.run,
    predict: async (image, { prepare = "auto", details = [] } = {}) => {
      const plane = await planeOf(image);
      const prepared = page.prepare(plane.data, plane.width, plane.height, {
        shape: data.model.image_shape,
        pixelRange: data.model.pixel_range,
        writing: data.writing,
        how: prepare,
      });
      const answer = said(image, prepared, await answersFor(prepared.pixels, 1));
      return { ...answer, nearest: details.includes("nearest") ? await nearest(prepared.pixels) : undefined };
    },
    correct: async () => {
      throw new Error("This page stores nothing; committee serve keeps corrections.");
    },
  };

  const roundedUp = (value) => {
    const digits = Math.max(1, Math.min(9, -Math.ceil(Math.log10(Math.max(value, 1e-9)))));
    return (10 ** -digits).toFixed(digits);
  };

  /* Images whose answers were proven when the page was made, asked again here. */
  async function check() {
    const content = await bytesOf("check-images");
    const images = data.model.pixel_range === 255 ? content : new Uint16Array(content.buffer);
    const { probabilities } = await answersFor(images, data.check.count);
    let [largest, labels] = [0, 0];
    for (let i = 0; i < data.check.count; i += 1) {
      const mine = Array.from(probabilities.data.subarray(i * names.length, (i + 1) * names.length));
      const theirs = data.check.probabilities[i];
      mine.forEach((value, c) => (largest = Math.max(largest, Math.abs(value - theirs[c]))));
      labels += choice(mine) === choice(theirs) ? 1 : 0;
    }
    const same = largest <= data.check.tolerance && labels === data.check.count;
    const text = same
      ? `Checked on this device: ${labels} of ${data.check.count} images answered as when this page was made, probabilities to within ${roundedUp(largest)}.`
      : `Do not rely on this page here: this browser answers otherwise than when it was made (${labels} of ${data.check.count} labels alike, probabilities up to ${largest.toFixed(4)} apart). Try another browser.`;
    return { same, text };
  }

  check()
    .catch((error) => ({ same: false, text: `Do not rely on this page here: it could not check its answers (${error.message}).` }))
    .then(({ same, text }) => {
      const shown = document.createElement("p");
      shown.id = "check";
      shown.className = same ? "small" : "notice";
      if (!same) shown.setAttribute("role", "alert");
      shown.textContent = text;
      document.getElementById("main").append(shown);
    });
})();

/* What answers, behind the page: this one asks the server that the page came from.

   The contract of every engine (`window.committeePage.engine`; engine_local.js keeps it without a server):
     model() -> the record of GET /v1/model
     run() -> the record of GET /v1/run, or null where there is none
     predict(image, {prepare, details, signal}) -> one answer of POST /v1/predict; image is a Blob (file) or a canvas
     correct({image, pixels, label, answer}) -> stores a correction; image as for predict, pixels a data: address
   All are asynchronous. A failure is an Error whose message is one sentence; `retryAfter` has seconds where trying
   again may help.

   The page's scripts are classic scripts in index.html's order, each a function of its own that adds to
   `window.committeePage`. So the page becomes one file by putting each in place of its script element, as it stands,
   and the style sheet in place of its link. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});
  const token = new URLSearchParams(location.hash.slice(1)).get("token");

  async function ask(path, options = {}) {
    const headers = { ...(options.headers || {}), ...(token ? { authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw Object.assign(new Error("The server does not answer; see whether committee serve still runs."), { retryAfter: 3 });
    }
    if (response.ok) return response.json();
    let said = "";
    try {
      said = (await response.json()).error;
    } catch {
      said = `the server answered ${response.status}`;
    }
    if (response.status === 401) said = "this page needs the server's token: open it by the address that the server printed, which ends with #token=...";
    const isName = /^\S*[.:]/.test(said); // a sentence that begins with a file's name keeps it as it is
    const error = new Error((isName ? said : said.charAt(0).toUpperCase() + said.slice(1)).replace(/\.?$/, "."));
    error.status = response.status;
    if (response.status === 503) error.retryAfter = Number(response.headers.get("retry-after")) || 1;
    throw error;
  }

  const asBlob = (image) =>
    image instanceof Blob ? Promise.resolve(image) : new Promise((done) => image.toBlob(done, "image/png"));

  async function asBase64(image) {
    const bytes = new Uint8Array(await (await asBlob(image)).arrayBuffer());
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
  }

  let exported = false; // an .onnx file has no run

  page.engine = {
    model: async () => {
      const model = await ask("/v1/model");
      exported = model.engine === "onnx";
      return model;
    },
    run: async () => {
      if (exported) return null;
      try {
        return await ask("/v1/run");
      } catch (error) {
        if (error.status === 404) return null;
        throw error;
      }
    },
    predict: async (image, { prepare = "auto", details = [], signal } = {}) => {
      const form = new FormData();
      form.append("files", await asBlob(image), image.name || "drawing.png");
      form.append("prepare", prepare);
      for (const each of details) form.append("details", each);
      const answer = (await ask("/v1/predict", { method: "POST", body: form, signal })).answers[0];
      if (answer.error) throw new Error(answer.error);
      return answer;
    },
    correct: async ({ image, pixels, label, answer }) =>
      ask("/v1/corrections", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ image: await asBase64(image), pixels: pixels.replace(/^data:[^,]*,/, ""), label, answer }),
      }),
  };
})();

/* Photographs and drawings -> images like those that the committee was trained on, without a server.

   What data/prepare.py and `conformed` of data/formats/decode.py do, so that a committee sees the same pixels here and
   there; tests/test_prepare_js.py compares the two. Needs planes.js and ink.js before it. It also runs in node.
   An image is a list of planes of bytes, one for each channel. */
(() => {
  "use strict";
  const page = (globalThis.committeePage = globalThis.committeePage || {});
  const { f32, rint, clipped, quantile, BOX, BILINEAR, resampled, ofEach, cut, padded, boxOf, grown } = page.planes;

  const INK = 0.15; // as in data/prepare.py

  function centreOf(writing, ink, height, width, threshold) {
    const { top, bottom, left, right } = boxOf(ink, height, width, threshold);
    if (writing.centred_by === "box") return [(top + bottom - 1) / 2, (left + right - 1) / 2];
    let total = 0,
      rows = 0,
      columns = 0;
    ink.forEach((value, i) => {
      total += value;
      rows += value * Math.floor(i / width);
      columns += value * (i % width);
    });
    return [rows, columns].map((sum) => sum / Math.max(total, 1e-6));
  }

  /* Whether an image of the training images' size has their background, their size of ink, and its place. */
  function isLike(writing, image, height, width) {
    const [first, second, third] = image.length >= 3 ? image : [image[0], image[0], image[0]],
      { background } = writing;
    const grey = Float32Array.from(first, (value, i) => f32((value + second[i] + third[i]) / 3) / 255);
    let border = 0,
      plain = 0;
    grey.forEach((value, i) => {
      const row = Math.floor(i / width),
        column = i % width;
      if (row > 0 && column > 0 && row < height - 1 && column < width - 1) return;
      border++;
      if (Math.abs(f32(value - f32(background))) < f32(INK)) plain++;
    });
    const whole = f32(background < 0.5 ? 1 - background : -background);
    const ink = grey
      .map((value) => f32(f32(value - f32(background)) / whole))
      .map((value) => (value > f32(INK / 4) ? value : 0));
    const { longer } = boxOf(ink, height, width, f32(INK));
    const isNear = centreOf(writing, ink, height, width, f32(INK)).every(
      (own, axis) => Math.abs(own - writing.centre[axis]) <= 0.08 * Math.max(...writing.shape),
    );
    return plain / border > 0.95 && Math.abs(longer - writing.longer_side) <= 0.2 * writing.longer_side && isNear;
  }

  /* The box of ink with this longer side, by the area's mean; and how many pixels one of its pixels was. */
  function shrunk({ ink, height, width }, longerSide) {
    const box = boxOf(ink, height, width, 0.5),
      pixel = box.longer / longerSide;
    const [h, w] = [box.bottom - box.top, box.right - box.left].map((side) => Math.max(1, rint(side / pixel)));
    const small = resampled(ink, height, width, h, w, BOX, [box.top, box.bottom, box.left, box.right]);
    const values = small.map((value) => clipped(value, 0, 1));
    const most = f32(Math.max(quantile(values.slice(), 0.98), 0.3));
    return { small: values.map((value) => Math.min(value / most, 1)), height: h, width: w, pixel };
  }

  /* The mean width of strokes: twice their area by the length of their outline; nothing is around the ink. */
  function strokeWidth({ small, height, width }) {
    const ink = padded(small, height, width, 1),
      w = width + 2;
    let area = 0,
      outline = 0;
    for (let i = 0; i < ink.length; i++) {
      area += ink[i];
      if (i < ink.length - w && (i + 1) % w)
        outline += f32(Math.hypot(f32(ink[i + w] - ink[i]), f32(ink[i + 1] - ink[i])));
    }
    return (2 * area) / Math.max(outline, 1e-6);
  }

  /* What is written on an image, as the training images have it: one plane; null where nothing is written. */
  function asDigits(writing, image, height, width) {
    let found = page.findInk(image, height, width);
    if (!found) return null;
    let digit = shrunk(found, writing.longer_side);
    for (let turn = 0; turn < 3; turn++) {
      const radius = rint(((writing.stroke - strokeWidth(digit)) / 2) * digit.pixel);
      if (radius < 1) break;
      const [h, w] = [found.height + 2 * radius, found.width + 2 * radius];
      found = { ink: grown(padded(found.ink, found.height, found.width, radius), h, w, radius), height: h, width: w };
      digit = shrunk(found, writing.longer_side);
    }
    const [tall, wide] = writing.shape,
      own = centreOf(writing, digit.small, digit.height, digit.width, 0);
    const [top, left] = own.map((place, axis) =>
      Math.min(
        Math.max(rint(writing.centre[axis] - place), 0),
        writing.shape[axis] - [digit.height, digit.width][axis],
      ),
    );
    const canvas = cut(digit.small, digit.height, digit.width, -top, tall - top, -left, wide - left);
    const { background, light } = writing;
    return Uint8Array.from(canvas, (ink) => rint(255 * (background + ((light ? 1 : 0) - background) * ink)));
  }

  /* An image with other channels, as `with_channels` of data/formats/decode.py. */
  function withChannels(image, channels) {
    const alpha = image.length % 2 ? null : image[image.length - 1],
      colours = alpha ? image.slice(0, -1) : image;
    if (alpha && channels % 2)
      throw new Error(
        "Parts of the image are transparent, where opaque images are expected; put it on a background like theirs.",
      );
    let made = channels > 2 && colours.length === 1 ? [colours[0], colours[0], colours[0]] : colours;
    if (channels <= 2 && colours.length === 3) {
      const [red, green, blue] = colours,
        grey = new Uint8Array(red.length);
      for (let i = 0; i < grey.length; i++) grey[i] = rint(red[i] * 0.299 + green[i] * 0.587 + blue[i] * 0.114);
      made = [grey];
    }
    return channels % 2 ? made : [...made, alpha || new Uint8Array(colours[0].length).fill(255)];
  }

  /* An image with the size and channels of the training images; Pillow resamples colours multiplied by alpha. */
  function conformed(image, height, width, [h, w, channels]) {
    const whole = withChannels(image, channels);
    if (h === height && w === width) return whole;
    const resize = (plane) => resampled(plane, height, width, h, w, BILINEAR);
    if (channels % 2) return ofEach(whole, resize);
    const alpha = whole[channels - 1],
      small = resize(alpha);
    const times = (value, by) => ((value * by + 128) * 257) >> 16;
    const divided = (value, by) => (by === 255 || by === 0 ? value : Math.min(255, Math.trunc((255 * value) / by)));
    const colour = (plane) =>
      resize(plane.map((value, i) => times(value, alpha[i]))).map((value, i) => divided(value, small[i]));
    return [...ofEach(whole.slice(0, -1), colour), small];
  }

  /* The planes of a canvas's pixels: 1 where all are grey, else 3, and alpha where any is transparent. */
  function planesOf(rgba, size) {
    let isGrey = true,
      isOpaque = true;
    for (let i = 0; i < 4 * size && (isGrey || isOpaque); i += 4) {
      if (rgba[i] !== rgba[i + 1] || rgba[i] !== rgba[i + 2]) isGrey = false;
      if (rgba[i + 3] !== 255) isOpaque = false;
    }
    return [...(isGrey ? [0] : [0, 1, 2]), ...(isOpaque ? [] : [3])].map((channel) => {
      const plane = new Uint8Array(size);
      for (let i = 0, at = channel; i < size; i++, at += 4) plane[i] = rgba[at];
      return plane;
    });
  }

  /* An image in the form of the training images: `Preparation` of data/prepare.py for one image.

     rgba: a canvas's pixels. shape, pixelRange: of the training images. writing: their measures, or null. how: "auto"
     prepares images that are unlike the training images, "as-is" none, "digits" all.
     -> {pixels: row, column, channel; prepared: writing was looked for and found; isEmpty: it was not found} */
  page.prepare = (rgba, width, height, { shape, pixelRange = 255, writing = null, how = "auto" }) => {
    if (how === "digits" && !writing)
      throw new Error(
        "Preparing digits needs training images of isolated writing, all of one size and in one place, got others; " +
          "give images like the training images and prepare them as-is.",
      );
    const image = planesOf(rgba, width * height),
      isOpaque = image.length % 2 === 1;
    let looksFor = Boolean(writing) && how !== "as-is",
      plain = null;
    if (looksFor && how === "auto" && isOpaque) {
      plain = conformed(image, height, width, shape);
      looksFor = !isLike(writing, plain, shape[0], shape[1]);
    }
    const digit = looksFor ? asDigits(writing, image, height, width) : null;
    const planes = digit
      ? conformed([digit], ...writing.shape, shape)
      : plain || conformed(image, height, width, shape);
    const pixels = new (pixelRange === 255 ? Uint8Array : Uint16Array)(shape[0] * shape[1] * shape[2]);
    for (let i = 0; i < pixels.length; i++)
      pixels[i] = planes[i % shape[2]][Math.floor(i / shape[2])] * (pixelRange === 255 ? 1 : 257);
    return { pixels, prepared: digit !== null, isEmpty: looksFor && !digit };
  };
})();

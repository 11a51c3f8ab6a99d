/* Numbers and planes as numpy and Pillow have them, below ink.js and prepare.js. It also runs in node.

   A plane is a typed array of rows, one after the other. Resampling is Pillow's (Resample.c), along rows first; to
   the bit for bytes, but for some sizes Pillow 13 goes along columns first, whose values differ by at most 1. */
(() => {
  "use strict";
  const page = (globalThis.committeePage = globalThis.committeePage || {});
  const f32 = Math.fround;

  /* The nearest whole number, the even one of two. */
  function rint(x) {
    const up = Math.round(x);
    return up - x === 0.5 && up % 2 ? up - 1 : up;
  }
  const clipped = (x, low, high) => Math.min(Math.max(x, low), high);
  const modulo = (x, n) => ((x % n) + n) % n;
  const mean3 = (a, b, c) => f32(f32(f32(a + b) + c) / 3);

  /* The value at position k of the first n values in order; the smaller ones come before it (Hoare, 1961). */
  function selected(values, n, k) {
    let low = 0,
      high = n - 1;
    while (low < high) {
      const pivot = values[k];
      let i = low,
        j = high;
      do {
        while (values[i] < pivot) i++;
        while (pivot < values[j]) j--;
        if (i <= j) {
          const value = values[i];
          values[i++] = values[j];
          values[j--] = value;
        }
      } while (i <= j);
      if (j < k) low = i;
      if (k < i) high = j;
    }
    return values[k];
  }
  function largest(values, n) {
    let most = values[0];
    for (let i = 1; i < n; i++) if (values[i] > most) most = values[i];
    return most;
  }
  /* The median of the first n values, NaN of none; reorders them. */
  function median(values, n = values.length) {
    if (n === 0) return NaN;
    const upper = selected(values, n, n >> 1);
    return n % 2 ? upper : f32(f32(largest(values, n >> 1) + upper) / 2);
  }
  /* The quantile q, linear between two values; reorders them. */
  function quantile(values, q) {
    const place = f32((values.length - 1) * f32(q)),
      k = Math.floor(place),
      t = f32(place - k);
    if (k + 1 >= values.length) return largest(values, values.length);
    const above = selected(values, values.length, k + 1),
      below = largest(values, k + 1);
    const apart = f32(above - below);
    return t < 0.5 ? f32(below + f32(apart * t)) : f32(above - f32(apart * f32(1 - t)));
  }

  const BOX = { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
  const BILINEAR = { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };
  const BICUBIC = {
    support: 2,
    weight: (x, a = -0.5) => {
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  };

  /* The weights of `before` values from `from` to `to` that make each of `after` values; whole numbers for bytes. */
  function weightsOf(before, from, to, after, filter, isBytes) {
    const scale = (to - from) / after,
      wide = Math.max(scale, 1),
      support = filter.support * wide;
    const room = Math.ceil(support) * 2 + 1;
    const first = new Int32Array(after),
      count = new Int32Array(after);
    const weights = new (isBytes ? Int32Array : Float64Array)(after * room);
    for (let i = 0; i < after; i++) {
      const centre = from + (i + 0.5) * scale;
      const start = Math.max(0, Math.trunc(centre - support + 0.5));
      const n = Math.min(before, Math.trunc(centre + support + 0.5)) - start;
      const some = Array.from({ length: n }, (_, x) => filter.weight((x + start - centre + 0.5) * (1 / wide)));
      const sum = some.reduce((a, b) => a + b, 0) || 1;
      for (let x = 0; x < n; x++) {
        const weight = some[x] / sum;
        weights[i * room + x] = isBytes ? Math.trunc(weight * (1 << 22) + (weight < 0 ? -0.5 : 0.5)) : weight;
      }
      first[i] = start;
      count[i] = n;
    }
    return { first, count, weights, room };
  }
  const asByte = (sum) => (sum < 0 ? 0 : sum >> 22 > 255 ? 255 : sum >> 22);

  /* A plane of bytes or floats in another size, or its part from row `top` to `bottom` and column `left` to `right`. */
  function resampled(plane, height, width, newHeight, newWidth, filter, part = [0, height, 0, width]) {
    const [top, bottom, left, right] = part,
      isBytes = !(plane instanceof Float32Array);
    const Kind = isBytes ? Uint8Array : Float32Array;
    if (newWidth !== width || left !== 0 || right !== width) {
      const { first, count, weights, room } = weightsOf(width, left, right, newWidth, filter, isBytes);
      const made = new Kind(height * newWidth);
      for (let row = 0; row < height; row++)
        for (let x = 0; x < newWidth; x++) {
          let from = row * width + first[x],
            k = x * room;
          const end = from + count[x];
          if (isBytes) {
            let sum = 1 << 21;
            for (; from < end; from++, k++) sum = (sum + Math.imul(plane[from], weights[k])) | 0;
            made[row * newWidth + x] = asByte(sum);
          } else {
            let sum = 0;
            for (; from < end; from++, k++) sum += plane[from] * weights[k];
            made[row * newWidth + x] = sum;
          }
        }
      plane = made;
    }
    if (newHeight === height && top === 0 && bottom === height) return plane;
    const { first, count, weights, room } = weightsOf(height, top, bottom, newHeight, filter, isBytes);
    const made = new Kind(newHeight * newWidth);
    const sums = new (isBytes ? Int32Array : Float64Array)(newWidth);
    for (let y = 0; y < newHeight; y++) {
      sums.fill(isBytes ? 1 << 21 : 0);
      for (let k = 0; k < count[y]; k++) {
        const weight = weights[y * room + k],
          start = (first[y] + k) * newWidth;
        for (let x = 0; x < newWidth; x++) sums[x] += plane[start + x] * weight;
      }
      for (let x = 0; x < newWidth; x++) made[y * newWidth + x] = isBytes ? asByte(sums[x]) : sums[x];
    }
    return made;
  }

  /* A plane of floats from their positions; a loop is several times as fast as a typed array's own `from` and `map`. */
  function filled(size, f) {
    const made = new Float32Array(size);
    for (let i = 0; i < size; i++) made[i] = f(i);
    return made;
  }
  /* What f makes of each of three planes; of a grey image's three, which are one, once. */
  function ofEach(planes, f) {
    if (planes.every((plane) => plane === planes[0])) {
      const made = f(planes[0]);
      return planes.map(() => made);
    }
    return planes.map(f);
  }
  function transposed(plane, height, width) {
    const made = new plane.constructor(plane.length);
    for (let row = 0, i = 0; row < height; row++) for (let x = row; x < plane.length; x += height) made[x] = plane[i++];
    return made;
  }
  /* Rows top to bottom, columns left to right of a plane; 0 where they lie outside of it. */
  function cut(plane, height, width, top, bottom, left, right) {
    const made = new plane.constructor((bottom - top) * (right - left));
    const from = Math.max(left, 0),
      to = Math.min(right, width);
    for (let row = Math.max(top, 0); row < Math.min(bottom, height); row++)
      made.set(plane.subarray(row * width + from, row * width + to), (row - top) * (right - left) + from - left);
    return made;
  }
  const padded = (plane, height, width, by) => cut(plane, height, width, -by, height + by, -by, width + by);

  /* The smallest box around the values above a threshold; all of the plane where there are none. */
  function boxOf(plane, height, width, threshold) {
    let top = height,
      bottom = 0,
      left = width,
      right = 0;
    for (let row = 0, i = 0; row < height; row++)
      for (let column = 0; column < width; column++, i++)
        if (plane[i] > threshold) {
          if (row < top) top = row;
          bottom = row + 1;
          if (column < left) left = column;
          if (column >= right) right = column + 1;
        }
    if (!bottom) [top, bottom, left, right] = [0, height, 0, width];
    return { top, bottom, left, right, longer: Math.max(bottom - top, right - left) };
  }
  /* A plane whose large values are `radius` wider on every side, and round; none is below 0. */
  function grown(plane, height, width, radius) {
    const made = plane.slice(),
      places = [];
    for (let y = -radius; y <= radius; y++) {
      const half = Math.trunc(Math.sqrt(radius * radius - y * y) + 0.5);
      for (const x of half ? [-half, 0, half] : [0]) places.push([y, x]);
    }
    for (let i = 0; i < plane.length; i++) {
      if (plane[i] === 0) continue;
      const row = Math.floor(i / width),
        column = i % width;
      for (const [y, x] of places) {
        const at = i + y * width + x;
        if (row + y < 0 || row + y >= height || column + x < 0 || column + x >= width) continue;
        if (plane[i] > made[at]) made[at] = plane[i];
      }
    }
    return made;
  }

  page.planes = {
    f32,
    rint,
    clipped,
    modulo,
    mean3,
    median,
    quantile,
    BOX,
    BILINEAR,
    BICUBIC,
    resampled,
    filled,
    ofEach,
    transposed,
    cut,
    padded,
    boxOf,
    grown,
  };
})();

// The viewer's data out of the page: base64, deflate, byte planes. The layout is in packing.py.

const LIMIT = 2 ** 29;
const NOT_FINITE = new Map([[LIMIT + 1, NaN], [LIMIT + 2, Infinity], [LIMIT + 3, -Infinity]]);

async function decoded(text) {
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let total = 0;
  data.responses.forEach((response, place) => {
    Object.assign(response, { place, start: total, end: total + response.length });
    total += response.length;
  });
  let offset = 4 + length;
  const column = () => {
    const planes = bytes.subarray(offset, offset + 4 * total);
    offset += 4 * total;
    return integers(planes, total);
  };
  data.tokens = column();
  for (const one of data.series) one.numbers = numbers(column(), one.decimals);
  return data;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

function integers(planes, total) {
  const found = new Uint32Array(total);
  for (let i = 0; i < total; i++) {
    found[i] = planes[i] | (planes[total + i] << 8) | (planes[2 * total + i] << 16) | (planes[3 * total + i] << 24);
  }
  return found;
}

function numbers(steps, decimals) {
  const found = new Float64Array(steps.length);
  const scale = 10 ** decimals;
  let sum = 0;
  for (let i = 0; i < steps.length; i++) {
    sum += steps[i] % 2 ? -(steps[i] + 1) / 2 : steps[i] / 2;
    found[i] = sum > LIMIT ? NOT_FINITE.get(sum) : sum / scale;
  }
  return found;
}

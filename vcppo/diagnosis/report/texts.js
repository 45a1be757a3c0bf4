// Elements and texts: every text goes into the document as text, what cannot be seen in it written out.

const INVISIBLE = /[^\n\t -~]/gu;
const IS_INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

const byId = (id) => document.getElementById(id);

function node(tag, css, text) {
  const element = document.createElement(tag);
  if (css) element.className = css;
  if (text !== undefined) element.textContent = text;
  return element;
}

function escapeOf(character) {
  return `[U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
}

// As `visible` of text.py.
function visible(text) {
  return text.replace(INVISIBLE, (character) => (IS_INVISIBLE.test(character) ? escapeOf(character) : character));
}

function shown(x, decimals) {
  if (x === null || x === undefined || Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const text = x.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace("-", "−");
}

function letterOf(place) {
  return String.fromCharCode(65 + (place % 26)) + (place >= 26 ? Math.floor(place / 26) : "");
}

// The text of the chosen response, coloured, once a critic; its curves; the token that is read. Only this response is
// in the document.

const PAGE_TOKENS = 4000; // tokens of a response that are in the document at once
const LONG_TOKEN = 400; // characters of one token that are shown in the text; the readout has all
const SHORT_PROMPT = 600; // characters; a prompt of no more is unfolded at first
const SCALE_RESPONSES = 200; // of the list, evenly: what the ends of the colours are taken from

class Panes extends Numbers {
  draw() {
    const { response } = this;
    const facts = [
      `Response #${response.place + 1}`, response.problem, response.line ? `line ${response.line}` : "",
      response.step === null ? "" : `iteration ${response.step}`, `score ${shown(response.score, this.decimals("return"))}`,
      `${shown(response.length, 0)} tokens`, response.truncated ? "cut at the length limit" : "",
    ];
    byId("about").textContent = visible(facts.filter(Boolean).join(" · "));
    const prompt = this.data.prompts[response.prompt];
    byId("prompt").textContent = visible(prompt);
    if (this.prompt === undefined) byId("prompt-box").open = prompt.length <= SHORT_PROMPT;
    this.prompt = prompt;
    this.firstShown = Math.floor(this.token / PAGE_TOKENS) * PAGE_TOKENS;
    const last = Math.min(response.length, this.firstShown + PAGE_TOKENS);
    byId("pages").hidden = response.length <= PAGE_TOKENS;
    byId("page-shown").textContent = `tokens ${shown(this.firstShown, 0)} to ${shown(last - 1, 0)} of ${shown(response.length, 0)}`;
    byId("earlier").disabled = this.firstShown === 0;
    byId("later").disabled = last === response.length;
    this.panes = this.critics().map((critic, i) => {
      const box = node("div", "pane");
      if (this.data.critics.length) box.append(node("p", "pane-title", visible(`${letterOf(critic)} ${this.data.critics[critic]}`)));
      const pane = node("div", "text tokens");
      pane.tabIndex = 0;
      pane.setAttribute("role", "listbox");
      pane.setAttribute("aria-label", "Tokens of the response");
      const spans = [];
      for (let t = this.firstShown; t < last; t++) spans.push(this.span(t, i));
      pane.append(...spans);
      box.append(pane);
      return { box, pane, spans, critic };
    });
    byId("panes").replaceChildren(...this.panes.map((one) => one.box));
    this.paint();
    this.tell();
  }

  span(t, pane) {
    const index = this.data.tokens[this.response.start + t];
    const text = this.data.vocabularySeen[index];
    const more = this.data.vocabulary[index].length - text.length;
    const span = node("span");
    span.id = `token-${pane}-${t}`;
    span.dataset.t = t;
    span.setAttribute("role", "option");
    if (text === "") span.append(node("i", "escape", "[empty]"));
    let from = 0;
    for (const found of text.matchAll(/[^\t -~]/gu)) {
      const character = found[0];
      if (character !== "\n" && !IS_INVISIBLE.test(character)) continue;
      span.append(text.slice(from, found.index));
      if (character === "\n") span.append(node("i", "escape", "↵"), "\n");
      else span.append(node("i", "escape", escapeOf(character)));
      from = found.index + character.length;
    }
    span.append(text.slice(from));
    if (more > 0) span.append(node("i", "escape", `… ${shown(more, 0)} more characters`));
    return span;
  }

  paint() {
    const quantity = this.quantities().find((one) => one.id === this.colour);
    const every = Math.ceil(this.listed.length / SCALE_RESPONSES);
    const sample = this.listed.map((one) => one.response).sort((a, b) => a.place - b.place).filter((_, i) => i % every === 0);
    const everything = sample.flatMap((response) => this.critics().map((critic) => this.numbersOf(this.colour, response, critic)));
    if (this.colour === "value") everything.push(...sample.map((response) => this.column("returns", response)));
    const scale = scaleFor(quantity.scale, everything.filter(Boolean));
    for (const { spans, critic } of this.panes) {
      const numbers = this.numbersOf(this.colour, this.response, critic);
      spans.forEach((span, i) => { span.className = `t ${numbers ? level(scale, numbers[this.firstShown + i]) : "nan"}`; });
    }
    this.legend(quantity, scale);
    this.curves(quantity);
  }

  legend(quantity, scale) {
    const bar = node("span", "bar");
    const steps = scale.kind === "up" ? [0, LEVELS] : scale.kind === "down" ? [-LEVELS, 0] : [-LEVELS, LEVELS];
    for (let i = steps[0]; i <= steps[1]; i++) bar.append(node("i", `t ${i === 0 ? "z" : i > 0 ? `p${i}` : `n${-i}`}`));
    const unit = { logprob: "nats", entropy: "nats" }[quantity.id] ?? "units of reward";
    const name = quantity.id === "advantage" ? `advantage at λ = ${this.lambda.toFixed(3)}` : quantity.name;
    const gap = scale.high - scale.low;
    const digits = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(gap))));
    byId("scale").replaceChildren(
      node("span", "", `${name}, ${unit}:`), node("span", "end", shown(scale.low, digits)), bar, node("span", "end", shown(scale.high, digits)),
      node("span", "t nan", "NaN"), node("span", "how", "not finite or not known"),
    );
  }

  curves(quantity) {
    const { response } = this;
    if (!response.length) return byId("course").replaceChildren();
    const looks = (i) => `c${i % 7} d${i % 4}`;
    const critics = this.data.critics.length ? this.critics() : [];
    const values = critics.map((i) => ({ name: visible(`V ${letterOf(i)}`), css: looks(i), numbers: this.column("values", response, i) }));
    const first = [{ name: "return", css: "truth", numbers: this.column("returns", response) }, ...values];
    const drawings = [];
    const below = !["value", "return"].includes(quantity.id) && this.numbersOf(quantity.id, response, this.left);
    drawings.push(course("Values and Monte-Carlo returns by token", "reward", first, below ? 136 : 160, 2, !below));
    if (below) {
      const own = ["advantage", "error"].includes(quantity.id) ? critics : [this.left];
      const lines = own.map((i) => ({ name: own === critics ? `${letterOf(i)}: ${quantity.name}` : quantity.name, css: own === critics ? looks(i) : "c5 d0", numbers: this.numbersOf(quantity.id, response, i) }));
      drawings.push(course(`${quantity.name} by token`, { logprob: "nats", entropy: "nats" }[quantity.id] ?? "reward", lines, 136, 2, true));
    }
    byId("course").replaceChildren(...drawings);
  }

  // ---- one token

  moveTo(t) {
    this.token = t;
    this.hovered = null;
    const first = Math.floor(t / PAGE_TOKENS) * PAGE_TOKENS;
    if (first !== this.firstShown) this.draw();
    for (const { pane, spans } of this.panes) {
      const span = spans[t - this.firstShown];
      const above = span.offsetTop - pane.offsetTop - pane.scrollTop;
      if (above < 0) pane.scrollTop += above - 8;
      else if (above + span.offsetHeight > pane.clientHeight) pane.scrollTop += above + span.offsetHeight - pane.clientHeight + 8;
    }
    this.tell();
    byId("spoken").textContent = [...byId("readout").querySelectorAll(".cell")].map((one) => one.textContent).join(", ");
  }

  textKey(event) {
    const { token, response } = this;
    const to = {
      ArrowLeft: () => token - 1, ArrowRight: () => token + 1, ArrowUp: () => this.lineAway(-1), ArrowDown: () => this.lineAway(1),
      PageUp: () => token - 50, PageDown: () => token + 50, Home: () => 0, End: () => response.length - 1,
    }[event.key];
    if (!to || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.moveTo(Math.min(response.length - 1, Math.max(0, to())));
  }

  // The token of the line above or below that is nearest to where the reader is.
  lineAway(direction) {
    const pane = this.panes.find((one) => one.pane === document.activeElement) ?? this.panes[0];
    const boxOf = (t) => pane.spans[t - this.firstShown]?.getClientRects()[0];
    const here = boxOf(this.token);
    let best = this.token, line = null, distance = Infinity;
    for (let t = this.token + direction; boxOf(t); t += direction) {
      const box = boxOf(t);
      if (Math.abs(box.top - here.top) < 3) continue;
      if (line !== null && Math.abs(box.top - line) > 3) break;
      line = box.top;
      if (Math.abs(box.left - here.left) < distance) [best, distance] = [t, Math.abs(box.left - here.left)];
    }
    return line === null ? this.token + direction : best;
  }

  tell() {
    const t = this.hovered ?? this.token;
    const { response } = this;
    for (const { pane, spans } of this.panes) {
      const before = pane.querySelector(".now");
      before?.classList.remove("now");
      before?.removeAttribute("aria-selected");
      const span = spans[t - this.firstShown];
      span?.classList.add("now");
      span?.setAttribute("aria-selected", "true");
      if (span) pane.setAttribute("aria-activedescendant", span.id);
    }
    for (const svg of byId("course").children) svg.moveTo(t);
    const readout = byId("readout");
    if (!response.length) return readout.replaceChildren(node("div", "", "an empty response"));
    const token = this.data.vocabulary[this.data.tokens[response.start + t]];
    const critics = this.data.critics.length ? this.critics() : [];
    const at = (id, critic) => { const column = this.numbersOf(id, response, critic); return column && shown(column[t], this.decimals(id, critic)); };
    const line = (who, cells) => {
      const row = node("div", "who");
      if (who) row.append(node("b", "", who));
      for (const [name, value, id] of cells) {
        if (value === null || value === undefined) continue;
        const cell = node("div", "cell", "");
        const number = node("b", "", value);
        number.dataset.number = id;
        cell.append(node("span", "", `${name} `), number);
        row.append(cell);
      }
      return row;
    };
    const text = node("pre", "", visible(token).replaceAll("\n", "↵\n") || "[empty]");
    text.tabIndex = 0;
    text.setAttribute("aria-label", "The whole token");
    const general = line("", [
      ["token", shown(t, 0), "token"], ["return", at("return"), "return"],
      ["log-probability", at("logprob"), "logprob"], ["entropy", at("entropy"), "entropy"],
    ]);
    const ofCritics = critics.map((i) => line(letterOf(i), [
      ["value", at("value", i), `value-${i}`], ["value − return", at("error", i), `error-${i}`],
      [`advantage at λ ${this.lambda.toFixed(3)}`, at("advantage", i), `advantage-${i}`],
    ]));
    readout.replaceChildren(text, general, ...ofCritics);
  }
}

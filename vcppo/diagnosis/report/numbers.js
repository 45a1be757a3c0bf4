// The numbers that the viewer shows, by response and critic.

class Numbers {
  constructor(data) {
    this.data = data;
    const usual = data.lambdas.filter((x) => x < 1);
    this.lambda = usual.includes(0.95) || !usual.length ? 0.95 : usual[usual.length - 1];
    this.left = 0;
    this.right = data.critics.length > 1 ? 1 : -1;
    this.colour = data.critics.length ? "value" : "return";
  }

  series(kind, critic) {
    return this.data.series.find((one) => one.kind === kind && (critic === undefined || one.critic === critic));
  }

  column(kind, response, critic) {
    const series = this.series(kind, critic);
    if (!series || ((kind === "logprobs" || kind === "entropy") && !response.has.includes(kind))) return null;
    return series.numbers.subarray(response.start, response.end);
  }

  quantities() {
    const critics = this.data.critics.length > 0;
    return [
      { id: "value", name: "value", scale: "between", needs: critics },
      { id: "advantage", name: "advantage at λ", scale: "around", needs: critics },
      { id: "error", name: "value − return", scale: "around", needs: critics },
      { id: "return", name: "Monte-Carlo return", scale: "between", needs: true },
      { id: "logprob", name: "log-probability", scale: "down", needs: Boolean(this.series("logprobs")) },
      { id: "entropy", name: "entropy", scale: "up", needs: Boolean(this.series("entropy")) },
    ].filter((one) => one.needs);
  }

  decimals(id, critic) {
    const kind = { return: "returns", logprob: "logprobs", entropy: "entropy" }[id];
    if (kind) return this.series(kind)?.decimals ?? 0;
    const value = this.series("values", critic)?.decimals ?? 0;
    return id === "value" ? value : Math.max(value, this.series("returns").decimals);
  }

  numbersOf(id, response, critic) {
    const returns = this.column("returns", response);
    if (id === "return") return returns;
    if (id === "logprob") return this.column("logprobs", response);
    if (id === "entropy") return this.column("entropy", response);
    const values = this.column("values", response, critic);
    if (!values || id === "value") return values;
    return id === "error" ? values.map((v, t) => v - returns[t]) : advantages(values, returns, this.lambda);
  }

  // The critics that are shown side by side.
  critics() {
    return this.right >= 0 && this.right !== this.left ? [this.left, this.right] : [this.left];
  }
}

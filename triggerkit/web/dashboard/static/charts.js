// Draws charts so that they can be looked into: the values at the pointer, in the reader's zone.

const drawn = new WeakMap();
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });

const clock = (seconds) => (seconds === null ? "" : TIME.format(new Date(seconds * 1000)));

function colour(figure, number) {
  return getComputedStyle(figure).getPropertyValue(`--line-${number}`).trim();
}

function written(value, unit) {
  if (value === null || value === undefined) return "";
  if (unit !== "s") return `${+value.toPrecision(3)}${unit}`;
  if (value < 1) return `${+(value * 1000).toPrecision(3)} ms`;
  return value < 600 ? `${+value.toPrecision(3)} s` : `${Math.round(value / 60)} min`;
}

// A value without neighbours is no line: it is drawn as a point.
function alone(values) {
  const is = (place) => values[place] !== null && values[place] !== undefined;
  return values.flatMap((_, place) => (is(place) && !is(place - 1) && !is(place + 1) ? [place] : []));
}

function draw(figure) {
  const { at, unit, series } = JSON.parse(figure.dataset.chart);
  const data = [at, ...series.map((one) => one.values)];
  const before = drawn.get(figure);
  if (before) {
    before.setData(data);
    return;
  }
  if (!series.some((one) => one.values.some(Boolean))) return;
  const soft = getComputedStyle(figure).color;
  const line = getComputedStyle(figure).borderTopColor;
  const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const chart = new uPlot({
    width: figure.clientWidth - 20,
    height: 150,
    cursor: { drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [{ ...axis, values: (_, times) => times.map(clock) }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => written(tick, unit)) }],
    series: [{ label: "at", value: (_, value) => clock(value) }, ...series.map((one, number) => ({
      label: one.name, stroke: colour(figure, number + 1), width: 1.5, points: { show: true, size: 5, filter: (plot, of) => alone(plot.data[of]) },
      value: (_, value) => written(value, unit),
    }))],
  }, data, figure);
  drawn.set(figure, chart);
  figure.classList.add("drawn");
  new ResizeObserver(() => chart.setSize({ width: figure.clientWidth - 20, height: 150 })).observe(figure);
}

export function charts() {
  if (typeof uPlot === "undefined") return;
  document.querySelectorAll("figure[data-chart]").forEach(draw);
}

// Times in the reader's zone: how long ago, and on hover exactly, in the zone of the browser and in UTC.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];
const LOCAL = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
  second: "2-digit", fractionalSecondDigits: 3, timeZoneName: "short",
});

function distance(seconds) {
  const size = Math.abs(seconds);
  const [unit, name] = UNITS.find(([unit]) => size >= 2 * unit) ?? [1, "s"];
  const text = `${Math.round(size / unit)} ${name}`;
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

export function times() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    if (!time.dataset.utc) time.dataset.utc = time.title;
    const title = `${LOCAL.format(moment)}\n${time.dataset.utc}`;
    if (time.title !== title) time.title = title;
    if (time.classList.contains("clock")) continue;
    const text = distance((Date.now() - moment.getTime()) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}

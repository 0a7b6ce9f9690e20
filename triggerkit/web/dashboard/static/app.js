// What pages gain by JavaScript. All of them can be read and used without it.
import { charts } from "./charts.js";
import { checks } from "./checks.js";
import { copyButtons } from "./copy.js";
import { counts } from "./counts.js";
import { completions } from "./filter.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { times } from "./times.js";

function dress() {
  times();
  copyButtons();
  charts();
  counts();
}

dress();
setInterval(times, 20000);
checks().then(copyButtons);
completions();
keys();
live(dress);
